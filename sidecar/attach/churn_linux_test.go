// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/memguard/memguard-go/memguard"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestChurn reads a target that allocates on all its Ps as fast as it goes, and
// creates goroutines. MEMGUARD_SNAPSHOTS says how often.
func TestChurn(t *testing.T) {
	s := os.Getenv("MEMGUARD_SNAPSHOTS")
	if s == "" {
		t.Skip("MEMGUARD_SNAPSHOTS=10000 reads so often")
	}
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	p := start(t, compile(t, build{release: current, flags: "-ldflags=-s,-w"}), "-goroutines=200")
	target := open(t, p.pid())
	p.ask(t, "churn")
	fields, unknown, retries, partial := 0, map[string]int{}, 0, 0
	last := map[Parts]*Snapshot{} // those with spans count what the Ps' caches hide from the others
	for i := range n {
		parts := Parts(0)
		if i%4 == 0 {
			parts = Spans | Goroutines | HeapProfile
		}
		s, err := target.Snapshot(t.Context(), parts)
		require.NoError(t, err)
		retries += s.How.Retries
		for name, v := range figures(s) {
			fields++
			if _, ok := v.Get(); !ok {
				unknown[name]++
			}
		}
		checkSane(t, s)
		if parts != 0 {
			if s.SizeClasses == nil || s.Goroutines.Clusters == nil || s.heap == nil {
				partial++
				t.Log(s.Unknown)
			} else {
				checkChurning(t, s)
			}
		}
		if last := last[parts]; last != nil { // counters never go back
			for _, name := range []string{"total_alloc", "mallocs", "frees", "cycles"} {
				a, ok := figures(last)[name].Get()
				b, ok2 := figures(s)[name].Get()
				if ok && ok2 {
					// A P's cached span that was given back between two looks counts once or twice.
					assert.GreaterOrEqual(t, b+b/100+1000, a, name)
				}
			}
		}
		last[parts] = s
		if i%20 == 0 {
			bracket(t, p, target)
		}
	}
	lost := 0
	for _, k := range unknown {
		lost += k
	}
	t.Logf("%d snapshots: %d of %d figures unknown %v, %d retries, %d of %d parts missing", n, lost, fields, unknown, retries, partial, n/4)
	assert.LessOrEqual(t, float64(lost), 0.05*float64(fields))
	assert.LessOrEqual(t, float64(partial), 0.05*float64(n/4))
}

// figures are a snapshot's figures by name.
func figures(s *Snapshot) map[string]memguard.Count {
	h := &s.Heap
	return map[string]memguard.Count{
		"total": h.Total, "objects": h.Objects, "unused": h.Unused, "free": h.Free, "released": h.Released, "stacks": h.Stacks,
		"metadata": h.Metadata, "goal": h.Goal, "trigger": h.Trigger, "total_alloc": h.TotalAlloc, "mallocs": h.Mallocs,
		"frees": h.Frees, "cached": h.Cached, "cycles": s.GC.Cycles, "goroutines": s.Goroutines.Total, "timers": s.Timers,
		"finalizers": s.Finalizers.Pending, "cleanups": s.Cleanups.Pending, "live": h.Live,
	}
}

// checkSane holds a snapshot against what can be in this target.
func checkSane(t *testing.T, s *Snapshot) {
	for name, v := range figures(s) {
		n, ok := v.Get()
		switch name {
		case "total_alloc", "mallocs", "frees":
		default:
			assert.True(t, !ok || n < 1<<32, "%s is %d", name, n)
		}
	}
	if total, ok := s.Heap.Total.Get(); ok {
		if objects, ok := s.Heap.Objects.Get(); ok {
			assert.LessOrEqual(t, objects, total)
			assert.Greater(t, objects, uint64(4<<20), "the target holds more than that")
		}
	}
	if n, ok := s.Goroutines.Total.Get(); ok {
		assert.GreaterOrEqual(t, n, leastChurning())
		assert.Less(t, n, uint64(100_000))
	}
}

// leastChurning is how many goroutines there are at any time in a target with 200 that
// wait, while it churns: those, main, and one that allocates for each P.
func leastChurning() uint64 { return 200 + 1 + uint64(runtime.GOMAXPROCS(0)) }

// TestCount counts goroutines that come and go. A count of them that mixes two moments
// is a wrong one: of 400,000 that were read but once, six were too low by up to three
// percent.
func TestCount(t *testing.T) {
	p := start(t, compile(t, build{release: current, flags: "-ldflags=-s,-w"}), "-goroutines=200")
	target := open(t, p.pid())
	p.ask(t, "churn")
	const times = 20_000
	unknown := 0
	for range times {
		sc := newScalars()
		require.NoError(t, target.first(sc))
		require.NoError(t, target.readPs(sc))
		n, ok, err := target.count(sc)
		require.NoError(t, err)
		if !ok {
			unknown++
		} else {
			require.GreaterOrEqual(t, n, leastChurning())
		}
		sc.done()
	}
	t.Logf("%d of %d unknown", unknown, times)
	assert.LessOrEqual(t, float64(unknown), 0.05*times)
}

// checkChurning holds the parts against what the target started.
func checkChurning(t *testing.T, s *Snapshot) {
	want := map[string]uint64{"main.receiver": 120, "main.selecter": 40, "main.locker": 20, "main.dive": 20}
	got := map[string]uint64{}
	for _, c := range s.Goroutines.Clusters {
		if want[c.Start] != 0 {
			got[c.Start] += c.Count
			assert.Equal(t, "waiting", c.State)
		}
	}
	assert.Equal(t, want, got, "%v", s.Unknown)
}

// bracket takes the target's own figures between two snapshots.
func bracket(t *testing.T, p *truth, target *Target) {
	a, err := target.Snapshot(t.Context(), 0)
	require.NoError(t, err)
	said := p.truth(t)
	z, err := target.Snapshot(t.Context(), 0)
	require.NoError(t, err)
	for name, want := range map[string]uint64{"total_alloc": said.MemStats.TotalAlloc, "mallocs": said.MemStats.Mallocs, "frees": said.MemStats.Frees,
		"cycles": uint64(said.MemStats.NumGC)} {
		before, ok := figures(a)[name].Get()
		after, ok2 := figures(z)[name].Get()
		if !ok || !ok2 {
			continue // counted by the caller
		}
		slack := want/100 + 1000
		assert.LessOrEqual(t, before, want+slack, name)
		assert.GreaterOrEqual(t, after+slack, want, name)
	}
}
