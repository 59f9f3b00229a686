// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"context"
	"math"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
)

// next waits for an event of a kind about an action, after the given one.
func next(t *testing.T, g *Guard, after uint64, kind EventKind, name ActionName) Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		es := g.Events(ctx, after)
		require.NotEmpty(t, es, "no %s %s", kind, name)
		for _, e := range es {
			if e.Kind == kind && e.Action.Name == name {
				return e
			}
		}
		after = es[len(es)-1].Seq
	}
}

func ticked(t *testing.T, g *Guard) {
	t.Helper()
	require.Eventually(t, func() bool { return g.Status().Ticks > 0 }, time.Minute, time.Millisecond)
}

// A setting that was ordered stands, and comes back: by Undo, after its TTL, at
// the end of the guard.
func TestProcessOrderedSettingComesBack(t *testing.T) {
	user := pacer.NewApplier().Current()
	current := func() pacer.Setting { return pacer.NewApplier().Current() }
	runtime.GC()
	g := Start(Config{})
	ticked(t, g)
	own := g.Status().Wanted

	e, err := g.Do(Order{Action: SetGCPercent, To: 71, Reason: "a test", By: "me"})
	require.NoError(t, err)
	assert.Equal(t, 71, current().GCPercent, "at once")
	assert.Equal(t, Applied, e.Kind)
	assert.EqualValues(t, own.GCPercent, e.Action.From)
	assert.Equal(t, "me", e.Action.By)
	assert.WithinDuration(t, time.Now().Add(orderTTL), e.Action.Until, time.Minute)
	_, err = g.Undo(e.Seq+100, "me", "")
	assert.ErrorIs(t, err, ErrNoOrder)
	u, err := g.Undo(e.Seq, "you", "enough")
	require.NoError(t, err)
	assert.Equal(t, Action{Name: SetGCPercent, From: 71, To: int64(own.GCPercent), Reason: "enough", By: "you", Undoes: e.Seq}, u.Action)
	assert.Equal(t, own.GCPercent, current().GCPercent)
	_, err = g.Undo(e.Seq, "you", "again")
	assert.ErrorIs(t, err, ErrNoOrder)
	for _, x := range g.Events(t.Context(), e.Seq) {
		assert.False(t, x.Kind == Applied && x.Action.Name == SetGCPercent, "one event tells of it: %+v", x)
	}

	e, err = g.Do(Order{Action: SetGCPercent, To: 72, Reason: "a test", TTL: time.Millisecond})
	require.NoError(t, err)
	u = next(t, g, e.Seq, Undone, SetGCPercent)
	assert.Equal(t, e.Seq, u.Action.Undoes)
	assert.Equal(t, "the order's time is over", u.Action.Reason)
	g.Status() // the intent is told first: now the tick that does it is over
	assert.Equal(t, own.GCPercent, current().GCPercent)

	first, err := g.Do(Order{Action: SetMemoryLimit, To: 3 << 30, Reason: "a test"})
	require.NoError(t, err)
	second, err := g.Do(Order{Action: SetMemoryLimit, To: 4 << 30, Reason: "a test"})
	require.NoError(t, err)
	assert.EqualValues(t, 4<<30, current().MemoryLimit)
	_, err = g.Undo(first.Seq, "me", "the second took its place")
	assert.ErrorIs(t, err, ErrNoOrder)
	off, err := g.Do(Order{Action: SetGCPercent, To: -1, Reason: "there is a limit"})
	require.NoError(t, err)
	assert.Equal(t, -1, current().GCPercent)
	if own.MemoryLimit == pacer.NoLimit {
		_, err = g.Undo(second.Seq, "me", "")
		require.NoError(t, err)
		u = next(t, g, off.Seq, Undone, SetGCPercent)
		assert.Equal(t, noneCollects, u.Action.Reason, "off would be for ever")
	}
	require.NoError(t, g.Close())
	assert.Equal(t, user, current())
	_, err = g.Do(Order{Action: SetGCPercent, To: 50, Reason: "late"})
	assert.ErrorIs(t, err, errClosed)
	_, err = g.Undo(off.Seq, "me", "late")
	assert.ErrorIs(t, err, ErrNoOrder)
	assert.Equal(t, user, current())
}

