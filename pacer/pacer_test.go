// SPDX-License-Identifier: Apache-2.0

package pacer

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// calm is a service at rest: 100 MiB live, of 256 MiB.
func calm() Reading {
	return Reading{
		Time: start, Limit: 256 * mib, Usage: 150 * mib,
		Mapped: 140 * mib, Live: 100 * mib, Objects: 120 * mib, Unused: 4 * mib, Free: 10 * mib, Stacks: 2 * mib, Metadata: 4 * mib,
		Goal: 200 * mib, Cycles: 10, Allocated: 1 << 30, GCCPU: 1, CPU: 100,
	}
}

func found(percent int, limit int64) Setting { return Setting{percent, limit} }

// hold feeds the same reading for some seconds.
func hold(g *Governor, r *Reading, seconds float64) (d Decision) {
	for range int(seconds * 10) {
		d = g.Step(r)
		r.Time = r.Time.Add(100 * time.Millisecond)
	}
	return d
}

func TestMust(t *testing.T) {
	t.Parallel()
	r := calm()
	assert.EqualValues(t, 110*mib, r.Must())
	r.Untouched = 30 * mib
	assert.EqualValues(t, 80*mib, r.Must())
	r.Swapped = 20 * mib
	assert.EqualValues(t, 80*mib, r.Must(), "it is there, and comes back when it is marked")
	r.Untouched = 1 << 40
	assert.Zero(t, r.Must())
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	const (
		limit  = 256 * mib
		margin = limit / 25
		end    = limit - 10*mib // calm has 10 MiB that are not Go's
	)
	for name, c := range map[string]struct {
		base    Setting
		change  func(r *Reading)
		want    int64
		percent int
		reason  string
	}{
		"none was set":    {found(100, NoLimit), nil, end - margin, 100, whatIsLeft},
		"GOGC is off":     {found(-1, NoLimit), nil, end - margin, -1, whatIsLeft},
		"GOGC is 50":      {found(50, NoLimit), nil, end - margin, 50, whatIsLeft},
		"lower one set":   {found(100, 150*mib), nil, 150 * mib, 100, userBound},
		"GOGC off, lower": {found(-1, 150*mib), nil, 150 * mib, -1, userBound},
		"higher one set":  {found(100, 1<<30), nil, end - margin, 100, whatIsLeft},
		"kernel has none": {found(100, 150*mib), func(r *Reading) { r.Limit = Unlimited }, 150 * mib, 100, noKernelLimit},
		"nobody has any":  {found(-1, NoLimit), func(r *Reading) { r.Limit = Unlimited }, NoLimit, -1, noKernelLimit},
		"C memory":        {found(100, NoLimit), func(r *Reading) { r.Usage += 50 * mib }, end - 50*mib - margin, 100, whatIsLeft},
		"little room": {found(100, NoLimit), func(r *Reading) { r.Live, r.Usage, r.Mapped = 224*mib, 246*mib, 236*mib },
			end - (end-234*mib)*2/3, 100, partOfRoom},
		"no room":           {found(100, NoLimit), func(r *Reading) { r.Live, r.Mapped, r.Usage = 240*mib, 250*mib, 260*mib }, 250 * mib * 5 / 4, 100, overTheLimit},
		"ballast":           {found(100, NoLimit), func(r *Reading) { r.Untouched, r.Usage = 60*mib, 90*mib }, end + 60*mib - margin, 100, whatIsLeft},
		"ballast and limit": {found(100, 150*mib), func(r *Reading) { r.Untouched, r.Usage = 60*mib, 90*mib }, 210 * mib, 100, userAndBallast},
		"swapped out":       {found(100, NoLimit), func(r *Reading) { r.Swapped, r.Usage = 60*mib, 90*mib }, end - margin, 100, whatIsLeft},
		"that and a limit":  {found(100, 150*mib), func(r *Reading) { r.Swapped, r.Usage = 60*mib, 90*mib }, 150 * mib, 100, userBound},
		"live in swap":      {found(100, NoLimit), func(r *Reading) { r.Live, r.Mapped, r.Swapped, r.Usage = 240*mib, 250*mib, 60*mib, 200*mib }, 250 * mib * 5 / 4, 100, overTheLimit},
		"limit of a TiB":    {found(100, NoLimit), func(r *Reading) { r.Limit = 1 << 40 }, 1<<40 - 10*mib - 1<<40/25, 100, whatIsLeft},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := calm()
			if c.change != nil {
				c.change(&r)
			}
			g := Governor{Baseline: c.base}
			d := g.Step(&r)
			assert.InDelta(t, c.want, d.MemoryLimit, 1)
			if c.reason == userBound || c.reason == noKernelLimit {
				assert.Equal(t, c.base.MemoryLimit, min(d.MemoryLimit, c.base.MemoryLimit), "to the byte")
			}
			assert.Equal(t, c.percent, d.GCPercent)
			assert.Equal(t, c.reason, d.LimitReason)
			assert.False(t, d.Clamped || d.Spiral)
		})
	}
}

