// SPDX-License-Identifier: Apache-2.0

package gctrace

import "time"

// gogcEstimate infers GOGC from the goals: a cycle's goal is the live heap of
// the one before, plus GOGC percent of that heap with its stacks and globals
// (heapGoalInternal and commit in runtime/mgcpacer.go; before Go 1.18 without
// stacks and globals). A memory limit, the minimum heap and a bumped goal give
// other numbers, so it believes only a value that most cycles agree on.
type gogcEstimate struct {
	votes [1001]uint32
	total uint32
}

// smallHeap is a live heap whose rounding to whole MiB is at most 3 % of it.
// Ratios of smaller heaps say little.
const smallHeap = 32 * mib

func (g *gogcEstimate) add(prev, c *Cycle) {
	if prev.HeapLive < smallHeap || c.GoalUnbounded() || c.HeapGoal < prev.HeapLive || c.HeapStart >= c.HeapGoal {
		return
	}
	base := prev.HeapLive + mib/2 + prev.Stacks.v + prev.Globals.v
	percent := 100 * float64(c.HeapGoal-prev.HeapLive) / float64(base)
	if vote := int(percent + 0.5); vote < len(g.votes) {
		g.votes[vote]++
		g.total++
	}
}

// percent returns the GOGC that three cycles or more and two thirds of them
// agree on, within 5 % of it.
func (g *gogcEstimate) percent() (percent int, ok bool) {
	best := 0
	for i, n := range g.votes {
		if n > g.votes[best] {
			best = i
		}
	}
	slack := best/20 + 1
	var agree, weighted uint32
	for i := max(best-slack, 0); i <= min(best+slack, len(g.votes)-1); i++ {
		agree += g.votes[i]
		weighted += uint32(i) * g.votes[i]
	}
	if agree < 3 || 3*agree < 2*g.total {
		return 0, false
	}
	return int((weighted + agree/2) / agree), true
}

// overshoot compares the heap with the goal in two ways.
//
// Seen: the heap at mark end against the goal in the same line.
//
// Hidden: a single large allocation passes the goal before the runtime looks,
// and the runtime then lifts the goal to just above the heap before it prints
// it (trigger in runtime/mgcpacer.go), so the line shows none. It shows
// against what the cycle before left: live heap plus GOGC percent.
type overshoot struct {
	seen, hidden int
	worst        Cycle // by bytes over the goal
	worstOver    uint64
	worstHidden  Cycle
	expected     uint64 // the goal that worstHidden should have had
	hiddenOver   uint64
	ratio        float64 // largest HeapEnd/HeapGoal of cycles with a heap that is not small
}

// overshootBytes is what an overshoot must have to count, beside a tenth of
// the goal: small heaps pass their goal by large factors and harm nobody.
const overshootBytes = 32 * mib

func (o *overshoot) add(c *Cycle) {
	if c.GoalUnbounded() || c.HeapGoal == 0 {
		return
	}
	if c.HeapGoal >= smallHeap {
		o.ratio = max(o.ratio, float64(c.HeapEnd)/float64(c.HeapGoal))
	}
	if c.HeapEnd <= c.HeapGoal {
		return
	}
	over := c.HeapEnd - c.HeapGoal
	if over >= overshootBytes && over >= c.HeapGoal/10 {
		o.seen++
		if over > o.worstOver {
			o.worst, o.worstOver = *c, over
		}
	}
}

func (o *overshoot) addHidden(prev, c *Cycle, gogc *gogcEstimate) {
	if c.Forced || c.GoalUnbounded() || c.HeapStart < c.HeapGoal {
		return // the goal was not lifted
	}
	percent, ok := gogc.percent()
	if !ok {
		return
	}
	share := float64(percent) / 100
	live := float64(prev.HeapLive + mib) // rounded down by up to as much
	roots := float64(prev.Stacks.v + prev.Globals.v + 2*mib)
	goal := max(live+(live+roots)*share, 4*mib*share)
	expected := uint64(goal * 1.05) // what the estimate of GOGC may be off by
	if over := minus(c.HeapStart, expected); over >= overshootBytes && over >= expected/10 {
		o.hidden++
		if over > o.hiddenOver {
			o.worstHidden, o.expected, o.hiddenOver = *c, expected, over
		}
	}
}

// spiral looks for collections that run back to back and free next to
// nothing: the program's memory is used up, by its limit or by its GOGC, and
// the CPU goes into looking for garbage that is not there.
type spiral struct {
	ring  [spiralCycles]spiralCycle
	n     int // cycles in this run of them
	found bool
	worst spiralFigures
}

const spiralCycles = 16

type spiralCycle struct {
	at, clock, cpu time.Duration
	end, live      uint64
	procs          int
}

// spiralFigures describe spiralCycles cycles in a row.
type spiralFigures struct {
	at       time.Duration // start of the last one
	wall     time.Duration // from the first start to the last
	active   float64       // share of that time with a cycle running
	cpu      float64       // share of the CPU that went into them
	freed    float64       // share of the heap that they freed
	liveHeap uint64
}

func (s *spiral) restart() { s.n = 0 }

func (s *spiral) add(c *Cycle) {
	if c.Forced {
		s.n = 0 // somebody calls runtime.GC; that is no spiral
		return
	}
	s.ring[s.n%spiralCycles] = spiralCycle{
		at: c.At, clock: c.SweepTerm + c.Mark + c.MarkTerm, cpu: c.GCCPU(),
		end: c.HeapEnd, live: c.HeapLive, procs: c.Procs,
	}
	if s.n++; s.n < spiralCycles || c.HeapLive < smallHeap {
		return
	}
	f := spiralFigures{at: c.At, liveHeap: c.HeapLive}
	var clock, cpu, capacity, end, live float64 // seconds and bytes
	for i := range spiralCycles - 1 {           // the last one has no end yet
		this, next := s.ring[(s.n+i)%spiralCycles], s.ring[(s.n+i+1)%spiralCycles]
		between := next.at - this.at
		f.wall += between
		capacity += between.Seconds() * float64(this.procs)
		clock += this.clock.Seconds()
		cpu += this.cpu.Seconds()
		end += float64(max(this.end, this.live))
		live += float64(this.live)
	}
	if f.wall <= 0 || capacity <= 0 {
		return
	}
	f.active = min(clock/f.wall.Seconds(), 1)
	f.cpu = min(cpu/capacity, 1)
	f.freed = 1 - live/end
	if f.active >= 0.5 && f.cpu >= 0.25 && f.freed <= 0.1 && (!s.found || f.cpu > s.worst.cpu) {
		s.found, s.worst = true, f
	}
}
