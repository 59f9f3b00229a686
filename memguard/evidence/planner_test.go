// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A way is a curve of what is held in percent of the limit, one value a second.
type way []float64

func (w way) hold(percent float64, seconds int) way {
	for range seconds {
		w = append(w, percent)
	}
	return w
}

func (w way) ramp(to float64, seconds int) way {
	from := to
	if len(w) > 0 {
		from = w[len(w)-1]
	}
	for i := range seconds {
		w = append(w, from+(to-from)*float64(i+1)/float64(seconds))
	}
	return w
}

func (w way) saw(low, high float64, period, times int) way {
	for range times {
		w = w.ramp(high, period-2).ramp(low, 2)
	}
	return w
}

const limit = 1000 << 20

var start = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

// walk walks it and returns in short what was captured.
func (w way) walk(p *Planner, change func(second int, in *Pressure)) (captures []string) {
	series := map[time.Time]int{}
	for s, percent := range w {
		in := Pressure{
			Time: start.Add(time.Duration(s) * time.Second), Limit: limit,
			Usage: uint64(math.Round(percent / 100 * limit)), Held: uint64(math.Round(percent / 100 * limit)), Cost: Cost{Heap: 2 << 20, Goroutines: 2 << 20},
		}
		if change != nil {
			change(s, &in)
		}
		plan := p.Step(&in)
		if plan.Why == "" {
			continue
		}
		if series[plan.Series] == 0 {
			series[plan.Series] = len(series) + 1
		}
		what := fmt.Sprintf("%ds %d/%d at %d", s, series[plan.Series], plan.Number, plan.Score)
		if plan.LeftOut != "" {
			what += fmt.Sprintf(" heap=%t goroutines=%t", plan.Heap, plan.Goroutines)
		}
		captures = append(captures, what)
	}
	return captures
}

func TestPlannerWalks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		way  way
		want []string
	}{
		{"at rest", way{}.hold(40, 3600), nil},
		{"a slow leak", way{}.hold(30, 60).ramp(100, 700),
			[]string{"259s 1/1 at 50", "459s 1/2 at 70", "609s 1/3 at 85", "709s 1/4 at 95"}},
		{"all at once", way{}.hold(30, 10).hold(97, 30), []string{"10s 1/1 at 97"}},
		{"over two levels", way{}.hold(30, 10).hold(75, 5).hold(90, 5), []string{"10s 1/1 at 75", "15s 1/2 at 90"}},
		{"up and down around a level", way{}.hold(68, 1).saw(68, 72, 10, 100), []string{"0s 1/1 at 68", "4s 1/2 at 70"}},
		{"near the limit for an hour", way{}.hold(90, 3600),
			[]string{"0s 1/1 at 90", "600s 1/2 at 90", "1200s 1/3 at 90", "1800s 1/4 at 90", "2400s 1/5 at 90", "3000s 1/6 at 90"}},
		{"two ramp-ups", way{}.ramp(90, 60).hold(20, 400).hold(60, 5).hold(96, 5),
			[]string{"0s 1/1 at 90", "460s 2/1 at 60", "465s 2/2 at 96"}},
		{"the second too soon", way{}.hold(90, 10).hold(20, 60).hold(60, 5).hold(96, 130),
			[]string{"0s 1/1 at 90", "75s 1/2 at 96", "135s 1/3 at 96", "195s 1/4 at 96"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.want, test.way.walk(new(Planner), nil))
		})
	}
}

// However a service lives, captures are few: at most one a minute in the long run.
func TestPlannerIsBounded(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]way{
		"fast saw":  way{}.saw(20, 99, 10, 360),
		"slow saw":  way{}.saw(20, 99, 90, 40),
		"step saw":  way{}.saw(60, 99, 80, 45),
		"near edge": way{}.saw(94, 96, 4, 900),
	} {
		captures := w.walk(new(Planner), func(s int, in *Pressure) { in.Ask = "goroutine-leak"; in.Left = time.Duration(s%100) * time.Second })
		assert.LessOrEqual(t, len(captures), len(w)/60+12*6, name)
		assert.NotEmpty(t, captures, name)
	}
}

func TestPlannerForesees(t *testing.T) {
	t.Parallel()
	// 10 % a second: gone after 7 seconds from 30 %.
	captures := way{}.hold(30, 5).ramp(100, 7).walk(new(Planner), func(s int, in *Pressure) {
		if s >= 5 {
			in.Left = time.Duration(12-s) * time.Second
		}
	})
	assert.Equal(t, []string{"5s 1/1 at 40", "7s 1/2 at 60"}, captures)
	// A service that warms up below a quarter is none.
	assert.Empty(t, way{}.ramp(24, 60).hold(24, 60).walk(new(Planner), func(_ int, in *Pressure) { in.Left = time.Minute }))
}

