// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tight is a memory in which the model binds: 100 MiB of room.
func tight() Memory {
	return Memory{Limit: 128 * mib, Usage: 100 * mib, Must: 20 * mib, Other: 4 * mib, Margin: 4 * mib}
}

// full is a limiter with a learned cost of 10 MiB for "work" and as many in
// flight as it admits.
func full(t *testing.T, cfg Config) (l *Limiter, leaves []func()) {
	t.Helper()
	l = New(cfg)
	l.Update(tight())
	r := l.core.route("work")
	r.cost, r.learned = 10*mib, true
	l.core.window = 1 << 40
	for range 9 {
		leave, err := l.Enter(t.Context(), Work{Route: "work"})
		require.NoError(t, err)
		leaves = append(leaves, leave)
		l.core.pending = [2]float64{} // it has allocated, long since
	}
	return l, leaves
}

func TestEnter(t *testing.T) {
	t.Parallel()
	l, leaves := full(t, Config{Wait: -1})
	_, err := l.Enter(t.Context(), Work{Route: "work"})
	require.ErrorIs(t, err, ErrRefused)
	var refusal *Refusal
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, "work", refusal.Route)
	assert.Equal(t, Budget, refusal.Reason)
	assert.Positive(t, refusal.RetryAfter)
	assert.EqualError(t, err, "shed: work: refused for lack of memory (budget)")

	leaves[0]()
	leaves[0]() // does nothing
	assert.Equal(t, 8, l.core.inFlight)
	_, err = l.Enter(t.Context(), Work{Route: "work"})
	require.NoError(t, err)
	leaves[0]() // is not the one that has taken its place
	assert.Equal(t, 9, l.core.inFlight)

	s := l.Snapshot()
	assert.True(t, s.Limited)
	assert.Equal(t, []RouteSnapshot{{"work", 10 * mib, true, 9, 10, 1}}, s.Routes)
	assert.EqualValues(t, 90*mib, s.Held)
	assert.EqualValues(t, 100*mib, s.Room)
}

func TestEnterWithoutLimit(t *testing.T) {
	t.Parallel()
	l := New(Config{})
	for _, m := range []Memory{{}, {Usage: 1 << 40, Must: 1 << 40}} {
		for range 1000 {
			_, err := l.Enter(t.Context(), Work{Route: "work", Priority: 200})
			require.NoError(t, err)
		}
		l.Update(m)
	}
	assert.False(t, l.Snapshot().Limited)
	assert.False(t, l.Snapshot().Blind)
}

// Whatever the figures, nothing breaks and something is admitted.
func TestUpdateAnything(t *testing.T) {
	t.Parallel()
	values := []uint64{0, 1, 4096, 128 * mib, 1 << 62, 1<<64 - 1}
	for _, limit := range values {
		for _, other := range values {
			l := New(Config{Wait: -1})
			for i, must := range values {
				l.Update(Memory{Limit: limit, Usage: 0, Must: must, Other: other, Free: must, Margin: other, Cycles: uint64(i)})
				leave, err := l.Enter(t.Context(), Work{Route: "work"})
				require.NoError(t, err, "nothing is in flight")
				l.Update(Memory{Limit: limit, Usage: 0, Must: must, Other: other, Free: must, Margin: other, Cycles: uint64(i + 100)})
				leave()
				require.GreaterOrEqual(t, l.core.room(), 0.)
				require.GreaterOrEqual(t, l.core.base, 0.)
			}
		}
	}
}

func TestEnterWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, leaves := full(t, Config{})
		began := time.Now()
		_, err := l.Enter(t.Context(), Work{Route: "work"})
		require.ErrorIs(t, err, ErrRefused)
		assert.InDelta(t, waitDefault.Seconds(), time.Since(began).Seconds(), 0.002)

		time.AfterFunc(5*time.Millisecond, leaves[0])
		began = time.Now()
		_, err = l.Enter(t.Context(), Work{Route: "work"})
		require.NoError(t, err)
		assert.Equal(t, 5*time.Millisecond, time.Since(began))

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
		defer cancel()
		_, err = l.Enter(ctx, Work{Route: "work"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, ErrRefused)

		began = time.Now()
		time.AfterFunc(time.Minute, leaves[1])
		stop := updates(l, tight)
		_, err = l.Enter(t.Context(), Work{Route: "work", Wait: time.Hour})
		require.NoError(t, err)
		assert.Equal(t, time.Minute, time.Since(began))
		stop()
		time.Sleep(10 * time.Millisecond) // whoever tended the queue has gone
	})
}