func TestMargin(t *testing.T) {
	t.Parallel()
	const limit = 256 * mib
	for name, c := range map[string]struct {
		every time.Duration
		grows float64 // bytes between two readings
		heap  float64 // of them
		want  float64
		below float64 // the end: the memory limit
	}{
		"nothing grows":          {10 * time.Millisecond, 0, 0, 0.04 * limit, 0.04 * limit},
		"shrinks":                {10 * time.Millisecond, -5 * mib, 0, 0.04 * limit, 0.04 * limit},
		"little arrives":         {10 * time.Millisecond, 1 * mib, 0, 0.04 * limit, 0.04 * limit},
		"three ticks of much":    {10 * time.Millisecond, 6 * mib, 0, 18 * mib, 18 * mib},
		"more than may be kept":  {10 * time.Millisecond, 20 * mib, 0, 0.12 * limit, 0.12 * limit},
		"a slow tick":            {500 * time.Millisecond, 6 * mib, 0, 18 * mib, 18 * mib},
		"looked at too often":    {time.Millisecond, 0.6 * mib, 0, 18 * mib, 18 * mib},
		"slow growth, slow tick": {time.Second, 1 * mib, 0, 0.04 * limit, 0.04 * limit},
		// A goal bounds the heap, and nothing else.
		"heap":                   {10 * time.Millisecond, 6 * mib, 6 * mib, 18 * mib, 0.04 * limit},
		"much heap":              {10 * time.Millisecond, 20 * mib, 20 * mib, 0.12 * limit, 0.06 * limit},
		"heap and stacks":        {10 * time.Millisecond, 26 * mib, 20 * mib, 0.12 * limit, 18 * mib},
		"stacks from freed heap": {10 * time.Millisecond, 0, -20 * mib, 0.04 * limit, 0.04 * limit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := Governor{Baseline: found(100, NoLimit)}
			r := calm()
			r.Mapped, r.Objects, r.Usage = 200*mib, 180*mib, 210*mib // near: no change is too small
			g.Step(&r)
			r.Time, r.Usage = r.Time.Add(c.every), uint64(float64(r.Usage)+c.grows)
			r.Mapped, r.Objects = uint64(float64(r.Mapped)+c.grows), uint64(float64(r.Objects)+c.heap)
			d := g.Step(&r)
			assert.InDelta(t, c.want, d.Margin, 0.2*mib)
			end := r.Mapped + r.Limit - r.Usage
			assert.InDelta(t, float64(end)-c.below, d.MemoryLimit, 0.2*mib)
		})
	}
}

