// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/memguard/memguard-go/memguard/sizeclass"
	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A heap is a model of the runtime's: it allocates at a rate, keeps what lives,
// and collects at its goal, for which the collector takes CPU time by what it
// marks while the program goes on allocating.
type heap struct {
	live, alloc stream  // MiB, and MiB a second
	percent     float64 // GOGC
	limit       float64 // GOMEMLIMIT in MiB; 0 is none
	cost        float64 // cpu-seconds for each MiB marked
	cpus        float64

	t, size, goal, marked float64
	marking               float64 // cpu-seconds of marking that are left
	allocated, gc, cycles float64
	limiter               uint64
}

const heapStep = 0.002 // seconds

// advance runs the model for a second.
func (h *heap) advance() {
	for end := h.t + 1; h.t < end-heapStep/2; h.t += heapStep {
		share := 0.0
		if h.marking > 0 {
			if share = 0.25; h.size > h.goal {
				share = 0.6 // whoever allocates must help
			}
			work := min(h.marking, share*h.cpus*heapStep)
			h.gc += work
			if h.marking -= work; h.marking <= 0 {
				h.collected()
			}
		}
		n := (1 - share) * h.alloc(h.t) * heapStep
		h.allocated += n
		h.size = max(h.size+n, h.live(h.t))
		if h.marking <= 0 && h.size >= h.marked+0.9*(h.goal-h.marked) {
			h.marking = max(h.cost*h.live(h.t), 1e-9)
		}
	}
}

func (h *heap) collected() {
	h.cycles++
	h.size, h.marked = h.live(h.t), h.live(h.t)
	h.goal = max(4*h.percent/100, h.marked*(1+h.percent/100))
	if h.limit > 0 {
		h.goal = max(min(h.goal, h.limit-30), h.marked+0.1)
	}
}

// sample shows the model in an else healthy service with a large limit.
func (h *heap) sample() *Sample {
	s := healthy(h.t)
	r := &s.Runtime
	bytes := func(n float64) Bytes { return Known(uint64(n * mebi)) }
	r.Objects, r.Live, r.Goal, r.Allocated = bytes(h.size), bytes(h.marked), bytes(h.goal), bytes(h.allocated)
	r.Cycles, r.CPU, r.GCCPU = Known(uint64(h.cycles)), Known(h.t*h.cpus), Known(h.gc)
	r.GCPercent, r.LimiterCycle = Known(int64(h.percent)), Known(h.limiter)
	r.Free = bytes(max(h.goal-h.size, 0))
	r.MemoryLimit, s.Cgroup.Limit = Known[uint64](Unlimited), Known[uint64](Unlimited)
	if h.limit > 0 {
		r.MemoryLimit = bytes(h.limit)
	}
	add(s, 20*mebi)
	return s
}

// run judges seconds of the model.
func (h *heap) run(t *testing.T, seconds int) *court {
	c := newCourt()
	for range seconds {
		h.advance()
		c.hear(t, h.sample())
	}
	return c
}

func (c *court) worst() (worst Severity) {
	for _, ch := range c.changes {
		worst = max(worst, ch.severity)
	}
	return worst
}

// Ten minutes of services that nothing is wrong with: no warning.
func TestGCDetectorsLeaveHealthyServicesAlone(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]heap{
		"steady":              {live: constant(200), alloc: constant(300), percent: 100, cost: 0.0005, cpus: 4},
		"GOGC=50":             {live: constant(200), alloc: constant(300), percent: 50, cost: 0.0005, cpus: 4},
		"GOGC=400":            {live: constant(200), alloc: constant(300), percent: 400, cost: 0.0005, cpus: 4},
		"a tiny heap":         {live: constant(1), alloc: constant(60), percent: 100, cost: 0.005, cpus: 2},
		"a tenth of a core":   {live: constant(40), alloc: constant(6), percent: 100, cost: 0.02, cpus: 2},
		"idle":                {live: constant(80), alloc: constant(0.1), percent: 100, cost: 0.001, cpus: 2},
		"bursts":              {live: constant(100), alloc: sawtooth(800, 7), percent: 100, cost: 0.0005, cpus: 4},
		"a batch that warms":  {live: warmUp(500, 60), alloc: constant(400), percent: 100, cost: 0.0005, cpus: 4},
		"a cache that drops":  {live: constant(50).plus(sawtooth(300, 45)), alloc: constant(200), percent: 100, cost: 0.0005, cpus: 4},
		"load of a day":       {live: constant(100).plus(swing(200, 300)), alloc: swing(500, 300), percent: 100, cost: 0.0005, cpus: 4},
		"under its limit":     {live: constant(300), alloc: constant(300), percent: 100, limit: 700, cost: 0.0005, cpus: 4},
		"limit, dear marking": {live: constant(300), alloc: constant(100), percent: 100, limit: 500, cost: 0.001, cpus: 2},
		"noise":               {live: constant(100).plus(noise(100, 7)), alloc: noise(600, 8), percent: 100, cost: 0.0005, cpus: 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := h.run(t, 600)
			assert.Less(t, c.worst(), Warning, "%v", c.changes)
			assert.Less(t, len(c.changes), 20, "%v", c.changes)
			require.Positive(t, h.cycles)
		})
	}
}

