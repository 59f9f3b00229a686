// SPDX-License-Identifier: Apache-2.0

package pacer

import (
	"math"
	"time"
)

// plant is a model of a Go process in a cgroup: a heap with a concurrent
// collector, C memory, a neighbour, and a kernel that kills. The collector follows
// runtime/mgcpacer.go (goal, trigger, assists) and mgclimit.go (no assists once it
// has taken more CPU than the program for long enough); bytes and seconds.
type plant struct {
	limit, live, alloc  curve // alloc is garbage and what replaces live bytes, per second
	other, untouched    curve // C, files, neighbours; a ballast that lives but was never faulted in
	scan                float64
	procs               float64
	brake               bool // work waits from the middle of the margin on
	percent, memory     float64
	objects, marked     float64
	mapped              float64
	marking             bool
	left, black, bucket float64
	cycles              uint64
	gc, gcSeen, cpuSeen float64
	allocated           float64
	margin              float64
	time                float64
	peak                float64 // usage as a share of the limit
	killed              bool
	waited              float64 // share of the time that work had to wait, in seconds
	cycleGC             float64
}

const (
	mib       = 1 << 20
	overheads = 8 * mib // stacks, metadata, span waste
	step      = time.Millisecond
)

func newPlant() *plant {
	return &plant{
		limit: constant(256 * mib), live: constant(60 * mib), alloc: constant(100 * mib),
		other: constant(8 * mib), untouched: constant(0),
		scan: 600 * mib, procs: 2, percent: 100, memory: math.MaxInt64,
	}
}

// used is what the kernel counts.
func (p *plant) used() float64 { return p.mapped - p.untouched(p.time) + p.other(p.time) }

func (p *plant) goal() float64 {
	marked := max(p.marked, p.untouched(p.time))
	goal := math.Inf(1)
	if p.percent >= 0 {
		goal = max(marked*(1+p.percent/100), heapLeast*p.percent/100)
	}
	over := max(p.mapped-p.memory, 0)
	byLimit := p.memory - overheads - over
	byLimit -= max(goalHeadroom*byLimit, headroomMin)
	return max(min(goal, byLimit), marked)
}

// run advances the model by a millisecond.
func (p *plant) run() {
	dt := step.Seconds()
	p.time += dt
	goal := p.goal()
	stays := p.live(p.time) + p.untouched(p.time)
	if !p.marking && p.objects >= p.marked+0.8*(goal-p.marked) {
		p.marking, p.left, p.black, p.cycleGC = true, (p.live(p.time)+8*mib)/p.scan, 0, 0
	}
	wants := p.alloc(p.time) * dt
	if p.brake && p.used() > p.limit(p.time)-p.margin/2 {
		wants, p.waited = 0, p.waited+dt
	}
	work := 0.
	if p.marking {
		cpu := 0.25 * p.procs * dt
		if wants == 0 {
			cpu = p.procs * dt // idle processors mark
		}
		if limited := p.bucket >= p.procs; !limited && wants > 0 {
			// Assists: the marking must be done when the goal is reached.
			room := max(goal-p.objects, 64<<10)
			allowed := cpu * room / max(p.left, 1e-9)
			if allowed < wants {
				// A part of the program's CPU marks instead of allocating.
				f := (wants - allowed) / (wants + room/max(p.left, 1e-9)*0.75*p.procs*dt)
				cpu += f * 0.75 * p.procs * dt
				wants *= 1 - f
			}
		}
		work = min(cpu, p.left)
		p.left -= cpu
		p.cycleGC += work
	}
	mutator := max(p.procs*dt-work, 0)
	if wants == 0 {
		mutator = 0
	}
	p.bucket = min(max(p.bucket+work-mutator, 0), p.procs)
	p.objects = max(p.objects+wants, stays)
	p.allocated += wants
	if p.marking {
		p.black += wants
		if p.left <= 0 {
			p.marking = false
			p.marked = stays + p.black
			p.objects = p.marked
			p.cycles++
			p.gc += p.cycleGC
			p.gcSeen, p.cpuSeen = p.gc, p.time*p.procs
		}
	}
	needs := p.objects + overheads
	// The scavenger keeps a tenth more than was needed, and nothing beyond the limit.
	keep := max(needs, min(1.1*goal+overheads, p.memory))
	p.mapped = max(needs, min(p.mapped, max(keep, p.mapped-0.5*p.mapped*dt)))
	if p.mapped > p.memory {
		p.mapped = max(needs, p.mapped-2*p.mapped*dt)
	}
	share := p.used() / p.limit(p.time)
	p.peak = max(p.peak, share)
	p.killed = p.killed || share > 1
}

