// SPDX-License-Identifier: Apache-2.0

package exectrace

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/exp/trace"
)

// check asserts what holds for every report, of whatever trace.
func check(t testing.TB, r *Report) {
	t.Helper()
	require.Equal(t, r.Span, r.Phases.Sum(), "phases add up to the span")

	var at time.Duration
	var phases PhaseTimes
	for i := range r.Timeline {
		s := &r.Timeline[i]
		require.Equal(t, at, s.Start, "segment %d follows the last without a gap", i)
		require.Greater(t, s.End, s.Start)
		require.Equal(t, s.End-s.Start, s.Time.Sum())
		require.Positive(t, s.Time[s.Phase])
		for p, d := range s.Time {
			phases[p] += d
		}
		at = s.End
	}
	require.Equal(t, r.Span, at)
	require.Equal(t, r.Phases, phases, "the timeline has the totals")
	require.Less(t, len(r.Timeline), maxSegments+1)

	require.LessOrEqual(t, len(r.Heap.Points), maxPoints)
	for i, p := range r.Heap.Points {
		if i > 0 {
			require.Less(t, r.Heap.Points[i-1].At, p.At)
		}
		require.LessOrEqual(t, p.At, r.Span)
		require.LessOrEqual(t, p.Min.v, p.Last.v)
		require.LessOrEqual(t, p.Last.v, p.Max.v)
	}

	require.Equal(t, r.CycleCount, uint64(len(r.Cycles))+r.CyclesDropped)
	var marking Workers
	for i := range r.Cycles {
		c := &r.Cycles[i]
		require.Equal(t, i+1, c.N)
		start, ok1 := c.Start.Value()
		end, ok2 := c.End.Value()
		if ok1 && ok2 {
			require.LessOrEqual(t, start, end)
		}
		for _, d := range []Opt[time.Duration]{c.SweepTermination, c.Mark, c.MarkTermination, c.MarkStop, c.Sweep} {
			require.GreaterOrEqual(t, d.v, time.Duration(0))
			require.LessOrEqual(t, d.v, r.Span)
		}
		marking.Dedicated += c.Workers.Dedicated
		marking.Fractional += c.Workers.Fractional
		marking.Idle += c.Workers.Idle
		marking.Assist += c.Workers.Assist
	}
	cpu := &r.CPU
	require.LessOrEqual(t, marking.Dedicated, cpu.Dedicated)
	require.LessOrEqual(t, marking.Fractional, cpu.Fractional)
	require.LessOrEqual(t, marking.Idle, cpu.Idle)
	require.LessOrEqual(t, marking.Assist, cpu.Assist)

	var stops uint64
	for i := range r.Reasons {
		s := &r.Reasons[i]
		stops += s.Count
		require.LessOrEqual(t, s.Max, s.Total)
		require.LessOrEqual(t, s.Total, r.Span, "one stop at a time")
	}
	require.Equal(t, stops, uint64(len(r.Pauses))+r.PausesDropped)
	require.LessOrEqual(t, len(r.Pauses), maxPauses)
	for i := range r.Pauses {
		if i > 0 {
			require.LessOrEqual(t, r.Pauses[i-1].Start, r.Pauses[i].Start)
		}
		require.GreaterOrEqual(t, r.Pauses[i].Length, time.Duration(0))
	}

	a := &r.Assists
	require.LessOrEqual(t, a.CPU, a.Wall)
	require.Equal(t, a.CPU, cpu.Assist)
	for _, payers := range [][]Payer{a.Goroutines, a.Stacks} {
		require.LessOrEqual(t, len(payers), topPayers+1)
		var sum Payer
		for i := range payers {
			sum.Count += payers[i].Count
			sum.Wall += payers[i].Wall
			sum.CPU += payers[i].CPU
		}
		require.Equal(t, Payer{Count: a.Count, Wall: a.Wall, CPU: a.CPU}, sum, "payers and the rest are all")
	}
	require.LessOrEqual(t, len(r.Unknown), maxNames+1)

	_, err := json.Marshal(r)
	require.NoError(t, err)
}

