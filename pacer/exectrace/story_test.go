// SPDX-License-Identifier: Apache-2.0

package exectrace

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/exp/trace"
)

// teller makes events and tells them to a story.
type teller struct {
	*testing.T
	*story
}

func tell[T trace.EventDetails](t teller, at trace.Time, kind trace.EventKind, g trace.GoID, p trace.ProcID, details T) {
	t.Helper()
	ev, err := trace.MakeEvent(trace.EventConfig[T]{Time: at, Kind: kind, Goroutine: g, Proc: p, Thread: 1, Details: details})
	require.NoError(t, err)
	require.NoError(t, t.event(ev))
}

func (t teller) mark(at trace.Time, kind trace.EventKind) {
	tell(t, at, kind, 7, 0, trace.Range{Name: rangeMark})
}

func (t teller) stop(at trace.Time, kind trace.EventKind, reason string) {
	tell(t, at, kind, 7, 0, trace.Range{Name: rangeStop + reason + ")", Scope: trace.MakeResourceID(trace.GoID(7))})
}

func (t teller) assist(at trace.Time, kind trace.EventKind, g trace.GoID, p trace.ProcID) {
	tell(t, at, kind, g, p, trace.Range{Name: rangeAssist, Scope: trace.MakeResourceID(g)})
}

func (t teller) heap(at trace.Time, v uint64) {
	tell(t, at, trace.EventMetric, 7, 0, trace.Metric{Name: "/memory/classes/heap/objects:bytes", Value: trace.Uint64Value(v)})
}

func (t teller) goal(at trace.Time, v uint64) {
	tell(t, at, trace.EventMetric, 7, 0, trace.Metric{Name: "/gc/heap/goal:bytes", Value: trace.Uint64Value(v)})
}

// starts and leaves put a goroutine on a P and take it off again.
func (t teller) starts(at trace.Time, g trace.GoID, p trace.ProcID) {
	tell(t, at, trace.EventStateTransition, trace.NoGoroutine, p, trace.MakeGoStateTransition(g, trace.GoRunnable, trace.GoRunning))
}

func (t teller) leaves(at trace.Time, g trace.GoID, p trace.ProcID) {
	tell(t, at, trace.EventStateTransition, g, p, trace.MakeGoStateTransition(g, trace.GoRunning, trace.GoWaiting))
}

// A trace that begins while marking, with a mark termination that is called
// off, and a cycle that begins before the last one is swept.
func TestBeginsInMark(t *testing.T) {
	t.Parallel()
	s := teller{t, newStory()}
	s.heap(0, 100)
	s.goal(10, 200)
	s.mark(1000, trace.EventRangeActive)
	s.heap(1500, 260)
	s.stop(2000, trace.EventRangeBegin, markTermination)
	s.stop(2100, trace.EventRangeEnd, markTermination)
	s.stop(3000, trace.EventRangeBegin, markTermination)
	s.heap(3040, 50)
	s.mark(3050, trace.EventRangeEnd)
	s.goal(3060, 0)
	s.stop(3100, trace.EventRangeEnd, markTermination)
	s.mark(4000, trace.EventRangeBegin)
	s.stop(4010, trace.EventRangeBegin, sweepTermination)
	s.stop(4040, trace.EventRangeEnd, sweepTermination)
	s.heap(5000, 60)
	r := s.report()
	check(t, r)

	require.Len(t, r.Cycles, 2)
	first, second := r.Cycles[0], r.Cycles[1]
	assert.Equal(t, Cycle{
		N: 1, Trigger: "unknown", Restarts: 1, SweepCut: true,
		End: Some[time.Duration](3050), MarkTermination: Some[time.Duration](50), MarkStop: Some[time.Duration](100),
		HeapEnd: Some[uint64](260), Marked: Some[uint64](50),
	}, first, "its start is unknown, not 0")
	assert.False(t, first.Whole())
	assert.Equal(t, Some[time.Duration](4000), second.Start)
	assert.Equal(t, Some[time.Duration](30), second.SweepTermination)
	assert.Equal(t, Opt[uint64]{}, second.Goal, "GOGC=off, a goal of 0 is none")
	_, ok := second.Overshoot()
	assert.False(t, ok)
	assert.Equal(t, PhaseTimes{Mark: 3050 + 1000, Sweep: 950}, r.Phases)
	assert.Equal(t, []Transition{{Mark, Sweep, 1}, {Sweep, Mark, 1}}, r.Transitions)
	assert.Equal(t, uint64(1), r.Peak.SweepsCut)
}

