// SPDX-License-Identifier: Apache-2.0

// Package pacer decides how hard the Go collector works in a process that lives
// under a kernel's memory limit: its memory limit (GOMEMLIMIT) and its GC percent
// (GOGC).
//
// A [Governor] is a pure step: a [Reading] goes in, a [Decision] comes out. An
// [Applier] carries decisions out and undoes them.
//
//	g.Baseline = applier.Baseline()
//	d := g.Step(&reading)
//	applier.Apply(d.Setting)
//
// # The memory limit
//
// The kernel counts everything that is charged to the cgroup; the Go memory limit
// bounds what the Go runtime has mapped and not given back. So at each step
//
//	end   = Mapped + Limit - Usage - Swapped        where the kernel kills, in Go's terms
//	limit = end - margin - overshoot
//
// which follows C memory, files, neighbours, a resized cgroup, and a ballast that
// was never faulted in, by itself. What of the heap is swapped out comes back when it is
// marked: it is no room to grow into.
//
// The margin covers what arrives within one reaction, three ticks at the present
// growth of Usage: at least 4 % of Limit, at most 12 %. Where it is heap that grows
// the memory limit leaves half of that: however fast a heap fills, it stops at its
// goal. Stacks and what is not Go's do not.
//
// Nor does the heap always: the Go memory limit is soft. When the collector has taken
// half of the CPU for about a second, the runtime stops making allocating goroutines
// help it (gcCPULimiter in runtime/mgclimit.go, gcAssistAlloc in mgcmark.go), and the
// heap runs past any goal by what is allocated while one cycle marks. How far was
// seen is subtracted, and nothing in advance: each byte less makes the collector
// work more, and would bring about what it is meant for.
//
// And a limit cannot free what lives. A collection whose goal is what must stay
// gains nothing and runs again at once, until the runtime gives up helping. So
// margin and overshoot together never take more than two thirds of the room
// between what must stay and the end. When that room is small only work that waits
// helps: no setting of the two keeps a process alive that allocates faster than it
// can be marked. Whoever makes work wait should begin within the margin
// ([Decision.Margin]), above the memory limit: up to there the runtime collects and
// gives back by itself what lets the work go on.
package pacer

import (
	"math"
	"time"
)

// Unlimited is the Limit of a Reading where the kernel has none.
const Unlimited = math.MaxUint64

// Reading is one instant of a process and its cgroup. Sizes are bytes. All of it
// must be known: who does not know a figure keeps the last decision.
type Reading struct {
	Time  time.Time
	Limit uint64 // at which the kernel kills or throttles, or Unlimited
	Usage uint64 // charged against it, less page cache that can be dropped

	Mapped    uint64 // what the Go memory limit bounds: /memory/classes/total less heap/released
	Live      uint64 // marked by the last cycle (/gc/heap/live); 0 before the first
	Objects   uint64 // live objects and garbage (/memory/classes/heap/objects)
	Unused    uint64 // room in spans in use that holds no object (heap/unused)
	Free      uint64 // idle spans that are not given back (heap/free)
	Stacks    uint64 // of goroutines and threads
	Metadata  uint64 // of the runtime
	Untouched uint64 // part of Mapped that was never faulted in, so that the kernel does not count it; 0 if unknown
	Swapped   uint64 // part of Mapped that is swapped out, so that Usage is without it; 0 if unknown
	Goal      uint64 // heap goal (/gc/heap/goal)

	Cycles    uint64 // completed since start
	Allocated uint64 // since start (/gc/heap/allocs)

	// Cpu-seconds since start, of the collector (without what it took from idle
	// processors) and all that GOMAXPROCS allowed. They move at the end of a cycle
	// only (/cpu/classes in runtime/metrics, mgc.go).
	GCCPU, CPU float64

	State State // of the breaker; Closed without one
}

// Must is what no collection frees of Go's memory, as far as the kernel counts it:
// what the last cycle marked, span waste, stacks and metadata.
func (r *Reading) Must() uint64 {
	must := r.Live + r.Unused + r.Stacks + r.Metadata
	return must - min(must, r.Untouched)
}

// Decision is what a [Governor] wants to be set, and why.
type Decision struct {
	Setting
	LimitReason string // why this memory limit

	Proposed int    // GC percent that the table proposed; without one the baseline
	Clamped  bool   // it was not given
	Reason   string // why this GC percent; in a spiral what it is about

	Margin  uint64  // bytes left free below the kernel's limit for what arrives before the next steps
	Over    uint64  // bytes that the heap is expected to run past the memory limit
	GCShare float64 // of the CPU that the collector takes, 0 to 1, averaged over a few seconds
	Room    uint64  // bytes between what no collection frees and the end; 0 without a limit of the kernel

	// Spiral says that collecting harder helps no longer: the collector takes more
	// than its budget and gains little, for what must stay is near the end. It
	// stands until that has been over for two seconds.
	Spiral bool
}

// OnSpiral says what is to be done when collecting helps no longer.
type OnSpiral uint8