func TestRecordings(t *testing.T) {
	t.Parallel()
	for _, release := range recordings {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			b := recorded(t, release)
			r := report(t, b)
			check(t, r)
			assert.Empty(t, r.Unknown, "this release writes something that is not known here")
			assert.Equal(t, int64(len(b)), r.Bytes)
			for p, d := range r.Phases {
				assert.Positive(t, d, Phase(p).String())
			}
			for _, f := range []string{"GC sweep termination", "GC mark termination", "read mem stats", "goroutine profile", "GOMAXPROCS"} {
				assert.Condition(t, func() bool {
					for _, r := range r.Reasons {
						if r.Name == f && r.Count > 0 && r.Max > 0 {
							return true
						}
					}
					return false
				}, f)
			}
			require.NotEmpty(t, r.Assists.Stacks)
			assert.Equal(t, "main.decode", r.Assists.Stacks[0].Name, "who pays")
			assert.Equal(t, "main.serve", r.Assists.Goroutines[0].Name)
			procs, ok := r.Procs.Value()
			assert.True(t, ok)
			assert.Equal(t, uint64(2), procs)
			c := &r.CPU
			available, ok := c.Available.Value()
			assert.True(t, ok)
			assert.LessOrEqual(t, c.Dedicated+c.Fractional+c.Idle+c.Assist+c.Sweeper+c.Scavenger, available)
			assert.Positive(t, c.Sweeper)
			assert.Positive(t, c.Scavenger)

			// The 160 MiB allocation that gctrace shows as within its goal.
			over, ok := r.Peak.Overshoot.Value()
			assert.True(t, ok)
			assert.Greater(t, over, 1.5)
			assert.Contains(t, ids(r), "gc-overshoot")
			assert.Contains(t, ids(r), "gc-assist")
		})
	}
}

func ids(r *Report) (ids []string) {
	for _, f := range r.Findings {
		ids = append(ids, f.ID)
	}
	return ids
}

// A trace cut anywhere gives a report on what was whole, and says where it
// was cut.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, release := range recordings {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			b := recorded(t, release)
			whole := report(t, b)
			for _, n := range []int{0, 1, 15, 16, 17, 100, len(b) / 3, len(b) / 2, len(b) * 9 / 10, len(b) - 1} {
				r, err := Read(bytes.NewReader(b[:n]), Options{})
				if r == nil {
					require.Error(t, err, "at %d", n)
					continue
				}
				check(t, r)
				assert.LessOrEqual(t, r.CycleCount, whole.CycleCount)
				if err == nil {
					// A cut between two batches of the last generation is
					// not to be told from the end before Go 1.26.
					continue
				}
				var broken *BrokenError
				require.ErrorAs(t, err, &broken)
				assert.Same(t, broken, r.Broken)
				assert.LessOrEqual(t, broken.Generation, broken.Offset)
				assert.LessOrEqual(t, broken.Offset, int64(n))
				assert.Equal(t, broken.Events, r.Events)
				assert.NotEmpty(t, broken.Reason)
			}
		})
	}
}

// What is lost with a cut is the generation that it falls in, a second or so.
func TestTruncatedKeepsWholeGenerations(t *testing.T) {
	t.Parallel()
	for _, release := range []string{"go1.22.12", "go1.25.8", "go1.27.3"} {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			b := gunzip(t, release+".long.gz")
			whole := report(t, b)
			check(t, whole)
			require.Equal(t, uint64(7), whole.CycleCount)
			r, err := Read(bytes.NewReader(b[:len(b)-100]), Options{})
			var broken *BrokenError
			require.ErrorAs(t, err, &broken)
			check(t, r)
			assert.GreaterOrEqual(t, r.CycleCount, uint64(3))
			assert.Less(t, r.CycleCount, whole.CycleCount)
			assert.Positive(t, broken.Generation)
			assert.Equal(t, int64(len(b)-100), broken.Offset)
			assert.Contains(t, r.Verdict, "breaks off")
			for i := range r.Cycles[:r.CycleCount-1] {
				assert.Equal(t, whole.Cycles[i], r.Cycles[i], "what came before the break is as it is in the whole trace")
			}
		})
	}
}

// Flipped bytes break a trace somewhere: no panic of ours, and the report on
// what came before holds together.
func TestCorrupt(t *testing.T) {
	t.Parallel()
	for _, release := range recordings {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			whole := gunzip(t, release+".tiny.gz")
			rnd := rand.New(rand.NewPCG(1, 2))
			broken := 0
			for range 40 {
				b := bytes.Clone(whole)
				b[16+rnd.IntN(len(b)-16)] ^= 1 << rnd.IntN(8)
				r, err := Read(bytes.NewReader(b), Options{})
				if r != nil {
					check(t, r)
				}
				if err != nil {
					broken++
					ours(t, err)
				}
			}
			assert.NotZero(t, broken)
		})
	}
}

// ours fails the test if a panic came from this package.
func ours(t testing.TB, err error) {
	t.Helper()
	var p *panicError
	if errors.As(err, &p) {
		require.True(t, strings.HasPrefix(p.origin, "golang.org/x/exp/trace"), "%v", p)
	}
}

func TestNotATrace(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"", "\n", "go 1.22", "go 1.99 trace\x00\x00\x00", "\x7fELF\x02\x01\x01", "<html>not found</html>"} {
		r, err := Read(strings.NewReader(in), Options{})
		assert.Nil(t, r, "%q", in)
		assert.ErrorContains(t, err, "exectrace: ", "%q", in)
	}
}