// The spiral comes and goes with what lives: it is told within seconds, as
// critical soon after, once, and withdrawn.
func TestDeathSpiralFollowsWhatLives(t *testing.T) {
	t.Parallel()
	live := constant(200).plus(step(240, 60)).plus(step(-240, 180))
	h := heap{live: live, alloc: constant(400), percent: 100, limit: 500, cost: 0.001, cpus: 2}
	c := h.run(t, 300)
	changes := c.of("gc-death-spiral")
	require.Len(t, changes, 3, "%v", c.changes)
	assert.Equal(t, Warning, changes[0].severity)
	assert.InDelta(t, 68, changes[0].at, 8)
	assert.Equal(t, Critical, changes[1].severity)
	assert.InDelta(t, changes[0].at+spiralSure.Seconds(), changes[1].at, 1)
	assert.InDelta(t, 190, changes[2].at, 6)
	for _, ch := range c.of("gc-storm") {
		assert.Less(t, ch.severity, Warning, "the spiral is not told twice")
	}
}

// The limiter says at once what the share of the CPU says late, but only of a heap
// that is near the limit.
func TestLimiterMakesTheSpiralCritical(t *testing.T) {
	t.Parallel()
	for live, want := range map[float64]Severity{400: Critical, 100: 0} {
		h := heap{live: constant(live), alloc: constant(30), percent: 100, limit: 600, cost: 0.0001, cpus: 4}
		c := newCourt()
		for range 60 {
			h.advance()
			if int(h.t) == 30 {
				h.limiter = uint64(h.cycles)
			}
			c.hear(t, h.sample())
		}
		worst := Severity(0)
		for _, ch := range c.of("gc-death-spiral") {
			worst = max(worst, ch.severity)
		}
		assert.Equal(t, want, worst, "%v MiB of 600 live: %v", live, c.changes)
	}
}

// A small heap under a heavy load of garbage, with GOGC too low for it.
func TestStorm(t *testing.T) {
	t.Parallel()
	h := heap{live: constant(20), alloc: constant(600).plus(step(-600, 150)), percent: 25, cost: 0.008, cpus: 4}
	c := h.run(t, 300)
	changes := c.of("gc-storm")
	require.Len(t, changes, 3, "%v", c.changes)
	assert.Equal(t, []Severity{Info, Warning, 0}, []Severity{changes[0].severity, changes[1].severity, changes[2].severity})
	assert.InDelta(t, stormHalf.Seconds()+stormLong.Seconds(), changes[1].at, 3)
	assert.Empty(t, c.of("gc-death-spiral"))
}

// What the model allocates past its goal is what the detector says, and one
// that marks in no time is never said to.
func TestOvershootIsExact(t *testing.T) {
	t.Parallel()
	var d gcOvershoot
	h := heap{live: constant(100), alloc: constant(200), percent: 100, cpus: 4}
	beyond := 0.0
	for i := range 400 {
		h.advance()
		s := h.sample()
		// Each cycle allocates so much more than the model does by itself.
		s.Runtime.Allocated = Known(uint64((h.allocated + beyond*h.cycles) * mebi))
		v := d.step(s)
		switch i {
		case 199:
			assert.Equal(t, fine, v.state)
			d, beyond = gcOvershoot{}, 80
		case 399:
			require.Equal(t, found, v.state)
			assert.InEpsilon(t, 280*mebi, v.fact("heap at the end of marking"), 0.06, "a part of a cycle at both ends of 20")
			assert.InEpsilon(t, 200*mebi, v.fact("heap goal"), 0.01)
		}
	}
}

// With GOGC=off nothing comes that would let the scavenger work: that is told
// once the two-minute cycle is overdue, and not of a heap that will use the room.
func TestScavengeIdleWithoutCycles(t *testing.T) {
	t.Parallel()
	for rate, want := range map[float64][]change{
		0.1: {{150, "scavenge-idle", Info}},
		5:   nil,
	} {
		c := judged(t, 0, 300, func(s *Sample, t float64) {
			r := &s.Runtime
			r.GCPercent, r.Goal = Known[int64](-1), Known[uint64](870*mebi)
			r.Cycles, r.Allocated = Known[uint64](9), Known(uint64((1000+rate*t)*mebi))
			r.Free = Known[uint64](400 * mebi)
			add(s, 20*mebi)
		})
		assert.Equal(t, want, c.of("scavenge-idle"), "%v MiB/s", rate)
	}
}

