// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"context"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard/leak"
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
		g := Start(Config{Compact: func() {}})
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
		loop(func() { g.Status(); g.Alive() })
		loop(func() { _, _ = g.Report() })
		require.Eventually(t, func() bool { return g.Status().Events > 500 }, time.Minute, time.Millisecond)
		require.NoError(t, g.Close())
		assert.Equal(t, user, pacer.NewApplier().Current())
		_, _ = g.Do(Order{Action: SetGCPercent, To: 55, Reason: "late"})
		close(end)
		all.Wait()
		assert.Equal(t, user, pacer.NewApplier().Current(), "nobody comes in after the end")
	}
}