// updates plays the guard.
func updates(l *Limiter, memory func() Memory) (stop func()) {
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
				l.Update(memory())
			}
		}
	}()
	return func() { close(done) }
}

// Who waits is served by priority, and then by age; not too many may wait.
func TestEnterQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, leaves := full(t, Config{Wait: 50 * time.Millisecond})
		var order []string
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i, p := range []Priority{Low, Normal, High, Normal, Normal} {
			time.Sleep(time.Microsecond)
			wg.Go(func() {
				_, err := l.Enter(t.Context(), Work{Route: "work", Priority: p})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					order = append(order, fmt.Sprint(i))
				}
			})
			synctest.Wait()
		}
		assert.Equal(t, queueLeast, l.Snapshot().Waiting, "High may fill all of the room, and has not waited")
		began := time.Now()
		_, err := l.Enter(t.Context(), Work{Route: "work"})
		require.Error(t, err)
		assert.Zero(t, time.Since(began), "the queue is full")
		for _, leave := range leaves[:4] {
			time.Sleep(5 * time.Millisecond)
			leave()
			synctest.Wait()
		}
		wg.Wait()
		assert.Equal(t, []string{"2", "1", "3", "4"}, order)
	})
}

// Near the limit work waits for the usage to fall, whoever sees it first.
func TestEnterBrake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Wait: 30 * time.Millisecond})
		var usage atomic.Uint64
		usage.Store(100 * mib)
		var blind atomic.Bool
		l.SetLook(func() (uint64, bool) { return usage.Load(), !blind.Load() })
		l.Update(tight())
		leave, err := l.Enter(t.Context(), Work{Route: "batch"})
		require.NoError(t, err)

		time.Sleep(2 * time.Millisecond)
		usage.Store(127 * mib)
		began := time.Now()
		time.AfterFunc(10*time.Millisecond, func() { usage.Store(110 * mib) })
		_, err = l.Enter(t.Context(), Work{Route: "batch"})
		require.NoError(t, err)
		assert.InDelta(t, 10, time.Since(began).Milliseconds(), 1, "delayed, and no longer than needed")
		assert.EqualValues(t, 1, l.Snapshot().Braked)

		time.Sleep(2 * time.Millisecond)
		usage.Store(127 * mib)
		_, err = l.Enter(t.Context(), Work{Route: "batch"})
		var refusal *Refusal
		require.ErrorAs(t, err, &refusal)
		assert.Equal(t, Brake, refusal.Reason)
		assert.True(t, l.Snapshot().Braking)

		// It stays so, with garbage that nobody collects: now and then one may try.
		leave()
		var at []time.Duration
		began = time.Now()
		for range 200 {
			if leave, err := l.Enter(t.Context(), Work{Route: "batch"}); err == nil {
				at = append(at, time.Since(began))
				leave()
			}
		}
		require.GreaterOrEqual(t, len(at), 5)
		for i := range at[1:] {
			assert.LessOrEqual(t, at[i+1]-at[i], probeMost+5*time.Millisecond)
		}

		// A look that fails changes nothing.
		blind.Store(true)
		usage.Store(50 * mib)
		time.Sleep(2 * time.Millisecond)
		_, _ = l.Enter(t.Context(), Work{Route: "batch", Wait: -1})
		assert.True(t, l.Snapshot().Braking)
		time.Sleep(time.Second)
	})
}

// A guard that has died does not take the service with it.
func TestEnterBlind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, _ := full(t, Config{Wait: -1})
		_, err := l.Enter(t.Context(), Work{Route: "work"})
		require.Error(t, err)
		time.Sleep(blindAfter)
		_, err = l.Enter(t.Context(), Work{Route: "work"})
		require.NoError(t, err)
		assert.True(t, l.Snapshot().Blind)
		l.Update(tight())
		_, err = l.Enter(t.Context(), Work{Route: "work"})
		require.Error(t, err)
		assert.False(t, l.Snapshot().Blind)
	})
}