func TestOvershoot(t *testing.T) {
	t.Parallel()
	g := Governor{Baseline: found(100, NoLimit)}
	r := calm()
	first := hold(&g, &r, 1)

	// It has run 15 MiB past its limit.
	r.Free, r.Mapped, r.Usage = 0, uint64(first.MemoryLimit)+15*mib, uint64(first.MemoryLimit)+25*mib
	d := g.Step(&r)
	assert.InDelta(t, 15*mib, d.Over, mib)
	assert.Less(t, d.MemoryLimit, first.MemoryLimit-10*mib)

	// A minute after it stopped half of that is left, and much later nothing.
	r = Reading{Time: r.Time, Limit: r.Limit}
	back := calm()
	back.Time = r.Time
	d = hold(&g, &back, 60)
	assert.InDelta(t, 7.5*mib, d.Over, mib)
	d = hold(&g, &back, 600)
	assert.Less(t, d.Over, uint64(mib))
	assert.InDelta(t, first.MemoryLimit, d.MemoryLimit, 0.04*256*mib)

	// What is above the limit because that came down has not run past it.
	g = Governor{Baseline: found(100, NoLimit)}
	r = calm()
	r.Mapped, r.Usage, r.Objects, r.Free = 220*mib, 230*mib, 210*mib, 0
	hold(&g, &r, 1)
	r.Limit = 200 * mib
	d = hold(&g, &r, 1)
	assert.Less(t, d.MemoryLimit, int64(200*mib))
	assert.Zero(t, d.Over)
}

// spin makes a reading of a collector that takes a share of the CPU, one cycle in
// each tenth of a second.
func spin(r *Reading, share float64) {
	r.Cycles++
	r.Time = r.Time.Add(100 * time.Millisecond)
	r.CPU += 0.2
	r.GCCPU += 0.2 * share
	r.Allocated += 5 * mib
}

func near() Reading {
	r := calm()
	r.Live, r.Objects, r.Mapped, r.Usage, r.Free, r.Goal = 200*mib, 210*mib, 225*mib, 235*mib, 0, 212*mib
	return r
}

func TestSpiral(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do     OnSpiral
		budget float64
		share  float64
		change func(r *Reading)
		want   bool
	}{
		"over budget, gains little":    {Shed, 0, 0.45, func(*Reading) {}, true},
		"rise":                         {Rise, 0, 0.45, func(*Reading) {}, true},
		"exit":                         {Exit, 0, 0.45, func(*Reading) {}, true},
		"within the default budget":    {Shed, 0, 0.20, func(*Reading) {}, false},
		"within a larger budget":       {Shed, 0.6, 0.45, func(*Reading) {}, false},
		"over a smaller budget":        {Shed, 0.1, 0.20, func(*Reading) {}, true},
		"gains much":                   {Shed, 0, 0.45, func(r *Reading) { *r = calm() }, false},
		"fixed limit, no kernel's":     {Shed, 0, 0.45, func(r *Reading) { r.Limit = Unlimited }, true},
		"a budget that is none counts": {Shed, 7, 0.45, func(*Reading) {}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := near()
			c.change(&r)
			g := Governor{Baseline: found(100, 220*mib), OnSpiral: c.do, Budget: c.budget}
			var d Decision
			for range 10 {
				d = g.Step(&r)
				spin(&r, c.share)
			}
			assert.Equal(t, c.want, d.Spiral)
			assert.InDelta(t, c.share, d.GCShare, 0.01)
			if r.Limit == Unlimited {
				assert.EqualValues(t, 220*mib, d.MemoryLimit)
				return
			}
			if !c.want {
				assert.LessOrEqual(t, d.MemoryLimit, int64(220*mib))
				return
			}
			assert.Equal(t, deathSpiral, d.Reason)
			if c.do == Rise {
				assert.InDelta(t, 246*mib, d.MemoryLimit, 0.01*256*mib, "the hard edge")
			} else {
				assert.EqualValues(t, 220*mib, d.MemoryLimit, "what the user wanted")
			}
			require.NotZero(t, d.Room)

			// It stands for two seconds after it was seen last.
			better := calm()
			better.Time, better.Cycles, better.CPU, better.GCCPU, better.Allocated = r.Time, r.Cycles, r.CPU, r.GCCPU, r.Allocated
			since := better.Time
			for better.Time.Sub(since) < time.Minute && d.Spiral {
				spin(&better, 0.01)
				d = g.Step(&better)
			}
			assert.False(t, d.Spiral)
			assert.GreaterOrEqual(t, better.Time.Sub(since), spiralWait)
		})
	}
}