func TestPlannerAnswers(t *testing.T) {
	t.Parallel()
	ask := func(_ int, in *Pressure) { in.Ask = "goroutine-leak" }
	assert.Equal(t, []string{"0s 1/1 at 60", "30s 1/2 at 60", "60s 1/3 at 60"}, way{}.hold(60, 3600).walk(new(Planner), ask))
	var p Planner
	plan := p.Step(&Pressure{Time: start, Ask: "gc-pause"})
	assert.Equal(t, Plan{Why: "gc-pause", Series: start, Number: 1, Heap: true, Goroutines: true}, plan, "also without a limit")
}

// What would itself kill is not done.
func TestPlannerStopsWhereItWouldKill(t *testing.T) {
	t.Parallel()
	step := func(usage uint64, left time.Duration, cost Cost) Plan {
		return new(Planner).Step(&Pressure{Time: start, Limit: limit, Usage: usage, Held: limit - 1, Left: left, Cost: cost})
	}
	cost := Cost{Heap: 10 << 20, Goroutines: 100 << 20, HeapTime: 50 * time.Millisecond, GoroutinesTime: 2 * time.Second}
	for _, test := range []struct {
		name             string
		room             uint64
		left             time.Duration
		cost             Cost
		heap, goroutines bool
		why              bool
	}{
		{"room for all", 220 << 20, 0, cost, true, true, true},
		{"for no goroutines", 219 << 20, 0, cost, true, false, true},
		{"for the heap", 20 << 20, 0, cost, true, false, true},
		{"for the ledger", 19 << 20, 0, cost, false, false, true},
		{"for nothing", 1<<20 - 1, 0, cost, false, false, false},
		{"over the limit", 0, 0, cost, false, false, false},
		{"no time for goroutines", 500 << 20, 3 * time.Second, cost, true, false, true},
		{"no time for the heap", 500 << 20, 99 * time.Millisecond, cost, false, false, true},
		{"a cost beyond all", 500 << 20, 0, Cost{Heap: math.MaxUint64, Goroutines: math.MaxUint64}, false, false, true},
		{"a sum beyond all", 500 << 20, 0, Cost{Heap: 1 << 20, Goroutines: math.MaxUint64}, true, false, true},
	} {
		plan := step(limit-test.room, test.left, test.cost)
		assert.Equal(t, test.why, plan.Why != "", test.name)
		assert.Equal(t, test.heap, plan.Heap, test.name)
		assert.Equal(t, test.goroutines, plan.Goroutines, test.name)
		assert.Equal(t, plan.Why != "" && !(plan.Heap && plan.Goroutines), plan.LeftOut != "", test.name)
	}
	// Where there was no room it is taken as soon as there is.
	captures := way{}.hold(97, 5).hold(96, 5).walk(new(Planner), func(s int, in *Pressure) {
		if s < 5 {
			in.Usage = limit
		}
	})
	assert.Equal(t, []string{"5s 1/1 at 96"}, captures)
}

// A clock that jumps makes neither a storm nor an end of it.
func TestPlannerClockJumps(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{-24 * time.Hour, 24 * time.Hour, 0} {
		var p Planner
		captures := way{}.hold(90, 600).hold(20, 40).hold(96, 20).walk(&p, func(s int, in *Pressure) {
			if s > 300 {
				in.Time = in.Time.Add(jump)
			}
		})
		assert.GreaterOrEqual(t, len(captures), 2, jump)
		assert.LessOrEqual(t, len(captures), 4, jump)
	}
	var p Planner
	n := 0
	for range 1000 { // it stands still
		if p.Step(&Pressure{Time: start, Limit: 100 << 20, Held: 90 << 20, Usage: 90 << 20}).Why != "" {
			n++
		}
	}
	assert.Equal(t, 1, n)
}

func TestPlannerAllocatesNothing(t *testing.T) {
	var p Planner
	in := Pressure{Time: start, Limit: limit, Held: limit * 9 / 10, Usage: limit * 9 / 10}
	require.NotEmpty(t, p.Step(&in).Why)
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		in.Time = in.Time.Add(time.Millisecond)
		p.Step(&in)
	}))
}