func TestProcessOrdersThatAreRefused(t *testing.T) {
	runtime.GC()
	g := Start(Config{})
	defer g.Close()
	ticked(t, g)
	before := pacer.NewApplier().Current()
	events := g.Status().Events
	for _, o := range []Order{
		{Action: SetGCPercent, To: 50},
		{Action: "format-disk", Reason: "why not"},
		{Action: "", Reason: "why not"},
		{Action: Exit, Reason: "why not"},
		{Action: ShedLoad, Reason: "why not"},
		{Action: SetGCPercent, To: 50, Reason: "r", TTL: -1},
		{Action: SetGCPercent, To: 50, Reason: "r", TTL: orderMaxTTL + 1},
		{Action: SetGCPercent, Reason: "0 was not meant"},
		{Action: SetGCPercent, To: -2, Reason: "r"},
		{Action: SetGCPercent, To: math.MaxInt32 + 1, Reason: "r"},
		{Action: SetMemoryLimit, Reason: "0 was not meant"},
		{Action: SetMemoryLimit, To: -1, Reason: "r"},
		{Action: SetMemoryLimit, To: 1 << 10, Reason: "less than what lives"},
		{Action: Compact, Reason: "there is no hook"},
		{Action: Capture, Reason: "there is no store"},
	} {
		_, err := g.Do(o)
		assert.ErrorIs(t, err, ErrOrder, "%+v", o)
		assert.ErrorContains(t, err, "memguard: order ")
	}
	if before.MemoryLimit == pacer.NoLimit {
		_, err := g.Do(Order{Action: SetGCPercent, To: -1, Reason: "nothing would collect"})
		assert.ErrorIs(t, err, ErrOrder)
	}
	for _, e := range g.Events(canceled(t), events) {
		assert.NotEqual(t, Planned, e.Kind, "a refused order is no plan: %+v", e)
	}
	assert.Equal(t, before, pacer.NewApplier().Current())
}

// canceled is a context that waits for nothing.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// Before the first look nothing is known of what cannot be freed: no limit is
// safe.
func TestOrderBeforeTheFirstLook(t *testing.T) {
	t.Parallel()
	h := handOf(Config{})
	_, err := h.g.Do(Order{Action: SetMemoryLimit, To: 1, Reason: "r"})
	assert.ErrorIs(t, err, ErrOrder)
	assert.ErrorContains(t, err, "not known")
	other := &Guard{source: new(Source), journal: newJournal()}
	_, err = other.Do(Order{Action: CollectGarbage, Reason: "r"})
	assert.ErrorIs(t, err, ErrOrder, "another process")
	_, err = other.Undo(1, "me", "r")
	assert.ErrorIs(t, err, ErrNoOrder)
}

func TestProcessOrdersInADryRun(t *testing.T) {
	found := pacer.NewApplier().Current()
	runtime.GC()
	called := false
	g := Start(Config{DryRun: true, Compact: func() { called = true }})
	ticked(t, g)
	for _, o := range []Order{
		{Action: SetGCPercent, To: 50, Reason: "r"}, {Action: SetMemoryLimit, To: 8 << 30, Reason: "r"},
		{Action: FreeOSMemory, Reason: "r"}, {Action: CollectGarbage, Reason: "r"}, {Action: Compact, Reason: "r"},
	} {
		e, err := g.Do(o)
		require.NoError(t, err, o.Action)
		assert.Equal(t, Planned, e.Kind)
		assert.True(t, e.Action.DryRun)
		_, err = g.Undo(e.Seq, "me", "r")
		assert.ErrorIs(t, err, ErrNoOrder)
	}
	assert.Equal(t, found, pacer.NewApplier().Current())
	require.NoError(t, g.Close())
	assert.False(t, called)
	assert.Equal(t, found, pacer.NewApplier().Current())
	es, _, _ := g.journal.since(0)
	for _, e := range es {
		assert.NotContains(t, []EventKind{Applied, Undone}, e.Kind, "%+v", e)
	}
}

// What takes long is under way once, and ends with an event.
func TestProcessOrdersThatTakeLong(t *testing.T) {
	defer leak.VerifyNone(t)
	goOn := make(chan struct{})
	g := Start(Config{Compact: func() { <-goOn }})
	for _, name := range []ActionName{CollectGarbage, FreeOSMemory} {
		e, err := g.Do(Order{Action: name, Reason: "r"})
		require.NoError(t, err, name)
		assert.Equal(t, Planned, e.Kind)
		done := next(t, g, e.Seq, Applied, name)
		assert.Positive(t, done.Action.Took)
		assert.Equal(t, name == FreeOSMemory, done.Action.Gained.ok)
	}
	_, err := g.Do(Order{Action: Compact, Reason: "r"})
	require.NoError(t, err)
	before := g.Status().Events
	_, err = g.Do(Order{Action: Compact, Reason: "r"})
	assert.ErrorIs(t, err, ErrBusy)
	for _, e := range g.Events(canceled(t), before) {
		assert.NotEqual(t, Planned, e.Kind, "what is not begun was not planned")
	}
	// The hook has not returned: Close does not wait for it. What is ours it does
	// wait for, and tells.
	e, err := g.Do(Order{Action: CollectGarbage, Reason: "r"})
	require.NoError(t, err)
	require.NoError(t, g.Close())
	next(t, g, e.Seq, Applied, CollectGarbage)
	close(goOn) // and then nothing is left of it
}

