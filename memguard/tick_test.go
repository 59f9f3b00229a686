// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stops counts how often the world was stopped for anything but a collection.
type stops struct{ sample [1]metrics.Sample }

func newStops(t *testing.T) *stops {
	s := new(stops)
	s.sample[0].Name = "/sched/pauses/total/other:seconds"
	metrics.Read(s.sample[:])
	require.Equal(t, metrics.KindFloat64Histogram, s.sample[0].Value.Kind())
	return s
}

func (s *stops) count() (n uint64) {
	metrics.Read(s.sample[:])
	for _, c := range s.sample[0].Value.Float64Histogram().Counts {
		n += c
	}
	return n
}

// Ten thousand ticks stop the world not once. The counter is shown to count: the
// way that everybody else reads memory moves it.
func TestProcessTickStopsNothing(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC() // and no cycle is under way
	src := Self()
	defer src.Close()
	g := still(src)
	s := newStops(t)

	const ticks = 10_000
	before := s.count()
	for range ticks {
		_, err := g.tick()
		require.NoError(t, err)
	}
	assert.Zero(t, s.count()-before, "%d ticks stopped the world", ticks)

	before = s.count()
	var m runtime.MemStats
	for range 100 {
		runtime.ReadMemStats(&m)
	}
	assert.EqualValues(t, 100, s.count()-before, "ReadMemStats does, and it is counted")
}

// A tick allocates nothing; what is read once a second besides may.
func TestProcessTickAllocatesNothing(t *testing.T) {
	out, p := child(t, self(t), "wait", &os.ProcAttr{Files: []*os.File{pipe(t)}})
	ready(t, out)
	other, err := Open(p.Pid)
	if err != nil { // not on this system
		other = Self()
	}
	defer other.Close()
	for name, src := range map[string]*Source{"oneself": Self(), "another process": other} {
		defer src.Close()
		var s Sample
		read := func() {
			if src.Read(&s) != nil {
				s.PID = 0
			}
		}
		read()
		assert.Zero(t, testing.AllocsPerRun(1000, func() {
			src.readAt = time.Now() // not the second at which all of the cgroup is read
			read()
		}), name)
		require.NotZero(t, s.PID)

		// The whole tick of a guard, when nothing changes.
		g := still(src)
		for range 3 {
			_, err := g.tick() // finds what it finds, and tells
			require.NoError(t, err)
		}
		assert.Zero(t, testing.AllocsPerRun(1000, func() {
			src.readAt = time.Now()
			_, _ = g.tick()
		}), "%s: the guard's tick", name)

		full := testing.AllocsPerRun(200, func() {
			src.readAt = time.Time{}
			read()
		})
		t.Logf("%s: the reading of all of the cgroup, once a second: %.0f allocations", name, full)
		assert.Less(t, full, 100.0)
	}
}

func TestJudgeAllocatesNothing(t *testing.T) {
	j := NewJudge()
	s := healthy(0)
	assert.Zero(t, testing.AllocsPerRun(500, func() {
		s.Time = s.Time.Add(time.Second)
		j.Step(s)
	}))
}

// still is a guard that does not run by itself.
func still(src *Source) *Guard {
	g := &Guard{source: src, judge: NewJudge(), standing: map[ID]Finding{}, journal: newJournal(), busy: map[string]bool{}}
	g.proof = newProof(&Config{}, g)
	if src.runtime != nil {
		g.hand = newHand(&Config{}, g)
	}
	return g
}

// BenchmarkTick is one sample as the guard takes it at every tick.
func BenchmarkTick(b *testing.B) {
	src := Self()
	defer src.Close()
	var s Sample
	took := newMedian()
	b.ReportAllocs()
	for b.Loop() {
		took.time(func() { _ = src.Read(&s) })
	}
	b.ReportMetric(took.ns(), "median-ns")
}

// BenchmarkGuardTick is all that the guard does at a tick: sample, judge, pace.
func BenchmarkGuardTick(b *testing.B) {
	src := Self()
	defer src.Close()
	g := still(src)
	took := newMedian()
	b.ReportAllocs()
	for b.Loop() {
		took.time(func() { _, _ = g.tick() })
	}
	b.ReportMetric(took.ns(), "median-ns")
}

// BenchmarkJudge is the detectors alone: at rest, where every tick is a point of
// the trends, and near the limit.
func BenchmarkJudge(b *testing.B) {
	for name, every := range map[string]time.Duration{"at-rest": tickRest, "near-the-limit": tickFastest} {
		b.Run(name, func(b *testing.B) {
			j := NewJudge()
			s := healthy(0)
			b.ReportAllocs()
			for b.Loop() {
				s.Time = s.Time.Add(every)
				j.Step(s)
			}
		})
	}
}

// BenchmarkTickAgainst reads memory in four ways in turn, so that whatever else
// the machine does hits all of them.
func BenchmarkTickAgainst(b *testing.B) {
	src := Self()
	defer src.Close()
	var s Sample
	var m runtime.MemStats
	gather := func(c prometheus.Collector) func() {
		r := prometheus.NewRegistry()
		r.MustRegister(c)
		return func() { _, _ = r.Gather() }
	}
	ways := []struct {
		name string
		read func()
		took *median
	}{
		{"tick", func() { _ = src.Read(&s) }, newMedian()},
		{"ReadMemStats", func() { runtime.ReadMemStats(&m) }, newMedian()},
		{"GoCollector", gather(collectors.NewGoCollector()), newMedian()},
		{"GoCollector-all", gather(collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsAll))), newMedian()},
	}
	for b.Loop() {
		for _, w := range ways {
			w.took.time(w.read)
		}
	}
	b.ReportMetric(0, "ns/op") // the sum of four says nothing
	for _, w := range ways {
		b.ReportMetric(w.took.ns(), w.name+"-ns")
		if w.name != "tick" {
			b.ReportMetric(w.took.ns()/ways[0].took.ns(), w.name+"/tick")
		}
	}
}

// median keeps the last times that something took.
type median struct {
	took []time.Duration
	n    int
}

func newMedian() *median { return &median{took: make([]time.Duration, 1<<13)} }

func (m *median) time(f func()) {
	begin := time.Now()
	f()
	m.took[m.n%len(m.took)] = time.Since(begin)
	m.n++
}

func (m *median) ns() float64 {
	all := slices.Sorted(slices.Values(m.took[:min(m.n, len(m.took))]))
	if len(all) == 0 {
		return 0
	}
	return float64(all[len(all)/2].Nanoseconds())
}