// An ancestor that siblings have filled: a remark, until tasks stall.
func TestNeighbourBesideTheCgroup(t *testing.T) {
	t.Parallel()
	c := judged(t, 0, 60, func(s *Sample, t float64) {
		s.Cgroup.Above = Above{"/kubepods/pod1", Known[uint64](1950 * mebi), Known[uint64](2048 * mebi)}
		if t >= 30 {
			s.Cgroup.Pressure = Known(20.0)
		}
	})
	assert.Equal(t, []change{{0, "neighbour-pressure", Info}, {30, "neighbour-pressure", Warning}}, c.changes)
	assert.Contains(t, c.Findings()[0].Summary, "above this one uses 1950 MiB of its 2048 MiB")

	c = judged(t, 0, 60, func(s *Sample, t float64) { // it is all ours
		s.Cgroup.Above = Above{"/kubepods/pod1", s.Cgroup.Usage, Known(must(s.Cgroup.Usage) + 1)}
	})
	assert.Empty(t, c.changes)
}

func must(b Bytes) uint64 { n, _ := b.Get(); return n }

// A cache that fills and is full is a remark while it fills; a leak that goes on
// for minutes is a warning; garbage and a load that swings are neither.
func TestSizeclassGrowthCurves(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		objects stream // of 64 bytes
		worst   Severity
		ends    Severity
	}{
		"a leak":                      {constant(400e3).plus(ramp(2000)), Warning, Warning},
		"a leak under garbage":        {constant(600e3).plus(ramp(4000)).plus(sawtooth(200e3, 2.5)), Warning, Warning},
		"a cache that fills":          {constant(400e3).plus(warmUp(600e3, 120)), Info, 0},
		"few objects, all of a leak":  {ramp(500), 0, 0},
		"many objects that stay":      {constant(5e6), 0, 0},
		"garbage between collections": {constant(600e3).plus(sawtooth(900e3, 10)), 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := judged(t, 0, 600, func(s *Sample, t float64) {
				n := uint64(tt.objects(t))
				s.Runtime.Classes = &sizeclass.Classes{Cycles: uint64(77 + t/2), All: []sizeclass.Class{{Min: 49, Size: 64, Objects: n, Bytes: 64 * n}}}
			})
			worst := Severity(0)
			for _, ch := range c.of("sizeclass-growth") {
				worst = max(worst, ch.severity)
			}
			assert.Equal(t, tt.worst, worst, "%v", c.changes)
			assert.Equal(t, tt.ends, c.stands["sizeclass-growth"], "%v", c.changes)
			assert.LessOrEqual(t, len(c.of("sizeclass-growth")), 4, "%v", c.changes)
		})
	}
}

// How many objects are worth a finding is one setting, of the detector and of the
// releaser; 500,000 where it says nothing.
func TestClassObjects(t *testing.T) {
	t.Parallel()
	for set, want := range map[uint64]uint64{0: 500_000, 1000: 1000} {
		h := handOf(Config{ClassObjects: set})
		h.g.judge.classObjects(set)
		assert.Equal(t, want, h.releaser.ClassObjects)
		least := 0.0
		for sec := 0.0; sec < 300 && least == 0; sec++ {
			s, n := healthy(sec), uint64(want-500)
			if sec > 30 { // it grows
				n += uint64(sec-30) * 20
			}
			s.Runtime.Classes = &sizeclass.Classes{Cycles: uint64(77 + sec), All: []sizeclass.Class{{Min: 49, Size: 64, Objects: n, Bytes: 1 << 10 * n}}}
			h.g.judge.Step(s)
			for _, f := range h.g.judge.Findings() {
				if f.ID == "sizeclass-growth" {
					least = float64(n)
				}
			}
		}
		assert.GreaterOrEqual(t, least, float64(want), "%d", set)
	}
}