// A collection that gained little is no reason for a lower limit.
func TestIneffectiveCollectionsBackOff(t *testing.T) {
	t.Parallel()
	r := near()
	r.Live, r.Goal, r.Usage = 170*mib, 180*mib, 230*mib
	g := Governor{Baseline: found(100, NoLimit)}
	g.Step(&r)
	r.Time = r.Time.Add(100 * time.Millisecond)
	back := r
	r.Mapped, r.Objects, r.Usage = 250*mib, 235*mib, 255*mib // it has run past its limit
	require.NotZero(t, g.Step(&r).Over)
	r = back
	r.Time = r.Time.Add(100 * time.Millisecond)
	var over []uint64
	for range 6 {
		over = append(over, g.Step(&r).Over)
		spin(&r, 0.6)
	}
	assert.Greater(t, over[1], over[3])
	assert.Greater(t, over[3], over[5])
	assert.LessOrEqual(t, over[5], over[1]/8)
}

// Without cycles the share of the collector falls, except while one may run.
func TestGCShare(t *testing.T) {
	t.Parallel()
	r := calm()
	g := Governor{Baseline: found(100, NoLimit)}
	g.Step(&r)
	for range 20 {
		spin(&r, 0.4)
		g.Step(&r)
	}
	r.Objects = 180 * mib // beyond the trigger, below the goal
	assert.InDelta(t, 0.4, hold(&g, &r, 5).GCShare, 0.001)
	r.Objects = 110 * mib
	assert.Less(t, hold(&g, &r, 10).GCShare, 0.05)

	r.Cycles, r.GCCPU, r.CPU, r.Allocated = 1, 0.01, 1, mib // another process
	assert.Zero(t, hold(&g, &r, 1).GCShare)
}

func TestTable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		table   *Table
		state   State
		base    int
		change  func(r *Reading)
		share   float64 // of the CPU, that the collector takes at GOGC=100
		want    int
		clamped bool
		reason  string
	}{
		"no table":              {nil, Open, 80, nil, 0.01, 80, false, asBaseline},
		"empty table":           {&Table{}, Open, 80, nil, 0.01, 80, false, asBaseline},
		"negative entry":        {&Table{Open: -1}, Open, 80, nil, 0.01, 80, false, asBaseline},
		"closed":                {DefaultTable(), Closed, 80, nil, 0.01, 100, false, byTable},
		"half-open":             {DefaultTable(), HalfOpen, 80, nil, 0.01, 50, false, byTable},
		"GOGC=off is coupled":   {DefaultTable(), HalfOpen, -1, nil, 0.01, 50, false, byTable},
		"open with room":        {DefaultTable(), Open, 80, func(r *Reading) { r.Live = 40 * mib }, 0.01, 200, false, byTable},
		"open without":          {DefaultTable(), Open, 80, nil, 0.01, 115, true, heapWouldNotFit},
		"open, hardly any room": {DefaultTable(), Open, 80, func(r *Reading) { *r = near() }, 0.01, 10, true, heapWouldNotFit},
		"open, no limit":        {DefaultTable(), Open, 80, func(r *Reading) { r.Limit = Unlimited }, 0.01, 200, false, byTable},
		"no such state":         {DefaultTable(), State(9), 80, nil, 0.01, 80, false, asBaseline},
		// 5 MiB of 100 MiB were allocated for each cycle: it would take 20 times less at GOGC=100.
		"half-open, affordable": {DefaultTable(), HalfOpen, 80, nil, 0.20, 50, false, byTable},
		"half-open, too dear":   {&Table{Closed: 100, HalfOpen: 3}, HalfOpen, 80, nil, 0.40, 10, true, overBudget},
		"no dearer than closed": {&Table{Closed: 6, HalfOpen: 3}, HalfOpen, 80, nil, 0.40, 10, true, overBudget},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := calm()
			if c.change != nil {
				c.change(&r)
			}
			r.State = c.state
			g := Governor{Baseline: found(c.base, NoLimit), Table: c.table}
			var d Decision
			for range 10 {
				d = g.Step(&r)
				spin(&r, c.share)
			}
			assert.Equal(t, c.want, d.GCPercent)
			assert.Equal(t, c.clamped, d.Clamped)
			assert.Equal(t, c.reason, d.Reason)
			if p, ok := c.table.percent(c.state); ok {
				assert.Equal(t, p, d.Proposed)
			} else {
				assert.Equal(t, c.base, d.Proposed)
			}
			if c.clamped && c.reason == heapWouldNotFit && d.GCPercent > percentMin {
				goal := float64(r.Live) + float64(r.Live+r.Stacks)*float64(d.GCPercent)/100
				assert.LessOrEqual(t, goal+float64(r.Usage-r.Mapped+r.Unused+r.Stacks+r.Metadata), float64(r.Limit))
			}
		})
	}
}