// As long as the usage can be read it is not exceeded, whoever has died. And where
// nobody looked for long, the first to come does.
func TestEnterHalfBlind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Wait: -1})
		var looks atomic.Int64
		var gone atomic.Bool
		l.SetLook(func() (uint64, bool) { looks.Add(1); return 127 * mib, !gone.Load() })
		l.Update(Memory{Limit: 128 * mib, Usage: 127 * mib, Must: 126 * mib})
		_, err := l.Enter(t.Context(), Work{Route: "work", Priority: High}) // so that something is in flight
		require.NoError(t, err)
		for range 5 {
			time.Sleep(3 * blindAfter)
			before := looks.Load()
			_, err = l.Enter(t.Context(), Work{Route: "work"}) // the probe
			require.NoError(t, err)
			for range 100 {
				_, err = l.Enter(t.Context(), Work{Route: "work"})
				require.ErrorIs(t, err, ErrRefused)
			}
			assert.Equal(t, before+1, looks.Load())
			assert.False(t, l.Snapshot().Blind)
		}
		gone.Store(true)
		time.Sleep(blindAfter)
		for range 100 {
			_, err = l.Enter(t.Context(), Work{Route: "work"})
			require.NoError(t, err, "now nobody knows")
		}
		assert.True(t, l.Snapshot().Blind)
	})
}

// What the doc of Enter says of the usage at the limit with nothing to collect.
func TestEnterHopeless(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Wait: -1})
		m := Memory{Limit: 128 * mib, Usage: 127 * mib, Must: 126 * mib}
		l.Update(m)
		_, err := l.Enter(t.Context(), Work{Route: "work", Priority: High})
		require.NoError(t, err)
		began, at := time.Now(), []time.Duration{}
		for time.Since(began) < 25*time.Second {
			l.Update(m)
			if _, err := l.Enter(t.Context(), Work{Route: "work"}); err == nil {
				at = append(at, time.Since(began))
			}
			time.Sleep(10 * time.Millisecond)
		}
		require.Len(t, at, 7)
		for i, want := range []time.Duration{100, 500, 1000, 2000, 4000, 8000, 8000} {
			before := time.Duration(0)
			if i > 0 {
				before = at[i-1]
			}
			assert.Equal(t, want*time.Millisecond, at[i]-before)
		}
	})
}

// Who waits in slow start is let in when nothing is in flight any more, or no limit is
// left, and is not overtaken by who comes later.
func TestEnterSlowStartEnds(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, limit, usage uint64, cost float64) (l *Limiter, leave func()) {
		l = New(Config{})
		l.SetLook(func() (uint64, bool) { return usage, true })
		l.Update(Memory{Limit: limit, Usage: usage, Must: 10 * mib})
		r := l.core.route("work")
		r.cost, r.learned = cost, true
		leave, err := l.Enter(t.Context(), Work{Route: "work"})
		require.NoError(t, err)
		return l, leave
	}
	enter := func(l *Limiter, wait time.Duration) (took time.Duration, err error) {
		start := time.Now()
		leave, err := l.Enter(context.Background(), Work{Route: "work", Wait: wait})
		took = time.Since(start)
		if err == nil {
			leave()
		}
		time.Sleep(2 * tendEvery) // who looks after the queue ends
		return took, err
	}
	t.Run("nothing in flight", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l, leave := begin(t, 128*mib, 40*mib, 45*mib)
			time.AfterFunc(5*time.Millisecond, leave)
			took, err := enter(l, time.Minute)
			require.NoError(t, err)
			assert.LessOrEqual(t, took, 6*time.Millisecond)
		})
	})
	t.Run("no limit", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l, leave := begin(t, 128*mib, 40*mib, 45*mib)
			defer leave()
			time.AfterFunc(5*time.Millisecond, func() { l.Update(Memory{}) })
			took, err := enter(l, 0)
			require.NoError(t, err)
			assert.LessOrEqual(t, took, 6*time.Millisecond)
		})
	})
	t.Run("not overtaken", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l, leave := begin(t, 1024*mib, 590*mib, mib)
			leaves := []func(){leave}
			for {
				leave, err := l.Enter(t.Context(), Work{Route: "work", Wait: -1})
				if err != nil {
					break
				}
				leaves = append(leaves, leave)
			}
			waited := make(chan error)
			go func() { _, err := enter(l, 5*time.Second); waited <- err }()
			synctest.Wait()
			for _, leave := range leaves[:len(leaves)/2] {
				leave()
			}
			require.NoError(t, <-waited)
			for _, leave := range leaves[len(leaves)/2:] {
				leave()
			}
		})
	})
}