// Everybody at once. The race detector looks on, and whatever was ordered when,
// the settings are the user's afterwards.
func TestProcessOrdersFromAllSides(t *testing.T) {
	defer leak.VerifyNone(t)
	user := pacer.NewApplier().Current()
	for range 3 {
		breaker, limiter := shed.NewBreaker(shed.BreakerConfig{}), shed.New(shed.Config{})
		g := Start(Config{Compact: func() {}, MemoryBreaker: breaker, Shed: limiter})
		ticked(t, g)
		var all sync.WaitGroup
		end := make(chan struct{})
		loop := func(do func()) {
			all.Go(func() {
				for {
					select {
					case <-end:
						return
					default:
						do()
					}
				}
			})
		}
		for i := range 2 {
			loop(func() {
				e, err := g.Do(Order{Action: SetGCPercent, To: int64(80 + i), Reason: "r", TTL: time.Millisecond})
				if err == nil {
					_, _ = g.Undo(e.Seq, "me", "r")
				}
			})
		}
		loop(func() { _, _ = g.Do(Order{Action: SetMemoryLimit, To: 5 << 30, Reason: "r"}) })
		loop(func() { _, _ = g.Do(Order{Action: Compact, Reason: "r"}) })
		loop(func() {
			_, _ = g.Do(Order{Action: SetBreaker, To: int64(pacer.Open), Reason: "r", TTL: time.Millisecond})
		})
		loop(func() { _, _ = g.Do(Order{Action: ShedLoad, To: 50, Reason: "r", TTL: time.Millisecond}) })
		loop(func() { g.Status(); g.Alive() })
		loop(func() { _, _ = g.Report() })
		require.Eventually(t, func() bool { return g.Status().Events > 500 }, time.Minute, time.Millisecond)
		require.NoError(t, g.Close())
		assert.Equal(t, user, pacer.NewApplier().Current())
		_, _ = g.Do(Order{Action: SetGCPercent, To: 55, Reason: "late"})
		close(end)
		all.Wait()
		assert.Equal(t, user, pacer.NewApplier().Current(), "nobody comes in after the end")
		assert.Equal(t, shed.Closed, breaker.State())
		assert.Zero(t, limiter.Refusing())
	}
}

// Breaker and limiter do what was ordered at once, and go back to their own when it
// is over: by Undo, after the TTL, at the guard's end.
func TestProcessOrdersOfBreakerAndLimiter(t *testing.T) {
	breaker, limiter := shed.NewBreaker(shed.BreakerConfig{}), shed.New(shed.Config{})
	limiter.Refuse(5) // the service's own wish
	g := Start(Config{MemoryBreaker: breaker, Shed: limiter})
	ticked(t, g)
	for _, c := range []struct {
		name      ActionName
		to, other int64
		own       int64
		is        func() int64
	}{
		{SetBreaker, int64(pacer.Open), int64(pacer.HalfOpen), int64(pacer.Closed), func() int64 { return int64(pacerState(breaker.State())) }},
		{ShedLoad, 40, 100, 5, func() int64 { return int64(limiter.Snapshot().Refusing) }},
	} {
		e, err := g.Do(Order{Action: c.name, To: c.to, Reason: "a test", By: "me"})
		require.NoError(t, err)
		assert.Equal(t, c.to, c.is(), c.name)
		assert.Equal(t, Applied, e.Kind)
		assert.Equal(t, c.own, e.Action.From)
		assert.WithinDuration(t, time.Now().Add(orderTTL), e.Action.Until, time.Minute)
		assert.Equal(t, []Standing{{e.Seq, e.Action}}, g.Status().Orders)

		second, err := g.Do(Order{Action: c.name, To: c.other, Reason: "more", By: "me"})
		require.NoError(t, err)
		assert.Equal(t, c.to, second.Action.From)
		assert.Equal(t, c.other, c.is(), c.name)
		_, err = g.Undo(e.Seq, "me", "the second took its place")
		assert.ErrorIs(t, err, ErrNoOrder)
		u, err := g.Undo(second.Seq, "you", "enough")
		require.NoError(t, err)
		assert.Equal(t, Action{Name: c.name, From: c.other, To: c.own, Reason: "enough", By: "you", Undoes: second.Seq}, u.Action)
		assert.Equal(t, c.own, c.is(), "what the first found")
		assert.Empty(t, g.Status().Orders)

		e, err = g.Do(Order{Action: c.name, To: c.to, Reason: "a test", TTL: time.Millisecond})
		require.NoError(t, err)
		u = next(t, g, e.Seq, Undone, c.name)
		assert.Equal(t, e.Seq, u.Action.Undoes)
		assert.Equal(t, c.own, c.is(), "its time is over")

		e, err = g.Do(Order{Action: c.name, To: c.to, Reason: "a test", DryRun: true})
		require.NoError(t, err)
		assert.Equal(t, Planned, e.Kind)
		assert.Equal(t, c.own, c.is(), "a dry run")
	}
	for name, to := range map[ActionName]int64{SetBreaker: int64(pacer.Open), ShedLoad: 90} {
		_, err := g.Do(Order{Action: name, To: to, Reason: "until the end"})
		require.NoError(t, err)
	}
	assert.Len(t, g.Status().Orders, 2)
	told := g.Status().Events
	ticks := g.Status().Ticks
	require.Eventually(t, func() bool { return g.Status().Ticks > ticks+1 }, time.Minute, time.Millisecond)
	for _, e := range g.Events(canceled(t), told) {
		assert.NotEqual(t, SetBreaker, e.Action.Name, "it was told: %+v", e)
	}
	require.NoError(t, g.Close())
	assert.Equal(t, shed.Closed, breaker.State())
	assert.Equal(t, 5, limiter.Snapshot().Refusing)
	undone := map[ActionName]int64{}
	for _, e := range g.Events(t.Context(), told) {
		if e.Kind == Undone && e.Action.Undoes > 0 {
			undone[e.Action.Name] = e.Action.To
		}
	}
	assert.Equal(t, map[ActionName]int64{SetBreaker: int64(pacer.Closed), ShedLoad: 5}, undone)
}