// A breaker that opens and closes, and a live heap that wavers, do not make the
// clamp flap.
func TestClampDoesNotFlap(t *testing.T) {
	t.Parallel()
	g := Governor{Baseline: found(100, NoLimit), Table: DefaultTable()}
	r := calm()
	r.State = Open
	changes, last := 0, g.Step(&r)
	for i := range 600 {
		spin(&r, 0.02)
		r.Live = uint64(100*mib + 3*mib*math.Sin(float64(i)/5))
		d := g.Step(&r)
		if d.Setting != last.Setting || d.Clamped != last.Clamped {
			changes++
		}
		last = d
	}
	assert.LessOrEqual(t, changes, 3, "in a minute")
}

func TestReadingsThatAreNoNews(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(r *Reading){
		"twice the same":   func(*Reading) {},
		"older":            func(r *Reading) { r.Time = r.Time.Add(-100 * time.Millisecond); r.Usage = 240 * mib },
		"no time":          func(r *Reading) { r.Time = time.Time{}; r.Usage = 240 * mib },
		"no usage":         func(r *Reading) { r.Time = r.Time.Add(time.Second); r.Usage = 0 },
		"no limit read":    func(r *Reading) { r.Time = r.Time.Add(time.Second); r.Limit = 0 },
		"nothing mapped":   func(r *Reading) { r.Time = r.Time.Add(time.Second); r.Mapped = 0 },
		"absurd":           func(r *Reading) { r.Time = r.Time.Add(time.Second); r.Usage = math.MaxUint64 - 1 },
		"more untouched":   func(r *Reading) { r.Time = r.Time.Add(time.Second); r.Untouched = r.Mapped + 1 },
		"CPU is no number": func(r *Reading) { r.Time = r.Time.Add(time.Second); r.GCCPU = math.NaN() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := Governor{Baseline: found(100, NoLimit)}
			r := calm()
			before := g.Step(&r)
			change(&r)
			d := g.Step(&r)
			d.LimitReason = before.LimitReason
			assert.Equal(t, before, d)
		})
	}
	t.Run("first of all", func(t *testing.T) {
		t.Parallel()
		g := Governor{Baseline: found(70, 5*mib)}
		assert.Equal(t, found(70, 5*mib), g.Step(&Reading{}).Setting)
	})
	t.Run("clock set back", func(t *testing.T) {
		t.Parallel()
		g := Governor{Baseline: found(100, NoLimit)}
		r := calm()
		hold(&g, &r, 1)
		r.Time = start.Add(-time.Hour)
		r.Usage += 60 * mib
		assert.InDelta(t, 176*mib-10*mib, g.Step(&r).MemoryLimit, 30*mib, "it goes on")
	})
	t.Run("clock set back in a spiral", func(t *testing.T) {
		t.Parallel()
		g := Governor{Baseline: found(100, NoLimit)}
		r, d := near(), Decision{}
		for range 10 {
			d = g.Step(&r)
			spin(&r, 0.6)
		}
		require.True(t, d.Spiral)
		r.Live, r.Goal, r.Usage = 20*mib, 100*mib, 100*mib
		for i := range 100 {
			if i == 60 { // the share has fallen, the two seconds have begun
				r.Time = r.Time.Add(-time.Hour)
			}
			spin(&r, 0)
			d = g.Step(&r)
		}
		assert.False(t, d.Spiral)
	})
}