// What can be done in a spiral. The collector is given more room in each case: as
// long as collections are ineffective the memory limit backs off towards the end.
const (
	Shed OnSpiral = iota // make work wait or refuse it, if there is somebody who can
	Rise                 // let the heap have all of the room, and what the baseline forbids too
	Exit                 // save evidence and exit: who runs the Governor does so
)

// Governor is the controller. The zero Governor works; its fields may be changed
// between steps. It has no clock, does no I/O and allocates nothing. It takes what
// it decided as set: in a dry run it learns an overshoot that is none of its own.
//
// The baseline is what the user wants: its GC percent holds where the table
// proposes nothing, GOGC=off included (the memory limit makes that safe), and its
// memory limit is not exceeded. What a user means by that is memory in use, so
// that bytes never faulted in are allowed on top of it: an untouched ballast does
// not make the collector work. Without a limit of the kernel the memory limit
// stays the baseline.
type Governor struct {
	Baseline Setting
	Table    *Table   // couples the GC percent to a breaker; nil does not
	Budget   float64  // share of the CPU that the collector may take, in (0,1); 0 is a quarter
	OnSpiral OnSpiral // the zero value sheds

	started bool
	last    Decision
	prev    Reading
	arrives float64 // bytes in one reaction, a decaying maximum
	others  float64 // of them, those that are no heap
	over    float64 // bytes past the memory limit, a decaying maximum
	bars    [2]float64
	lives   lives
	meter   meter
	spiral  spiral
	higher  rise
	rose    time.Time // when the memory limit last went up without waiting ...
	fell    bool      // ... and whether it has come down since
	clamp   string    // why the last GC percent is not what was proposed; empty if it is
}

// Reasons, as a person reads them.
const (
	asBaseline      = "as it was found"
	noKernelLimit   = "the cgroup has no limit"
	whatIsLeft      = "what the cgroup leaves"
	overTheLimit    = "more than the limit is in use: no less than what must stay"
	partOfRoom      = "a third of the room that the live heap leaves"
	hardEdge        = "collections gain little: all of the room"
	userBound       = "the limit that was set before"
	userAndBallast  = "the limit that was set before, and on top of it what was never touched"
	cannotBeRead    = "the reading cannot be true: as before"
	byTable         = "the breaker's state"
	heapWouldNotFit = "the heap would not fit under the limit"
	overBudget      = "the collector would take more CPU than its budget"
	deathSpiral     = "gc-death-spiral: the collector takes more than its budget and gains little, what lives is near the limit"
)

// Step decides. Readings should come in the order of their times, at most about a
// second apart; one that is no news, or cannot be true, leaves the last decision.
func (g *Governor) Step(r *Reading) Decision {
	if !g.started {
		g.last = Decision{Setting: g.Baseline, Proposed: g.Baseline.GCPercent, Reason: asBaseline, LimitReason: asBaseline}
	}
	if !r.plausible() {
		d := g.last
		d.LimitReason = cannotBeRead
		return d
	}
	dt := r.Time.Sub(g.prev.Time)
	if g.started && dt <= 0 {
		if dt > -tickMost {
			return g.last // read twice
		}
		// The clock was set back: learn rates anew, keep what is known of the heap.
		g.prev.Time, g.higher, g.rose, dt = r.Time, rise{}, time.Time{}, tickLeast
	}
	if !g.started || dt > time.Minute { // suspended, or the guard was blind for long
		g.prev, g.arrives, g.others, dt = *r, 0, 0, tickMost
		g.higher = rise{}
	}
	g.lives.step(r)
	g.meter.step(r, dt.Seconds())
	g.learn(r, dt.Seconds())

	d := Decision{GCShare: g.meter.share()}
	want := g.limit(r, &d)
	g.percent(r, want, &d)
	g.clamp = ""
	if d.Clamped {
		g.clamp = d.Reason
	}
	d.MemoryLimit = g.settle(r, want, &d)
	if d.Spiral {
		d.Reason = deathSpiral
	}
	if r.Cycles != g.prev.Cycles || float64(d.MemoryLimit) > g.bars[0] {
		g.raiseBar(r.Cycles != g.prev.Cycles, float64(d.MemoryLimit))
	}
	g.started, g.last, g.prev = true, d, *r
	return d
}

// plausible reports whether a reading can be decided on.
func (r *Reading) plausible() bool {
	const most = 1 << 60 // an EiB: no machine has it, and sums do not overflow
	sizes := [...]uint64{r.Usage, r.Mapped, r.Live, r.Objects, r.Unused, r.Free, r.Stacks, r.Metadata, r.Untouched, r.Swapped}
	for _, n := range sizes {
		if n > most {
			return false
		}
	}
	return r.Limit > 0 && (r.Limit <= most || r.Limit == Unlimited) && r.Mapped > 0 && r.Usage > 0 &&
		r.Untouched+r.Swapped <= r.Mapped && r.GCCPU >= 0 && r.CPU >= 0 && !r.Time.IsZero() // NaN is not >= 0
}

func (g *Governor) budget() float64 {
	if g.Budget > 0 && g.Budget < 1 {
		return g.Budget
	}
	return 0.25
}