// A burst that is more than may be let in unseen waits until the first of it have
// shown how little they hold; as soon as that is not so little, it waits no longer.
func TestEnterBurst(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name             string
		cfg              Config
		limit, size      uint64
		served, servedNo int // at least, at most
	}{
		{"little", Config{}, 1024 * mib, 4096, 1000, 3000},
		{"much", Config{}, 1024 * mib, mib, 500, 1000},
		{"little, and nobody waits", Config{Wait: -1}, 1024 * mib, 4096, 140, 700},
		{"little, and not for long", Config{Wait: 10 * time.Millisecond}, 1024 * mib, 4096, 140, 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := New(tt.cfg)
				var usage atomic.Uint64
				usage.Store(20 * mib)
				l.SetLook(func() (uint64, bool) { return usage.Load(), true })
				l.Update(Memory{Limit: tt.limit, Usage: usage.Load(), Must: 10 * mib})
				var served, most atomic.Int64
				var wg sync.WaitGroup
				for range 3000 {
					wg.Go(func() {
						leave, err := l.Enter(t.Context(), Work{Route: "work"})
						if err != nil {
							assert.ErrorIs(t, err, ErrRefused)
							return
						}
						defer leave()
						time.Sleep(20 * time.Millisecond) // a database
						if n := int64(usage.Add(tt.size)); n > most.Load() {
							most.Store(n)
						}
						time.Sleep(30 * time.Millisecond)
						served.Add(1)
					})
				}
				wg.Wait()
				time.Sleep(10 * time.Millisecond) // whoever tended the queue has gone
				t.Logf("served %d, most %d MiB", served.Load(), most.Load()/mib)
				assert.GreaterOrEqual(t, served.Load(), int64(tt.served))
				assert.LessOrEqual(t, served.Load(), int64(tt.servedNo))
				assert.Less(t, most.Load(), int64(tt.limit))
				assert.Zero(t, l.Snapshot().Waiting)
			})
		})
	}
}

// Where work waits far from the limit, it is not for long after there is room: with
// nothing to let in, there would be a look in 20 ms.
func TestEnterBurstLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{})
		var usage atomic.Uint64
		usage.Store(70 * mib)
		l.SetLook(func() (uint64, bool) { return usage.Load(), true })
		l.Update(Memory{Limit: 128 * mib, Usage: usage.Load(), Must: 10 * mib})
		var err error
		for err == nil {
			_, err = l.Enter(t.Context(), Work{Route: "work", Wait: -1})
		}
		require.ErrorContains(t, err, string(SlowStart))
		began := time.Now()
		time.AfterFunc(5*time.Millisecond, func() { usage.Store(40 * mib) })
		_, err = l.Enter(t.Context(), Work{Route: "work"})
		require.NoError(t, err)
		assert.InDelta(t, 7, time.Since(began).Milliseconds(), 2)
		time.Sleep(10 * time.Millisecond) // whoever tended the queue has gone
	})
}

func TestRoutesAreBounded(t *testing.T) {
	t.Parallel()
	l := New(Config{})
	for i := range 10 * maxRoutes {
		leave, err := l.Enter(t.Context(), Work{Route: fmt.Sprint("/", i)})
		require.NoError(t, err)
		defer leave()
	}
	_, err := l.Enter(t.Context(), Work{})
	require.NoError(t, err)
	s := l.Snapshot()
	assert.Len(t, s.Routes, maxRoutes)
	assert.Equal(t, otherName, s.Routes[0].Route)
	assert.Equal(t, 9*maxRoutes+2, s.Routes[0].InFlight)
}

