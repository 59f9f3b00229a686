// SPDX-License-Identifier: Apache-2.0

package scavenge

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const mb = 1 << 20

// A curve is MiB, or MiB a second, over time in seconds.
type curve func(t float64) float64

func constant(v float64) curve { return func(float64) float64 { return v } }

// from is zero until a time, and then another curve.
func (c curve) from(at float64) curve {
	return func(t float64) float64 {
		if t < at {
			return 0
		}
		return c(t - at)
	}
}

func (c curve) until(at float64) curve {
	return func(t float64) float64 {
		if t >= at {
			return 0
		}
		return c(t)
	}
}

func (c curve) plus(d curve) curve { return func(t float64) float64 { return c(t) + d(t) } }

func ramp(perSecond, most float64) curve {
	return func(t float64) float64 { return min(t*perSecond, most) }
}

// world is a process in a cgroup, reduced to what a Releaser sees and moves. All in
// MiB and seconds.
type world struct {
	limit  float64 // 0: no cgroup
	live   curve   // on the heap
	alloc  curve   // garbage, a second
	stacks curve   // added to the stacks, a second
	inUse  curve   // on stacks
	other  curve   // other processes
	c      curve   // outside the Go heap
	fresh  curve   // of the heap, mapped and never touched
	class  func(t float64) Class

	percent  float64 // GOGC; 0 is off
	pinned   bool    // stacks cannot shrink
	memLimit float64 // a cycle starts there at the latest
	tick     float64 // 0 is 0.1
	dry      bool    // releases are planned and not done
	blind    func(t float64) bool
	see      func(n int, in *Reading) // what becomes of the n-th reading
}

// life is what came of it.
type life struct {
	releases []float64
	grades   []Grade // distinct ones, in order
	changes  int     // of grade
	changed  float64 // when last
	percents int     // changes of GC percent asked for
	peak     float64 // of usage
	usage    float64 // at the end
	reasons  map[Trigger]string
	held     map[Held]int
	plan     Plan // the last
	r        *Releaser
}