// An assist is charged the time that its goroutine held a P, on whichever; a
// worker that of the kind it was labelled with when it started.
func TestWhoPays(t *testing.T) {
	t.Parallel()
	s := teller{t, newStory()}
	tell(s, 0, trace.EventMetric, 7, 0, trace.Metric{Name: "/sched/gomaxprocs:threads", Value: trace.Uint64Value(4)})
	s.mark(100, trace.EventRangeBegin)

	s.starts(200, 5, 1)
	s.assist(300, trace.EventRangeBegin, 5, 1)
	s.leaves(400, 5, 1) // 100 on P 1
	s.starts(600, 6, 1)
	s.leaves(800, 6, 1) // not its own
	s.starts(900, 5, 2)
	s.assist(950, trace.EventRangeEnd, 5, 2) // 50 on P 2
	s.leaves(990, 5, 2)                      // after the assist

	for i, label := range []string{"GC (dedicated)", "GC (fractional)", "GC (idle)"} {
		g, p := trace.GoID(20+i), trace.ProcID(i)
		s.starts(1000, g, p)
		tell(s, 1000, trace.EventLabel, g, p, trace.Label{Label: label, Resource: trace.MakeResourceID(g)})
	}
	s.leaves(1010, 20, 0)
	s.leaves(1020, 21, 1)
	s.starts(1030, 21, 1) // without a label: no worker
	s.leaves(1050, 21, 1)
	s.heap(1100, 1) // the idle worker still runs at the end
	r := s.report()
	check(t, r)
	assert.Equal(t, Workers{Dedicated: 10, Fractional: 20, Idle: 100, Assist: 150}, r.CPU.Workers)
	assert.Equal(t, Some[time.Duration](4400), r.CPU.Available)
	assert.Equal(t, r.CPU.Workers, r.Cycles[0].Workers)
	require.Len(t, r.Assists.Goroutines, 1)
	assert.Equal(t, int64(5), r.Assists.Goroutines[0].Goroutine)
	assert.Equal(t, time.Duration(650), r.Assists.Wall, "held up from 300 to 950")
	assert.Equal(t, PhaseTimes{Idle: 100, Mark: 200 + 150, MarkAssist: 650}, r.Phases)
}

// A trace whose clock leaps is broken there; what came before stays.
func TestTimeLeaps(t *testing.T) {
	t.Parallel()
	for _, leap := range []trace.Time{1 << 60, 1<<63 - 1} {
		s := teller{t, newStory()}
		s.heap(-1<<40, 1)
		s.heap(0, 1)
		ev, err := trace.MakeEvent(trace.EventConfig[trace.Range]{Time: leap, Kind: trace.EventRangeBegin, Details: trace.Range{Name: rangeMark}})
		require.NoError(t, err)
		require.ErrorContains(t, s.event(ev), "time leaps")
		r := s.report()
		check(t, r)
		assert.Equal(t, time.Duration(1<<40), r.Span)
	}
}

func TestFindings(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	for _, c := range []struct {
		name string
		r    Report
		want map[string]Severity
	}{
		{"nothing", Report{}, nil},
		{"short stops", Report{Peak: Peak{MarkTermination: Some(slowStop)}}, nil},
		{"mark termination", Report{Peak: Peak{MarkTermination: Some(ms), SlowMark: 1}}, map[string]Severity{"gc-pause": Warning}},
		{"long sweep termination", Report{Peak: Peak{SweepTermination: Some(20 * ms), SlowSweep: 1}}, map[string]Severity{"gc-pause": Critical}},
		{"a few assists", Report{CPU: CPU{Workers: Workers{Dedicated: 80 * ms, Assist: 20 * ms}}, Assists: Assists{Wall: ms * 30}}, nil},
		{"many assists", Report{CPU: CPU{Workers: Workers{Dedicated: 60 * ms, Assist: 40 * ms}}, Assists: Assists{Wall: ms * 60}}, map[string]Severity{"gc-assist": Warning}},
		{"mostly assists", Report{CPU: CPU{Workers: Workers{Dedicated: 20 * ms, Assist: 40 * ms, Idle: 90 * ms}}, Assists: Assists{Wall: ms * 60}}, map[string]Severity{"gc-assist": Critical}},
		{"brisk", Report{Peak: Peak{CyclesPerSecond: Some(49.0)}}, nil},
		{"storm", Report{Peak: Peak{CyclesPerSecond: Some(50.0)}}, map[string]Severity{"gc-storm": Warning}},
		{"great storm", Report{Peak: Peak{CyclesPerSecond: Some(500.0)}}, map[string]Severity{"gc-storm": Critical}},
		{"overshoot of a small heap", Report{Peak: Peak{Overshoot: Some(float64(5))}}, nil},
		{"overshoot", Report{Peak: Peak{Overshoot: Some(float64(1.5)), Overshoots: 1}}, map[string]Severity{"gc-overshoot": Warning}},
		{"a sweep cut", Report{CycleCount: 2, Peak: Peak{SweepsCut: 1}}, nil},
		{"sweeps cut", Report{CycleCount: 4, Peak: Peak{SweepsCut: 2}}, map[string]Severity{"sweep-lag": Warning}},
		{"busy scavenger", Report{CPU: CPU{Scavenger: time.Second}, ScavengerWait: scavengeWait}, nil},
		{"starved scavenger", Report{CPU: CPU{Scavenger: ms}, ScavengerWait: scavengeWait}, map[string]Severity{"scavenge-lag": Warning}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := map[string]Severity{}
			for _, f := range c.r.findings() {
				got[f.ID] = f.Severity
				assert.NotEmpty(t, f.Summary)
				assert.NotEmpty(t, f.Evidence)
				assert.NotEmpty(t, f.Remedy)
			}
			assert.Len(t, got, len(c.want))
			for id, s := range c.want {
				assert.Equal(t, s, got[id], id)
			}
		})
	}
}

// The rate is that of the fastest 25 cycles in a row, and of no fewer.
func TestRate(t *testing.T) {
	t.Parallel()
	s := newStory()
	for i := range 60 {
		step := 100 * time.Millisecond
		if i >= 30 && i < 56 {
			step = 10 * time.Millisecond
		}
		s.now += step
		s.rate()
		if i == 24 {
			assert.Equal(t, Opt[float64]{}, s.rep.Peak.CyclesPerSecond)
		}
	}
	assert.InDelta(t, 100, s.rep.Peak.CyclesPerSecond.v, 0.01)
}