func (p *plant) reading(start time.Time) *Reading {
	n := func(f float64) uint64 { return uint64(max(f, 0)) }
	return &Reading{
		Time: start.Add(time.Duration(p.time * float64(time.Second))), Limit: n(p.limit(p.time)), Usage: n(p.used()),
		Mapped: n(p.mapped), Live: n(p.marked), Objects: n(p.objects), Unused: overheads / 2, Stacks: overheads / 4, Metadata: overheads / 4,
		Free: n(p.mapped - p.objects - overheads), Untouched: n(p.untouched(p.time)), Goal: n(min(p.goal(), 1<<62)),
		Cycles: p.cycles, Allocated: n(p.allocated), GCCPU: p.gcSeen, CPU: p.cpuSeen,
	}
}

// tick is how often a guard looks: rarely at rest, often near the limit.
func (p *plant) tick() time.Duration {
	switch used := p.used() / p.limit(p.time); {
	case used > 0.7:
		return 10 * time.Millisecond
	case used > 0.4:
		return 100 * time.Millisecond
	}
	return time.Second
}

// ride is what happened under a governor.
type ride struct {
	changes, percents int
	spirals           int       // times that it began
	decisions         []float64 // memory limit, once in 100 ms
	last              Decision
}

// eyes changes a reading before the governor gets it; nil is no reading at all.
type eyes func(n int, r *Reading) *Reading

// drive runs the plant under a governor.
func (p *plant) drive(g *Governor, seconds float64, see eyes) (rd ride) {
	start := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	next, n := 0., 0
	if g.Baseline == (Setting{}) {
		g.Baseline = Setting{100, NoLimit}
	}
	set := g.Baseline
	p.percent, p.memory = float64(set.GCPercent), float64(set.MemoryLimit)
	for p.time < seconds {
		p.run()
		if int(p.time*1000+0.5)%100 == 0 {
			rd.decisions = append(rd.decisions, p.memory)
		}
		if p.time < next {
			continue
		}
		next = p.time + p.tick().Seconds()
		n++
		r := p.reading(start)
		if see != nil {
			if r = see(n, r); r == nil {
				continue
			}
		}
		d := g.Step(r)
		if d.MemoryLimit != set.MemoryLimit {
			rd.changes++
		}
		if d.GCPercent != set.GCPercent {
			rd.percents++
		}
		if d.Spiral && !rd.last.Spiral {
			rd.spirals++
		}
		set, rd.last = d.Setting, d
		p.percent, p.memory, p.margin = float64(d.GCPercent), float64(d.MemoryLimit), float64(d.Margin)
	}
	return rd
}

// curve is a load over time in seconds.
type curve func(t float64) float64

func constant(v float64) curve { return func(float64) float64 { return v } }

// ramp goes from one value to another and stays there.
func ramp(from, to, seconds float64) curve {
	return func(t float64) float64 { return from + (to-from)*min(max(t, 0)/seconds, 1) }
}

func oscillate(amplitude, period float64) curve {
	return func(t float64) float64 { return amplitude * math.Sin(2*math.Pi*t/period) }
}

// then goes over to another curve, whose time begins there.
func (c curve) then(at float64, next curve) curve {
	return func(t float64) float64 {
		if t < at {
			return c(t)
		}
		return next(t - at)
	}
}

func (c curve) sum(other curve) curve { return func(t float64) float64 { return c(t) + other(t) } }

// delay holds the first value for some seconds.
func (c curve) delay(seconds float64) curve {
	return func(t float64) float64 { return c(max(t-seconds, 0)) }
}

// backwards runs a curve of that length from its end.
func (c curve) backwards(length float64) curve {
	return func(t float64) float64 { return c(max(length-t, 0)) }
}