// What is counted is what is in flight, whoever comes and goes at once.
func TestEnterConcurrently(t *testing.T) {
	t.Parallel()
	l := New(Config{Wait: time.Millisecond})
	l.SetLook(func() (uint64, bool) { return 100 * mib, true })
	l.Update(tight())
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for n := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%3)*time.Millisecond)
				leave, err := l.Enter(ctx, Work{Route: fmt.Sprint(i % 5), Priority: Priority(i % 3)})
				if err == nil {
					time.Sleep(time.Duration(n%7) * 10 * time.Microsecond)
					leave()
				} else if !errors.Is(err, ErrRefused) {
					assert.ErrorIs(t, err, context.DeadlineExceeded)
				}
				cancel()
				if n%10 == 0 {
					m := tight()
					m.Cycles, m.Must = uint64(n), uint64(20+n%40)*mib
					l.Update(m)
					l.Snapshot()
				}
			}
		})
	}
	wg.Wait()
	l.mu.Lock() // whoever tended the queue may still be about to go
	defer l.mu.Unlock()
	assert.Zero(t, l.core.inFlight)
	assert.Zero(t, l.core.held)
	for _, r := range l.core.routes {
		assert.Zero(t, r.inFlight)
		assert.Equal(t, [3]int{}, r.age)
	}
	assert.Empty(t, l.queue.waiting)
}

// Of every hundred units of each route as many are refused as was ordered, evenly,
// whether there is a limit or not, and none that is urgent.
func TestRefuse(t *testing.T) {
	t.Parallel()
	for _, percent := range []int{0, 1, 10, 33, 50, 99, 100, -5, 300} {
		l := New(Config{Wait: -1})
		undo := l.Refuse(percent)
		want := min(max(percent, 0), 100)
		assert.Equal(t, want, l.Refusing())
		refused, longest, since := map[string]int{}, map[string]int{}, map[string]int{}
		for i := range 1000 {
			for _, w := range []Work{{Route: "a"}, {Route: "b", Priority: Low}, {Route: "urgent", Priority: High}} {
				if w.Route == "b" && i%10 > 0 {
					continue // a tenth as often: it has a count of its own
				}
				leave, err := l.Enter(t.Context(), w)
				since[w.Route]++
				if err == nil {
					leave()
					continue
				}
				var refusal *Refusal
				require.ErrorAs(t, err, &refusal)
				assert.Equal(t, Ordered, refusal.Reason)
				assert.EqualError(t, refusal, "shed: "+w.Route+": refused by order")
				refused[w.Route]++
				longest[w.Route], since[w.Route] = max(longest[w.Route], since[w.Route]), 0
			}
		}
		assert.Equal(t, 10*want, refused["a"], percent)
		assert.Equal(t, want, refused["b"], percent)
		assert.Zero(t, refused["urgent"])
		if want > 0 {
			assert.Equal(t, (100+want-1)/want, longest["a"], "evenly")
		}
		s := l.Snapshot()
		assert.Equal(t, want, s.Refusing)
		assert.EqualValues(t, 10*want, s.Routes[0].Refused)
		undo()
		undo()
		assert.Zero(t, l.Refusing())
		leave, err := l.Enter(t.Context(), Work{Route: "a"})
		require.NoError(t, err)
		leave()
	}
	l := New(Config{})
	l.Refuse(20)
	l.Refuse(60)()
	assert.Equal(t, 20, l.Refusing(), "what was before")
}

// Each takes back its own, in whatever order; the latest that stands counts.
func TestRefuseUndoneInAnyOrder(t *testing.T) {
	t.Parallel()
	l := New(Config{})
	first, second := l.Refuse(100), l.Refuse(20)
	first()
	assert.Equal(t, 20, l.Refusing())
	third := l.Refuse(60)
	second()
	second()
	assert.Equal(t, 60, l.Refusing())
	third()
	assert.Zero(t, l.Refusing())
}

// The level costs the admission no allocation, nor does a refusal by it.
func TestRefuseAllocatesNothing(t *testing.T) {
	l := New(Config{Wait: -1})
	enter := func() {
		if u, gen, _, _ := l.enter(t.Context(), Work{Route: "a"}); u != nil {
			l.leave(u, gen)
		}
	}
	enter()
	for _, percent := range []int{0, 30, 100} {
		l.Refuse(percent)
		assert.Zero(t, testing.AllocsPerRun(1000, enter), percent)
	}
}
