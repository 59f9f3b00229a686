// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/pacer"
)

// diary keeps the events of a guard.
type diary struct {
	mu     sync.Mutex
	events []Event
}

func (d *diary) write(e Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

func seqs(es []Event) (ns []uint64) {
	for _, e := range es {
		ns = append(ns, e.Seq)
	}
	return ns
}

func TestJournalNumbersWithoutGaps(t *testing.T) {
	t.Parallel()
	l := newJournal()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				l.add(Event{Kind: Lost})
			}
		})
	}
	all.Wait()
	es, _, over := l.since(0)
	require.Len(t, es, 800)
	assert.False(t, over)
	for i, e := range es {
		require.EqualValues(t, i+1, e.Seq)
	}
	n, kinds := l.count()
	assert.EqualValues(t, 800, n)
	assert.Equal(t, map[EventKind]uint64{Lost: 800}, kinds)
	kinds[Lost] = 7
	_, kinds = l.count()
	assert.EqualValues(t, 800, kinds[Lost], "a copy")
}

func TestJournalSince(t *testing.T) {
	t.Parallel()
	l := newJournal()
	es, _, _ := l.since(0)
	assert.Empty(t, es)
	for range 3 {
		l.add(Event{})
	}
	for after, want := range map[uint64][]uint64{0: {1, 2, 3}, 1: {2, 3}, 2: {3}, 3: nil, 4: nil, 1 << 40: nil, math.MaxUint64: nil} {
		es, _, _ := l.since(after)
		assert.Equal(t, want, seqs(es), after)
	}
	for range 2 * eventsKept {
		l.add(Event{})
	}
	last := uint64(3 + 2*eventsKept)
	es, _, _ = l.since(1) // what is missed shows: the first does not follow on 1
	require.Len(t, es, eventsKept)
	assert.Equal(t, last-eventsKept+1, es[0].Seq)
	assert.Equal(t, last, es[eventsKept-1].Seq)
	es, _, _ = l.since(last - 1)
	assert.Equal(t, []uint64{last}, seqs(es))
}

// Events waits for the next event, for the end of the context, and for that of the
// guard.
func TestEventsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := Start(Config{DryRun: true})
		var last uint64
		go func() {
			time.Sleep(time.Minute)
			_, err := g.Do(Order{Action: CollectGarbage, Reason: "a test", DryRun: true})
			assert.NoError(t, err)
		}()
		for named := ActionName(""); named != CollectGarbage; {
			es := g.Events(t.Context(), last)
			require.NotEmpty(t, es)
			last, named = es[len(es)-1].Seq, es[len(es)-1].Action.Name
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for es := g.Events(ctx, last); len(es) > 0; es = g.Events(ctx, last) {
			last = es[len(es)-1].Seq
		}
		assert.Error(t, ctx.Err(), "it waited to its end")

		woken := make(chan []Event)
		for range 3 {
			go func() { woken <- g.Events(context.Background(), math.MaxUint64) }()
			go func() { woken <- g.Events(context.Background(), last) }()
		}
		synctest.Wait()
		require.NoError(t, g.Close())
		for range 6 {
			assert.Empty(t, <-woken, "there will be none")
		}
		assert.NotEmpty(t, g.Events(t.Context(), 0), "what is kept can be read after the end")
	})
}

// The callback hears of every event in order, from one goroutine, whoever made
// it, also when it panics.
func TestEventCallbackHearsAllInOrder(t *testing.T) {
	t.Parallel()
	for name, panics := range map[string]bool{"well": false, "panicking": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d diary
			var g *Guard
			started := make(chan struct{})
			g = Start(Config{DryRun: true, Event: func(e Event) {
				<-started
				d.write(e)
				g.Status() // a callback may ask
				if panics && e.Seq%5 == 0 {
					panic(fmt.Sprint("at ", e.Seq))
				}
			}})
			close(started)
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for range 50 {
						_, err := g.Do(Order{Action: SetGCPercent, To: 50, Reason: "a test"})
						assert.NoError(t, err)
					}
				})
			}
			all.Wait()
			require.NoError(t, g.Close())
			kept, _, _ := g.journal.since(0)
			require.GreaterOrEqual(t, len(kept), 200)
			require.Equal(t, len(kept), len(d.events), "all but what the callback was lost for at the very end")
			lost := 0
			for i, e := range d.events {
				require.EqualValues(t, i+1, e.Seq)
				if e.Blind.What == callback {
					lost++
				}
			}
			assert.Equal(t, panics, lost > 20, lost)
		})
	}
}

// A callback that hangs costs bounded memory, and the stream goes on.
func TestEventsPendingAreBounded(t *testing.T) {
	t.Parallel()
	hangs := make(chan struct{})
	first := make(chan uint64, 1)
	var after []uint64
	g := Start(Config{DryRun: true, Event: func(e Event) {
		select {
		case first <- e.Seq:
			<-hangs
		default:
			after = append(after, e.Seq)
		}
	}})
	for range 3 * eventsKept {
		_, err := g.Do(Order{Action: SetGCPercent, To: 50, Reason: "a test"})
		require.NoError(t, err)
	}
	<-first
	g.mu.Lock()
	assert.LessOrEqual(t, len(g.pending), eventsKept)
	g.mu.Unlock()
	st, ok := g.StatusWithin(time.Minute)
	assert.True(t, ok, "others are not held up")
	assert.GreaterOrEqual(t, st.Events, uint64(3*eventsKept))
	close(hangs)
	require.NoError(t, g.Close())
	all, _ := g.journal.count()
	assert.Equal(t, all, after[len(after)-1], "the newest are kept")
}

