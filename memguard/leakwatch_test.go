// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stall is what a child saw of a function that did not return.
type stall struct {
	Ticks    int // from the stall until it was told
	Finding  Finding
	Executed int // ticks of the guard's loop after that: it is alive
	Cleared  bool
}

// stalled runs a leakWatch and a Judge in a loop like the guard's, lets arm block
// the queue, and releases it when the finding has been told.
func stalled(id ID, arm func(blocked chan struct{})) func() any {
	return func() any {
		w, src, j := newLeakWatch(), Self(), NewJudge()
		w.start()
		defer w.stop()
		var s Sample
		blocked := make(chan struct{})
		arm(blocked)
		var out stall
		for tick := 1; tick < 60; tick++ {
			time.Sleep(time.Second)
			if src.Read(&s) != nil {
				break
			}
			w.fill(&s)
			j.Step(&s)
			i := slices.IndexFunc(j.Findings(), func(f Finding) bool { return f.ID == id })
			switch {
			case i >= 0 && out.Ticks == 0:
				out.Ticks, out.Finding = tick, j.Findings()[i]
			case i >= 0:
				if out.Executed++; out.Executed == 3 {
					close(blocked)
				}
			case out.Executed >= 3:
				out.Cleared = true
				return out
			}
		}
		return out
	}
}

// release is what a finalizer or a cleanup of these tests runs.
func release(blocked chan struct{}) { <-blocked }

// neverFinalized and neverCleaned queue 300 functions, of which the first blocks.
func neverFinalized(blocked chan struct{}) {
	for range 300 {
		runtime.SetFinalizer(&[64]*byte{}, func(*[64]*byte) { release(blocked) })
	}
	runtime.GC()
}

func neverCleaned(blocked chan struct{}) {
	for range 300 {
		runtime.AddCleanup(&[64]*byte{}, release, blocked)
	}
	runtime.GC()
}

// A finalizer or cleanup that blocks for ever does not silence the guard, and the
// line that blocks is named. How many ticks that takes is pinned by the tests of
// leak.Queue; a loaded machine may add some here.
func TestStallsAreNamed(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for half a minute")
	}
	for _, id := range []ID{"finalizer-stall", "cleanup-stall"} {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()
			var got stall
			answer(t, string(id), &got)
			require.NotZero(t, got.Ticks, "never told")
			t.Logf("told after %d ticks of a second: %s", got.Ticks, got.Finding.Summary)
			assert.Less(t, got.Ticks, 10)
			assert.Equal(t, Warning, got.Finding.Severity)
			assert.Contains(t, got.Finding.Summary, "memguard.release (leakwatch_test.go:")
			assert.Contains(t, got.Finding.Summary, "[chan receive]")
			assert.GreaterOrEqual(t, got.Executed, 3, "the loop goes on behind it")
			assert.True(t, got.Cleared, "released, and withdrawn")
		})
	}
}

// Goroutines that pile up at a line are named by it, with the words of the shape.
func TestProcessGoroutineLeakIsNamed(t *testing.T) {
	w, j := newLeakWatch(), NewJudge()
	w.sampler.Tracker = leak.Tracker{Samples: 4, MinAge: time.Millisecond}
	src := Self()
	defer src.Close()
	never := make(chan int)
	var s Sample
	read := func() {
		require.NoError(t, src.Read(&s))
		w.fill(&s)
		j.Step(&s)
	}
	read()
	require.Nil(t, s.Leaks, "nobody has looked yet")
	assert.Contains(t, j.Blind(), Blind{"goroutine-leak", noGoroutines})
	for round := range 6 {
		for range 20 {
			go abandon(never)
		}
		for parkedAt("memguard.abandon") < 20*(round+1) {
			time.Sleep(time.Millisecond)
		}
		require.Nil(t, w.look())
	}
	read()
	i := slices.IndexFunc(j.Findings(), func(f Finding) bool { return f.ID == "goroutine-leak" })
	require.GreaterOrEqual(t, i, 0, "%+v", s.Leaks)
	f := j.Findings()[i]
	t.Log(f.Summary, f.Remedy)
	assert.Equal(t, Warning, f.Severity)
	assert.Regexp(t, `^120 goroutines wait in .*memguard\.abandon \(leakwatch_test\.go:\d+\) \[chan send\], created by .*TestProcessGoroutineLeakIsNamed \(leakwatch_test\.go:\d+\)`, f.Summary)
	assert.Contains(t, f.Evidence, Fact{"goroutines", 120, UnitCount})
	for range 120 {
		<-never
	}
}

func abandon(answer chan int) { answer <- 1 }

func parkedAt(fn string) int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), fn+"(")
}