// What this process keeps shows in its own size classes: the figures are real,
// only the seconds are made up.
func TestProcessSizeclassGrowthIsSeen(t *testing.T) {
	var kept [][]*[7]uint64 // 56 bytes, in the class of 64
	var r runtimeReader
	var d sizeclassGrowth
	var v verdict
	for i := range 60 {
		some := make([]*[7]uint64, 20_000)
		for k := range some {
			some[k] = new([7]uint64)
		}
		if kept = append(kept, some); i == 0 {
			for range 25 { // 500,000 to begin with
				more := make([]*[7]uint64, 20_000)
				for k := range more {
					more[k] = new([7]uint64)
				}
				kept = append(kept, more)
			}
		}
		runtime.GC()
		s := Sample{Time: at(float64(i))}
		require.NoError(t, r.readClasses(&s.Runtime, s.Time))
		if v = d.step(&s); v.state == found {
			break
		}
	}
	require.Equal(t, found, v.state)
	t.Log(d.say(&v))
	assert.GreaterOrEqual(t, v.fact("objects"), float64(sizeclassObjects))
	assert.Contains(t, d.say(&v), "objects of 49-64 B")
	assert.False(t, math.IsNaN(v.fact("gained")))
	runtime.KeepAlive(kept)
}

// spiral is what a child saw of its own collector.
type spiral struct {
	Ticks    int // until it was critical; 0 is never
	Findings []Finding
}

// spiralling keeps 57 MiB of linked objects under a limit of 64 MiB, and
// allocates on all CPUs.
func spiralling() any {
	debug.SetMemoryLimit(64 << 20)
	var list *[16]*byte
	for range 57 << 20 / 128 {
		next := new([16]*byte)
		next[0] = (*byte)(unsafe.Pointer(list))
		list = next
	}
	stop := make(chan struct{})
	defer close(stop)
	for range runtime.GOMAXPROCS(0) {
		go func() {
			for sink := []byte(nil); ; sink = make([]byte, 512) {
				select {
				case <-stop:
					runtime.KeepAlive(sink)
					return
				default:
				}
			}
		}()
	}
	src, j := Self(), NewJudge()
	var s Sample
	var out spiral
	for tick := 1; tick < 60; tick++ {
		time.Sleep(time.Second)
		if src.Read(&s) != nil {
			break
		}
		j.Step(&s)
		out.Findings = j.Findings()
		if i := slices.IndexFunc(out.Findings, func(f Finding) bool { return f.ID == "gc-death-spiral" }); i >= 0 && out.Findings[i].Severity == Critical {
			out.Ticks = tick
			break
		}
	}
	runtime.KeepAlive(list)
	return out
}

// The real runtime, at its limit.
func TestDeathSpiralIsSeen(t *testing.T) {
	if testing.Short() {
		t.Skip("takes all CPUs for about ten seconds")
	}
	var got spiral
	answer(t, "death-spiral", &got)
	require.NotZero(t, got.Ticks, "never critical: %+v", got.Findings)
	for _, f := range got.Findings {
		t.Logf("after %d ticks of a second: %s %s: %s", got.Ticks, f.ID, f.Severity, f.Summary)
		assert.NotEqual(t, ID("gc-storm"), f.ID, "it is not told twice")
	}
}

// The collector's CPU time is unknown before the first cycle, and moves with them.
func TestCollectorsCPU(t *testing.T) {
	t.Parallel()
	var r [2]Runtime
	answer(t, "collected", &r, "GOGC=off")
	assert.Equal(t, Value[float64]{}, r[0].GCCPU)
	assert.Equal(t, Value[float64]{}, r[0].CPU)
	gc, ok := r[1].GCCPU.Get()
	all, ok2 := r[1].CPU.Get()
	require.True(t, ok && ok2)
	assert.Positive(t, gc)
	assert.Less(t, gc, all)
	assert.Equal(t, Known[uint64](0), r[1].LimiterCycle)
	require.NotNil(t, r[1].Classes)
	assert.NotEmpty(t, r[1].Classes.All)
}

// The ancestor that leaves less room than the group's own limit does is found, and
// no other.
func TestAbove(t *testing.T) {
	t.Parallel()
	level := func(dir string, usage, limit uint64) cgroup.Level {
		return cgroup.Level{Dir: dir, Usage: cgroup.ValueOf(usage), Limit: cgroup.LimitOf(limit)}
	}
	own := level("/pod/c", 100, 500)
	for _, tt := range []struct {
		levels []cgroup.Level
		want   Above
	}{
		{nil, Above{}},
		{[]cgroup.Level{own}, Above{}},
		{[]cgroup.Level{own, level("/pod", 200, 1000)}, Above{}},
		{[]cgroup.Level{own, level("/pod", 900, 1000)}, Above{"/pod", Known[uint64](900), Known[uint64](1000)}},
		{[]cgroup.Level{own, level("/pod", 900, 1000), level("/", 1990, 2000)}, Above{"/", Known[uint64](1990), Known[uint64](2000)}},
		{[]cgroup.Level{own, {Dir: "/pod", Limit: cgroup.LimitOf(10)}}, Above{}}, // its usage is unknown
	} {
		assert.Equal(t, tt.want, above(&cgroup.Reading{Levels: tt.levels, LimitFrom: "/pod/c"}))
	}
}