// panickingLog is somebody else's handler.
type panickingLog struct{ slog.Handler }

func (panickingLog) Enabled(context.Context, slog.Level) bool  { return true }
func (panickingLog) Handle(context.Context, slog.Record) error { panic("no disk") }

func TestGuardOutlivesItsLog(t *testing.T) {
	t.Parallel()
	var d diary
	g := Start(Config{DryRun: true, Event: d.write, Logger: slog.New(panickingLog{slog.DiscardHandler})})
	for range 5 {
		_, err := g.Do(Order{Action: SetGCPercent, To: 50, Reason: "a test"})
		require.NoError(t, err)
	}
	require.NoError(t, g.Close())
	kept, kinds := g.journal.count()
	assert.EqualValues(t, len(d.events), kept)
	lost := 0
	for _, e := range d.events {
		if e.Blind == (Blind{"log", "panic: no disk"}) {
			lost++
		}
	}
	assert.Equal(t, 1, lost, "said once: %v", kinds)
}

// The intent is noted before the effect.
func TestProcessIntentBeforeEffect(t *testing.T) {
	var g *Guard
	seen := make(chan []Event, 1)
	g = Start(Config{Compact: func() { seen <- g.Events(context.Background(), 0) }})
	defer g.Close()
	e, err := g.Do(Order{Action: Compact, Reason: "a test"})
	require.NoError(t, err)
	assert.Equal(t, Planned, e.Kind)
	at := func(es []Event, kind EventKind, name ActionName) (seq uint64) {
		for _, e := range es {
			if e.Kind == kind && e.Action.Name == name {
				return e.Seq
			}
		}
		return 0
	}
	es := <-seen
	assert.Equal(t, e.Seq, at(es, Planned, Compact))
	assert.Zero(t, at(es, Applied, Compact))
	for after := e.Seq; ; {
		es := g.Events(t.Context(), after)
		require.NotEmpty(t, es)
		if at(es, Applied, Compact) != 0 {
			break
		}
		after = es[len(es)-1].Seq
	}
	e, err = g.Do(Order{Action: SetGCPercent, To: 61, Reason: "a test"})
	require.NoError(t, err)
	require.Equal(t, Applied, e.Kind)
	es = g.Events(t.Context(), 0)
	assert.Less(t, at(es, Planned, SetGCPercent), e.Seq)
	assert.NotZero(t, at(es, Planned, SetGCPercent))
}

// exitingLog is a handler that ends the goroutine, as one of a test does by t.FailNow.
type exitingLog struct{ slog.Handler }

func (exitingLog) Enabled(context.Context, slog.Level) bool  { return true }
func (exitingLog) Handle(context.Context, slog.Record) error { runtime.Goexit(); return nil }

// A callback that ends its goroutine hears of the next event in another, and of each
// it is told that it was lost.
func TestTellingOutlivesGoexit(t *testing.T) {
	t.Parallel()
	for name, log := range map[string]*slog.Logger{"callback": nil, "callback and log": slog.New(exitingLog{slog.DiscardHandler})} {
		var d diary
		g := Start(Config{DryRun: true, Logger: log, Event: func(e Event) {
			d.write(e)
			if e.Seq%3 == 0 {
				runtime.Goexit()
			}
		}})
		for range 50 {
			_, err := g.Do(Order{Action: SetGCPercent, To: 50, Reason: "a test"})
			require.NoError(t, err)
		}
		require.NoError(t, g.Close())
		kept, _, _ := g.journal.since(0)
		require.GreaterOrEqual(t, len(kept), 50, name)
		// Close waits a second for the telling; here it ends.
		require.Eventually(t, func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return len(d.events) == len(kept)
		}, time.Minute, time.Millisecond, name)
		d.mu.Lock()
		defer d.mu.Unlock()
		lost := map[string]int{}
		for i, e := range d.events {
			require.EqualValues(t, i+1, e.Seq, name)
			if e.Kind == Lost {
				lost[e.Blind.What]++
				assert.Equal(t, "it has ended its goroutine (runtime.Goexit)", e.Blind.Why)
			}
		}
		assert.Greater(t, lost[callback], 10, name)
		if log != nil {
			assert.Equal(t, 1, lost["log"], "told once")
		}
	}
}

// Nor do what is done aside and the breaker end in silence by it.
func TestProcessGoexitElsewhereIsTold(t *testing.T) {
	g := Start(Config{Compact: runtime.Goexit, Breaker: func() pacer.State { runtime.Goexit(); return pacer.Closed }})
	defer g.Close()
	_, err := g.Do(Order{Action: Compact, Reason: "a test"})
	require.NoError(t, err)
	lost := map[string]string{}
	for after := uint64(0); len(lost) < 2; {
		es := g.Events(t.Context(), after)
		require.NotEmpty(t, es)
		after = es[len(es)-1].Seq
		for _, e := range es {
			if e.Kind == Lost && strings.Contains(e.Blind.Why, "Goexit") {
				lost[e.Blind.What] = e.Blind.Why
			}
		}
	}
	assert.Contains(t, lost, "breaker state")
	assert.Contains(t, lost, string(Compact))
	_, err = g.Do(Order{Action: Compact, Reason: "a test"})
	assert.NoError(t, err, "it is not under way any more")
}