func TestBaselineMayChange(t *testing.T) {
	t.Parallel()
	g := Governor{Baseline: found(100, NoLimit)}
	r := calm()
	hold(&g, &r, 1)
	g.Baseline = found(70, 160*mib)
	assert.Equal(t, g.Baseline, hold(&g, &r, 1).Setting)
	g.Baseline = found(100, NoLimit)
	d := hold(&g, &r, 5)
	assert.Equal(t, 100, d.GCPercent)
	assert.Greater(t, d.MemoryLimit, int64(220*mib))
}

func FuzzGovernor(f *testing.F) {
	f.Add(uint64(256*mib), uint64(150*mib), uint64(140*mib), uint64(100*mib), uint64(120*mib), uint64(0), uint64(10), 0.1, 1.0, int64(100), 100, int64(NoLimit), uint8(0))
	f.Add(uint64(Unlimited), uint64(1), uint64(1), uint64(0), uint64(0), uint64(1), uint64(0), 0.0, 0.0, int64(-1), -1, int64(0), uint8(2))
	f.Add(uint64(1), uint64(1<<60), uint64(1<<60), uint64(1<<60), uint64(1<<60), uint64(1<<60), uint64(1<<63), 1e300, 1e-300, int64(1), 0, int64(1), uint8(1))
	f.Fuzz(func(t *testing.T, limit, usage, mapped, live, objects, untouched, cycles uint64, gc, cpu float64, ms int64, percent int, memory int64, state uint8) {
		if percent < -1 || memory < 0 {
			t.Skip("no baseline of the runtime")
		}
		g := Governor{Baseline: Setting{percent, memory}, Table: DefaultTable(), OnSpiral: OnSpiral(state % 3)}
		r := calm()
		for i := range 4 {
			if i%2 == 1 {
				r = Reading{
					Time: start.Add(time.Duration(ms%1e6) * time.Millisecond * time.Duration(i)), Limit: limit, Usage: usage, Mapped: mapped,
					Live: live, Objects: objects, Unused: live / 7, Free: objects / 5, Stacks: usage / 9, Metadata: mapped / 50, Untouched: untouched,
					Goal: objects * 2, Cycles: cycles + uint64(i), Allocated: objects, GCCPU: gc, CPU: cpu, State: State(state),
				}
			} else {
				r = calm()
				r.Time = start.Add(time.Duration(i) * time.Second)
			}
			d := g.Step(&r)
			if d.Setting != g.Baseline {
				if d.MemoryLimit < headroomMin && d.MemoryLimit != memory {
					t.Errorf("memory limit %d", d.MemoryLimit)
				}
				if d.GCPercent < percentMin && d.GCPercent != percent || d.GCPercent > max(200, percent) {
					t.Errorf("GC percent %d", d.GCPercent)
				}
			}
			if !(d.GCShare >= 0 && d.GCShare <= 1) {
				t.Errorf("share %v", d.GCShare)
			}
			if d.Clamped != (d.GCPercent != d.Proposed) {
				t.Errorf("clamped %v: %d of %d", d.Clamped, d.GCPercent, d.Proposed)
			}
			if d.Reason == "" || d.LimitReason == "" {
				t.Error("a decision without a reason")
			}
			// It may be the decision before, about the other limit.
			if r.plausible() && r.Limit != Unlimited && float64(d.Margin) > marginMost*float64(max(r.Limit, calm().Limit))+1 {
				t.Errorf("margin %d of %d", d.Margin, r.Limit)
			}
		}
	})
}

func TestStepDoesNotAllocate(t *testing.T) {
	g := Governor{Baseline: found(100, NoLimit), Table: DefaultTable()}
	r := calm()
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		spin(&r, 0.3)
		g.Step(&r)
	}))
}

func BenchmarkStep(b *testing.B) {
	g := Governor{Baseline: found(100, NoLimit), Table: DefaultTable()}
	r := calm()
	b.ReportAllocs()
	for b.Loop() {
		spin(&r, 0.3)
		g.Step(&r)
	}
}