// A stream that fails is told apart from a trace that is wrong.
func TestStreamFails(t *testing.T) {
	t.Parallel()
	b := recorded(t, "go1.26.8")
	dropped := errors.New("connection reset")
	r, err := Read(io.MultiReader(bytes.NewReader(b), iotest.ErrReader(dropped)), Options{})
	require.ErrorIs(t, err, dropped)
	require.NotNil(t, r)
	assert.Equal(t, "connection reset", r.Broken.Reason)
	assert.NotZero(t, r.CycleCount)
	check(t, r)

	r, err = Read(iotest.ErrReader(dropped), Options{})
	assert.Nil(t, r)
	assert.ErrorIs(t, err, dropped)
}

func TestProgress(t *testing.T) {
	t.Parallel()
	b := recorded(t, "go1.26.8")
	var all []Progress
	r, err := Read(bytes.NewReader(b), Options{Progress: func(p Progress) { all = append(all, p) }})
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(all), 2)
	for i := range all[1:] {
		assert.LessOrEqual(t, all[i].Bytes, all[i+1].Bytes)
		assert.Less(t, all[i].Events, all[i+1].Events)
		assert.LessOrEqual(t, all[i].At, all[i+1].At)
	}
	assert.Equal(t, Progress{Bytes: int64(len(b)), Events: r.Events, At: r.Span}, all[len(all)-1])
}

// Names that this package does not know are kept, and their number is bounded.
func TestUnknownNames(t *testing.T) {
	t.Parallel()
	s := newStory()
	stop := func(at trace.Time, kind trace.EventKind, reason string) {
		ev, err := trace.MakeEvent(trace.EventConfig[trace.Range]{
			Time: at, Kind: kind, Goroutine: 7, Proc: 0, Thread: 1,
			Details: trace.Range{Name: "stop-the-world (" + reason + ")", Scope: trace.MakeResourceID(trace.GoID(7))},
		})
		require.NoError(t, err)
		require.NoError(t, s.event(ev))
	}
	label := func(at trace.Time, name string) {
		ev, err := trace.MakeEvent(trace.EventConfig[trace.Label]{
			Time: at, Kind: trace.EventLabel, Goroutine: 7, Proc: 0, Thread: 1,
			Details: trace.Label{Label: name, Resource: trace.MakeResourceID(trace.GoID(7))},
		})
		require.NoError(t, err)
		require.NoError(t, s.event(ev))
	}
	stop(1000, trace.EventRangeBegin, "tea break")
	stop(1300, trace.EventRangeEnd, "tea break")
	label(1400, "GC (sentient)")
	for i := range 2 * maxNames {
		name := "reason " + strings.Repeat("x", i)
		stop(trace.Time(2000+10*i), trace.EventRangeBegin, name)
		stop(trace.Time(2005+10*i), trace.EventRangeEnd, name)
		label(trace.Time(2006+10*i), name)
	}
	stop(20000, trace.EventRangeBegin, "the last one")
	r := s.report()
	check(t, r)
	assert.Contains(t, r.Reasons, Reason{Name: "tea break", Count: 1, Total: 300, Max: 300})
	assert.Equal(t, uint64(1), r.Unknown["label GC (sentient)"])
	assert.Len(t, r.Reasons, maxNames+1)
	assert.Len(t, r.Unknown, maxNames+1)
	var cut uint64
	for _, r := range r.Reasons {
		cut += r.Cut
	}
	assert.Equal(t, uint64(1), cut, "the stop that did not end")
}

// Unknown is null, never 0.
func TestOptJSON(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(map[string]Opt[uint64]{"known": Some(uint64(0)), "unknown": {}})
	require.NoError(t, err)
	assert.JSONEq(t, `{"known": 0, "unknown": null}`, string(b))
}

// The sweeper's time is all of it, from before it was known for the sweeper
// too. It yields for long before it first parks.
func TestSweeperTime(t *testing.T) {
	t.Parallel()
	for _, release := range recordings {
		if release < "go1.22" {
			continue // its blocks give no reason to know it by
		}
		b := recorded(t, release)
		rd, err := trace.NewReader(bytes.NewReader(b))
		require.NoError(t, err)
		sweeper := trace.NoGoroutine
		since, ran := map[trace.GoID]trace.Time{}, map[trace.GoID]trace.Time{}
		for {
			ev, err := rd.ReadEvent()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			if ev.Kind() != trace.EventStateTransition {
				continue
			}
			st := ev.StateTransition()
			if st.Resource.Kind != trace.ResourceGoroutine {
				continue
			}
			g := st.Resource.Goroutine()
			if st.Reason == "GC background sweeper wait" {
				sweeper = g
			}
			switch from, to := st.Goroutine(); {
			case from == to:
			case to == trace.GoRunning:
				since[g] = ev.Time()
			case from == trace.GoRunning:
				ran[g] += ev.Time() - since[g]
			}
		}
		r, err := Read(bytes.NewReader(b), Options{})
		require.NoError(t, err)
		assert.Positive(t, r.CPU.Sweeper)
		assert.Equal(t, time.Duration(ran[sweeper]), r.CPU.Sweeper, release)
	}
}