// perMinute is the most releases in any minute.
func (l *life) perMinute() (most int) {
	for i := range l.releases {
		n := 0
		for _, at := range l.releases[i:] {
			if at < l.releases[i]+60 {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func none(float64) float64 { return 0 }

func (w world) run(seconds float64) life {
	for _, c := range []*curve{&w.live, &w.alloc, &w.stacks, &w.inUse, &w.other, &w.c, &w.fresh} {
		if *c == nil {
			*c = none
		}
	}
	if w.tick == 0 {
		w.tick = 0.1
	}
	const took = 0.1
	l := life{reasons: map[Trigger]string{}, held: map[Held]int{}, r: new(Releaser), grades: []Grade{Observe}}
	marked, garbage, free, stacks, allocated := w.live(0), 0.0, 0.0, 0.0, 0.0
	cycles, scan, percent, n := uint64(1), 0.0, 0, 0
	ends := math.Inf(1)
	var outcome *Outcome
	collect := func(t float64) {
		free += garbage
		garbage, marked, scan = 0, w.live(t), w.inUse(t)
		if keep := 4 * scan; !w.pinned && stacks > keep {
			free += stacks - max(keep, stacks/2)
			stacks = max(keep, stacks/2)
		}
		cycles++
	}
	for t := 0.0; t < seconds; t += w.tick {
		live, fresh := w.live(t), w.alloc(t)*w.tick
		kept := live - w.live(max(0, t-w.tick))
		garbage += max(0, -kept)
		grows := fresh + max(0, kept) + w.stacks(t)*w.tick
		free -= min(free, grows)
		garbage += fresh
		allocated += grows
		stacks += w.stacks(t) * w.tick
		if t >= ends {
			collect(t)
			before := live + stacks + garbage + free
			l.held[NotHeld]++
			outcome = &Outcome{Took: took * 1e9, Before: uint64((before + garbage) * mb), Measured: true}
			outcome.After = uint64((before - free) * mb)
			free, ends = 0, math.Inf(1)
			outcome.Before = max(outcome.Before, outcome.After)
		}
		goal := max(4, marked*(1+w.percent/100))
		if w.memLimit > 0 {
			goal = max(marked, min(goal, w.memLimit-stacks))
		}
		if (w.percent > 0 || w.memLimit > 0) && live+garbage >= goal {
			collect(t)
		}
		mapped := live + garbage + free + stacks
		own := mapped - min(mapped, w.fresh(t)) + w.c(t)
		usage := own + w.other(t)
		l.peak, l.usage = max(l.peak, usage), usage
		in := Reading{
			Time: time.Unix(0, int64(t*1e9)),
			Heap: &Heap{
				Mapped: uint64(mapped * mb), Objects: uint64((live + garbage) * mb), Free: uint64(free * mb), Stacks: uint64(stacks * mb),
				Goal: uint64(goal * mb), Allocated: uint64(allocated * mb), Cycles: cycles, Live: uint64(marked * mb), StackScan: uint64(scan * mb),
			},
			Class:     &Class{},
			Releasing: !math.IsInf(ends, 1),
			Outcome:   outcome,
		}
		outcome = nil
		if w.percent == 0 && w.memLimit == 0 {
			in.Heap.Goal = 8946670875745192805
		}
		if w.limit > 0 {
			in.Cgroup = &Cgroup{Limit: uint64(w.limit * mb), Usage: uint64(usage * mb), Own: uint64(own * mb)}
		}
		if w.class != nil {
			*in.Class = w.class(t)
		}
		if w.blind != nil && w.blind(t) {
			in.Heap, in.Cgroup, in.Class = nil, nil, nil
		}
		if n++; w.see != nil {
			w.see(n, &in)
		}
		p := l.r.Step(&in)
		l.plan = p
		if p.Changed {
			l.changes++
			l.changed = t
			l.grades = append(l.grades, p.Grade)
		}
		if p.GCPercent != percent {
			l.percents++
			percent = p.GCPercent
		}
		if p.Grade > Observe {
			l.reasons[p.Reason.Trigger] = p.Reason.String()
		}
		if p.Held != NotHeld {
			l.held[p.Held]++
		}
		if p.Release {
			l.releases = append(l.releases, t)
			if !w.dry {
				ends = t + took
			}
		}
	}
	return l
}

func TestSpikeThenIdle(t *testing.T) {
	t.Parallel()
	spike := world{live: constant(20).plus(constant(180).until(10)), alloc: constant(100).until(10), percent: 100}
	off := spike
	off.percent = 0
	for name, w := range map[string]world{"GOGC=100": spike, "GOGC=off": off} {
		l := w.run(600)
		require.NotEmpty(t, l.releases, name)
		assert.LessOrEqual(t, len(l.releases), 2, "%s: %v", name, l.releases)
		assert.GreaterOrEqual(t, l.releases[0], 15.0, "%s: not while the spike may come back", name)
		assert.Less(t, l.releases[0], 25.0, name)
		assert.Less(t, l.usage, 30.0, name)
		assert.Equal(t, Observe, l.plan.Grade, name)
		assert.Equal(t, 2, l.percents, name)
		assert.Equal(t, []Grade{Observe, Log, LowerPercent, FreeOSMemory}, l.grades[:4], "%s: one rung after the other", name)
		a := l.r.Account()
		assert.Equal(t, a.Asked, a.Ended)
		assert.True(t, a.LastPaid || a.Paid > 0)
		assert.Contains(t, l.reasons[Idle], "left over and no collection is coming")
	}
}

// A healthy service under load is left alone, also with a cache that fills and drops.
func TestSawtooth(t *testing.T) {
	t.Parallel()
	cache := func(t float64) float64 { return 100 + math.Mod(t, 30)*3 }
	for name, w := range map[string]world{
		"steady":            {limit: 1024, live: constant(100), alloc: constant(100), percent: 100},
		"cache":             {limit: 1024, live: cache, alloc: constant(50), percent: 100},
		"slow":              {limit: 1024, live: constant(10), alloc: constant(1), percent: 100},
		"filled to a limit": {limit: 256, live: constant(80), alloc: constant(200), percent: 400, memLimit: 246},
		"on and off":        {limit: 512, live: constant(100), alloc: func(t float64) float64 { return 200 * float64(int(t)%2) }, percent: 100},
	} {
		l := w.run(600)
		assert.Empty(t, l.releases, "%s: %v", name, l.reasons)
		assert.Zero(t, l.changes, "%s: %v %v", name, l.grades, l.reasons)
	}
}

// Near the limit stacks are halved as often as that pays, at once; away from it
// slower.
func TestStacksAfterBurst(t *testing.T) {
	t.Parallel()
	w := world{limit: 256, live: constant(20), stacks: constant(100).until(2.05), inUse: constant(2), percent: 100, tick: 0.01}
	near := w.run(120)
	require.GreaterOrEqual(t, len(near.releases), 3)
	assert.Greater(t, near.releases[1]-near.releases[0], 1.0, "the first one made room: ten times its cost later")
	assert.Less(t, near.usage, 60.0)
	assert.Less(t, near.peak, 256.0)
	assert.LessOrEqual(t, near.perMinute(), perMinute)
	assert.Contains(t, near.reasons[Stacks], "larger than what is in use")

	// They grow on: again at once, whenever it is near.
	on := w
	on.stacks = constant(150).until(4)
	l := on.run(120)
	assert.Less(t, l.peak, 256.0)
	assert.LessOrEqual(t, l.perMinute(), perMinute)
	assert.Less(t, l.usage, 60.0)
	on.dry = true
	assert.Greater(t, on.run(4).peak, 256.0, "without it the kernel kills")

	// In use, as of the last cycle: there is nothing to gain.
	deep := w
	deep.inUse = constant(60)
	l = deep.run(120)
	assert.LessOrEqual(t, len(l.releases), 1, "%v", l.reasons)

	away := w
	away.limit, away.alloc = 2048, constant(30).until(4)
	l = away.run(120)
	assert.Less(t, l.usage, 60.0)
	assert.LessOrEqual(t, l.perMinute(), 6)
}

// What does not pay is tried less and less.
func TestIneffective(t *testing.T) {
	t.Parallel()
	w := world{limit: 256, live: constant(20), stacks: constant(100).until(2), inUse: constant(2), percent: 100, pinned: true}
	l := w.run(600)
	require.NotEmpty(t, l.releases)
	assert.LessOrEqual(t, len(l.releases), 7, "%v", l.releases)
	for i := 2; i < len(l.releases); i++ {
		assert.Greater(t, l.releases[i]-l.releases[i-1], 1.5*(l.releases[i-1]-l.releases[i-2]))
	}
	assert.NotZero(t, l.held[BackedOff])
	assert.Zero(t, l.r.Account().Paid)

	// A dry run plans the same, and nothing answers.
	w.dry = true
	l = w.run(600)
	assert.NotEmpty(t, l.releases)
	assert.LessOrEqual(t, len(l.releases), 7, "%v", l.releases)
	assert.Zero(t, l.r.Account().Ended)
}

// A neighbour gets what we retain before the cgroup is full.
func TestNeighbour(t *testing.T) {
	t.Parallel()
	w := world{limit: 256, live: constant(20).plus(constant(120).until(4)), percent: 100, alloc: constant(10).until(4),
		other: ramp(60, 200).from(6), tick: 0.01}
	l := w.run(60)
	require.NotEmpty(t, l.releases)
	assert.Less(t, l.peak, 256.0)
	assert.LessOrEqual(t, len(l.releases), 3)
	assert.Contains(t, l.reasons[Neighbour], "others fill the cgroup")

	dry := w
	dry.dry = true
	assert.Greater(t, dry.run(60).peak, 256.0, "without it the kernel kills")

	// One that fills it within seconds gets it early, so that a return that comes
	// late, for all CPUs are busy, is in time. A slow one can wait.
	fast := w
	fast.other = ramp(100, 200).from(6)
	l = fast.run(60)
	require.NotEmpty(t, l.releases)
	assert.Less(t, l.releases[0], 6.25)
	slow := w
	slow.other = ramp(2, 60).from(6)
	for _, at := range slow.run(30).releases {
		assert.Greater(t, at, 9.0)
	}

	// One that comes and goes does not cost a collection each time.
	for _, period := range []float64{3, 6} {
		tide := world{limit: 256, live: constant(60), percent: 100, alloc: constant(1.5), tick: 0.01,
			other: func(t float64) float64 { return 75 + 25*math.Sin(2*math.Pi*t/period) }}
		l := tide.run(600)
		assert.LessOrEqual(t, len(l.releases), 25)
		assert.Less(t, l.peak, 225.0)
	}

	// Usage is as high, but it is we who grow.
	own := world{limit: 256, live: ramp(20, 220), percent: 100, alloc: constant(20), memLimit: 240, other: constant(20), tick: 0.01}
	l = own.run(10)
	assert.Empty(t, l.releases, "%v", l.reasons)
}

// C memory grows where the collector does not look.
func TestNonHeap(t *testing.T) {
	t.Parallel()
	w := world{limit: 256, live: constant(40), alloc: constant(100).until(5), percent: 400, c: ramp(12, 120).from(4), tick: 0.01}
	l := w.run(30)
	assert.Less(t, l.peak, 256.0)
	assert.NotEmpty(t, l.releases)
	assert.LessOrEqual(t, len(l.releases), 4)
	assert.Contains(t, l.reasons[NonHeap], "outside the heap grows")

	// Go touches what it has mapped before: the same for the kernel.
	w = world{limit: 256, live: constant(40), alloc: constant(100), percent: 490, tick: 0.01}
	w.fresh = func(t float64) float64 { return max(0, 120-12*t) }
	l = w.run(30)
	assert.NotContains(t, l.reasons, NonHeap)
	assert.Empty(t, l.releases, "%v", l.reasons)
	// So it does, two seconds late, beside C memory that stands still or shrinks.
	w = world{limit: 340, live: constant(40), alloc: constant(100).until(1.8).plus(constant(5)), percent: 1000, tick: 0.01}
	w.fresh = func(t float64) float64 { return 5 * (2 - math.Abs(2-math.Mod(t, 4))) }
	for name, c := range map[string]curve{"stands": constant(20), "shrinks": func(t float64) float64 { return 20 - t }} {
		w.c = c
		l = w.run(16)
		assert.NotContains(t, l.reasons, NonHeap, name)
		assert.Greater(t, l.peak, nearEnter*w.limit, name)
	}
}

// What stays sheds load, with hysteresis; it brings no release and no lower percent.
func TestShed(t *testing.T) {
	t.Parallel()
	w := world{limit: 256, live: ramp(10, 235), alloc: constant(100), percent: 100, memLimit: 250}
	l := w.run(60)
	assert.Empty(t, l.releases)
	assert.Equal(t, []Grade{Observe, Log, Shed}, l.grades)
	assert.Zero(t, l.plan.GCPercent)
	assert.Contains(t, l.reasons[Limit], "cannot be freed by any collection")

	w.live = func(t float64) float64 { return 225 + 6*math.Sin(t) }
	l = w.run(300)
	assert.LessOrEqual(t, l.changes, 2, "%v", l.grades)

	w.live = func(t float64) float64 { return 240 * math.Max(0, math.Sin(t/20)) }
	l = w.run(330)
	assert.Equal(t, Observe, l.grades[len(l.grades)-1], "and back")
}

func TestSizeClass(t *testing.T) {
	t.Parallel()
	leak := func(t float64) Class {
		n := uint64(20_000 * t)
		return Class{Size: 48, Objects: n, Bytes: 48 * n}
	}
	w := world{limit: 4096, live: func(t float64) float64 { return 20 + 0.92*t }, alloc: constant(20), percent: 100, class: leak}
	l := w.run(300)
	assert.Equal(t, []Grade{Observe, Log, LowerPercent, FreeOSMemory}, l.grades)
	assert.LessOrEqual(t, len(l.releases), 6, "objects that live are not given back: %v", l.releases)
	assert.GreaterOrEqual(t, l.releases[0], 37.5, "750,000 objects")
	assert.Contains(t, l.reasons[SizeClass], "of 48 B")
	assert.Contains(t, l.reasons[SizeClass], "worth a look are 500000")

	// The same near the limit.
	w.limit, w.memLimit = 256, 250
	w.live = constant(190)
	w.percent = 400
	l = w.run(300)
	assert.Empty(t, l.releases)
	assert.NotZero(t, l.held[NoGain])

	// It stands still.
	w.class = func(t float64) Class { return Class{} }
	w.limit = 4096
	assert.Zero(t, w.run(60).changes)

	r := Releaser{ClassObjects: 1000}
	p := r.Step(&Reading{Time: time.Unix(1, 0), Class: &Class{Size: 8, Objects: 1000, Bytes: 8000}})
	assert.Equal(t, Log, p.Grade)
}

// Blind, a Releaser holds its grade, says so and does nothing.
func TestBlind(t *testing.T) {
	t.Parallel()
	idle := world{live: constant(20).plus(constant(180).until(10)), alloc: constant(100).until(10), percent: 100}
	idle.blind = func(t float64) bool { return t >= 13.5 }
	l := idle.run(100)
	assert.Empty(t, l.releases)
	assert.Equal(t, LowerPercent, l.plan.Grade)
	assert.Equal(t, lowPercent, l.plan.GCPercent)
	assert.True(t, l.plan.Blind)

	// From the start there is nothing to hold.
	idle.blind = func(t float64) bool { return true }
	l = idle.run(100)
	assert.Equal(t, Plan{Blind: true}, l.plan)

	// Every other look fails: the same is done.
	n := 0
	idle.blind = func(t float64) bool { n++; return n%2 == 0 }
	l = idle.run(100)
	assert.NotEmpty(t, l.releases)
	assert.Less(t, l.usage, 30.0)
}

func TestClockSetBack(t *testing.T) {
	t.Parallel()
	var r Releaser
	heap := &Heap{Mapped: 300 * mb, Objects: 20 * mb, Free: 280 * mb, Goal: 40 * mb, Cycles: 1, Live: 20 * mb}
	at, released := time.Unix(1_000_000, 0), false
	for i := range 300 {
		if i == 20 {
			at = at.Add(-time.Hour)
		}
		at = at.Add(100 * time.Millisecond)
		released = r.Step(&Reading{Time: at, Heap: heap}).Release || released
	}
	assert.True(t, released)
}

// Somebody else's release counts, and two are never asked for at the same time.
func TestOthersReleases(t *testing.T) {
	t.Parallel()
	heap := &Heap{Mapped: 300 * mb, Objects: 20 * mb, Free: 280 * mb, Goal: 40 * mb, Cycles: 1, Live: 20 * mb}
	var r Releaser
	at := time.Unix(1_000_000, 0)
	step := func(in Reading) Plan {
		at = at.Add(100 * time.Millisecond)
		in.Time, in.Heap = at, heap
		return r.Step(&in)
	}
	running := 0
	for range 200 {
		p := step(Reading{Releasing: true})
		require.False(t, p.Release)
		if p.Held == Running {
			running++
		}
	}
	assert.NotZero(t, running)
	p := step(Reading{Outcome: &Outcome{Took: time.Second, Before: 300 * mb, After: 300 * mb, Measured: true}})
	assert.Equal(t, CoolDown, p.Held)
	assert.Equal(t, Account{Ended: 1, Took: time.Second, Last: r.Account().Last}, r.Account())
	for range 110 {
		if p = step(Reading{}); p.Release {
			break
		}
	}
	assert.True(t, p.Release, "ten times what it took")
}

// What was not measured has not paid; what C gave back has.
func TestOutcomeUnmeasured(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		outcome Outcome
		paid    bool
	}{
		{Outcome{Before: 100 * mb}, false},
		{Outcome{Before: 100 * mb, Measured: true}, true},
		{Outcome{After: 100 * mb, Measured: true}, false},
		{Outcome{Before: 3 * mb, Measured: true}, false},
		{Outcome{Trim: TrimReleased}, true},
		{Outcome{Trim: TrimNothing}, false},
	} {
		var b books
		b.start(0, Idle, 80*mb)
		b.settle(time.Second, &Reading{Outcome: &c.outcome})
		assert.Equal(t, c.paid, b.account.LastPaid, "%+v", c.outcome)
		assert.Equal(t, c.paid, b.backOff[Idle].wait == 0)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for g := Observe; g <= Shed; g++ {
		assert.NotContains(t, g.String(), "unknown")
	}
	for tr := None; tr < numTriggers; tr++ {
		assert.NotContains(t, tr.String(), "unknown")
	}
	for h := NotHeld + 1; h < numHelds; h++ {
		assert.NotEmpty(t, h.String())
	}
	assert.Equal(t, "unknown grade", Grade(-1).String())
	assert.Equal(t, "unknown trigger", Trigger(99).String())
	assert.Equal(t, "unknown", Held(99).String())
	assert.Empty(t, new(Reason).String())
	for _, trim := range []Trim{TrimNotBuiltIn, TrimNothing, TrimReleased} {
		assert.NotEqual(t, "unknown", trim.String())
	}
}

// Whatever is read: at most 12 releases a minute, none blind, none beside another.
func FuzzStep(f *testing.F) {
	f.Add([]byte("the quick brown fox jumps over the lazy dog and does it again"))
	f.Add([]byte{255, 255, 0, 1, 2, 3, 4, 250, 251, 252, 253, 254, 255, 128, 127, 0, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Releaser
		next := func() uint64 {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			if b == 255 {
				return math.MaxUint64
			}
			return uint64(b) * 4 * mb
		}
		now, clock := time.Duration(0), time.Unix(1e6, 0)
		var starts []time.Duration
		for len(data) > 0 {
			kind := next() / (4 * mb)
			dt := time.Duration(kind%16) * 100 * time.Millisecond
			if kind%16 == 15 {
				clock = clock.Add(-time.Hour)
			} else {
				now, clock = now+dt, clock.Add(dt)
			}
			in := Reading{Time: clock, Releasing: kind&64 != 0}
			if kind&16 == 0 {
				in.Heap = &Heap{next(), next(), next(), next(), next(), next(), next(), next(), next(), next()}
			}
			if kind&32 == 0 {
				in.Cgroup = &Cgroup{next(), next(), next()}
			}
			if kind&128 != 0 {
				in.Class = &Class{48, next(), next()}
				in.Outcome = &Outcome{Took: time.Duration(next()), Before: next(), After: next(), Measured: true}
			}
			p := r.Step(&in)
			_ = p.Reason.String()
			require.True(t, p.GCPercent == 0 || p.GCPercent == lowPercent)
			require.True(t, Observe <= p.Grade && p.Grade <= Shed)
			if !p.Release {
				continue
			}
			require.NotNil(t, in.Heap)
			require.False(t, in.Releasing)
			require.GreaterOrEqual(t, p.Grade, FreeOSMemory)
			starts = append(starts, now)
			if n := len(starts); n > perMinute {
				require.GreaterOrEqual(t, starts[n-1]-starts[n-1-perMinute], time.Minute)
			}
		}
	})
}

func BenchmarkStep(b *testing.B) {
	var r Releaser
	in := Reading{
		Heap:   &Heap{Mapped: 300 * mb, Objects: 20 * mb, Free: 280 * mb, Goal: 40 * mb, Cycles: 1, Live: 20 * mb},
		Cgroup: &Cgroup{Limit: 512 * mb, Usage: 480 * mb, Own: 320 * mb},
		Class:  &Class{Size: 48, Objects: 600_000, Bytes: 48 * 600_000},
		Time:   time.Unix(1_000_000, 0),
	}
	b.ReportAllocs()
	for b.Loop() {
		in.Time = in.Time.Add(10 * time.Millisecond)
		if r.Step(&in).Release {
			in.Outcome = &out
		} else {
			in.Outcome = nil
		}
	}
}

var out = Outcome{Took: 50 * time.Millisecond, Before: 300 * mb, After: 30 * mb, Measured: true}

func TestStepAllocatesNothing(t *testing.T) {
	var r Releaser
	in := Reading{Heap: &Heap{Mapped: 300 * mb, Free: 280 * mb}, Time: time.Unix(1_000_000, 0), Outcome: &out}
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		in.Time = in.Time.Add(100 * time.Millisecond)
		r.Step(&in)
	}))
}