// Stacks in system calls are summed up, the largest cluster first.
func TestPinnedOf(t *testing.T) {
	t.Parallel()
	big, small, free := parked(10), parked(5), parked(99)
	p := pinnedOf([]leak.StackUse{{Cluster: free, Bytes: 900}, {Cluster: big, Bytes: 80, Pinned: true}, {Cluster: small, Bytes: 7, Pinned: true}})
	assert.Equal(t, &Pinned{Goroutines: 15, Bytes: 87, Largest: big}, p)
	assert.Equal(t, &Pinned{}, pinnedOf(nil))
}

// Stacks that hold much are told with whose they are, and with what those parked
// deep do to the others.
func TestStackBloatNamesTheLargest(t *testing.T) {
	t.Parallel()
	s := Sample{Runtime: Runtime{
		Total: Known[uint64](200 * mebi), Released: Known[uint64](0), Stacks: Known[uint64](100 * mebi), Goroutines: Known[uint64](1000),
	}}
	var d stackBloat
	v := d.step(&s)
	assert.Equal(t, "Goroutine stacks hold 100 MiB of 200 MiB: 1000 goroutines with 0.1 MiB each.", d.say(&v))
	s.Leaks = &Leaks{Deepest: &leak.StackUse{Cluster: parked(150), Bytes: 90 * mebi}, StackStart: Known[uint64](32 << 10)}
	v = d.step(&s)
	assert.Equal(t, "Goroutine stacks hold 100 MiB of 200 MiB: 1000 goroutines with 0.1 MiB each; the most, about 90.0 MiB, are of 150 in "+
		parked(150).Blocked().String()+". Goroutines that follow others begin with 32 KiB, since that is in use on average.", d.say(&v))
}

// What waits behind a finalizer that blocks is bounded by the growth of the live
// heap, as far as that is known.
func TestFinalizerStallTellsThePayload(t *testing.T) {
	t.Parallel()
	d := queueStall{kind: leak.Finalizers}
	queues := Queues{Finalizers: leak.QueueVerdict{Kind: leak.Finalizers, State: leak.Stalled, For: 3 * time.Second}}
	s := Sample{Queues: &queues}
	v := d.step(&s)
	assert.NotContains(t, d.say(&v), "live heap", "unknown is not zero")
	well := Sample{Queues: &Queues{}, Runtime: Runtime{Live: Known[uint64](10 * mebi)}}
	require.Equal(t, clearly().state, d.step(&well).state)
	s.Runtime.Live = Known[uint64](210 * mebi)
	v = d.step(&s)
	assert.Equal(t, "A finalizer has not returned for 3 s; the live heap has grown by 200 MiB since, what they hold among it.", d.say(&v))
}

// The goroutine that samples waits until a sample is due, and stop ends it.
func TestLeakWatchSamplesAndStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeakWatch()
		w.start()
		var s Sample
		at := func(d time.Duration) *Leaks {
			time.Sleep(d)
			synctest.Wait()
			s.Time = time.Now()
			w.fill(&s)
			return s.Leaks
		}
		assert.Nil(t, at(leak.DefaultEvery-time.Second))
		first := at(2 * time.Second)
		require.NotNil(t, first)
		assert.Same(t, first, at(time.Second))
		assert.NotSame(t, first, at(time.Hour))
		assert.Empty(t, s.Blind)
		require.NotNil(t, s.Queues)
		assert.Equal(t, leak.Flowing, s.Queues.Finalizers.State)
		w.stop() // and the bubble says if a goroutine is left
	})
}

// A defect costs sight, not the service.
func TestLeakWatchOutlivesADefect(t *testing.T) {
	t.Parallel()
	w := newLeakWatch()
	queues := w.queues
	w.queues = nil
	s := Sample{Time: epoch}
	w.fill(&s)
	assert.Nil(t, s.Queues)
	require.Len(t, s.Blind, 1)
	assert.Contains(t, s.Blind[0].Why, "panic: ")

	w.queues, s = queues, Sample{Time: epoch.Add(queuesEvery)}
	w.fill(&s)
	assert.NotNil(t, s.Queues, "seen again")
	assert.Empty(t, s.Blind)
}

func TestProcessLeakWatchAllocatesNothing(t *testing.T) {
	w := newLeakWatch()
	defer w.queues.Close()
	require.Nil(t, w.look())
	s := Sample{Time: time.Now()}
	w.fill(&s)
	assert.Zero(t, testing.AllocsPerRun(1000, func() { w.fill(&s) }), "between the seconds")
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		s.Time = s.Time.Add(time.Second)
		w.fill(&s)
	}), "with the queues")
}

// BenchmarkLeakWatchFill is what the leak watch adds to a tick.
func BenchmarkLeakWatchFill(b *testing.B) {
	for name, every := range map[string]time.Duration{"with-queues": time.Second, "without": 0} {
		b.Run(name, func(b *testing.B) {
			w := newLeakWatch()
			defer w.queues.Close()
			s := Sample{Time: time.Now()}
			b.ReportAllocs()
			for b.Loop() {
				s.Time = s.Time.Add(every)
				w.fill(&s)
			}
		})
	}
}