// A guard that only plans lets neither hear of an order.
func TestProcessOrdersOfBreakerAndLimiterInADryRun(t *testing.T) {
	breaker, limiter := shed.NewBreaker(shed.BreakerConfig{}), shed.New(shed.Config{})
	g := Start(Config{DryRun: true, MemoryBreaker: breaker, Shed: limiter})
	ticked(t, g)
	for name, to := range map[ActionName]int64{SetBreaker: int64(pacer.Open), ShedLoad: 100} {
		e, err := g.Do(Order{Action: name, To: to, Reason: "r"})
		require.NoError(t, err)
		assert.Equal(t, Planned, e.Kind)
		assert.True(t, e.Action.DryRun)
	}
	assert.Equal(t, shed.Closed, breaker.State())
	assert.Zero(t, limiter.Snapshot().Refusing)
	breaker.Force(shed.Open)
	require.NoError(t, g.Close())
	assert.Equal(t, shed.Open, breaker.State(), "nor of the end")
}

// What a guard has no part for it refuses, and says what is missing.
func TestOrdersThatLackAPart(t *testing.T) {
	t.Parallel()
	bare := handOf(Config{})
	foreign := handOf(Config{Breaker: func() pacer.State { return pacer.Closed }})
	whole := handOf(Config{MemoryBreaker: shed.NewBreaker(shed.BreakerConfig{}), Shed: shed.New(shed.Config{})})
	for _, c := range []struct {
		h    *hand
		o    Order
		says string
	}{
		{bare, Order{Action: SetBreaker, To: 2}, "no breaker: start it with one in Config.MemoryBreaker"},
		{foreign, Order{Action: SetBreaker, To: 2}, "cannot set it"},
		{bare, Order{Action: ShedLoad, To: 2}, "no limiter: start it with one in Config.Shed"},
		{whole, Order{Action: SetBreaker, To: 3}, "want 0 (closed), 1 (half-open) or 2 (open)"},
		{whole, Order{Action: SetBreaker, To: -1}, "want 0 (closed)"},
		{whole, Order{Action: ShedLoad, To: 101}, "want 0 to 100"},
		{whole, Order{Action: ShedLoad, To: -1}, "want 0 to 100"},
		{whole, Order{Action: "format-disk"}, "no such action: this guard knows [gc-percent memory-limit breaker shed gc"},
	} {
		c.o.Reason = "r"
		_, err := c.h.g.Do(c.o)
		assert.ErrorIs(t, err, ErrOrder, "%+v", c.o)
		assert.ErrorContains(t, err, c.says)
		assert.Zero(t, c.h.g.journal.next, "a refused order is no event")
	}
	for _, name := range orderable {
		assert.Equal(t, slices.Contains(settingNames[:], name), name.IsSetting(), name)
	}
}
