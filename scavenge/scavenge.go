// SPDX-License-Identifier: Apache-2.0

// Package scavenge decides when memory should go back to the operating system, and
// gives it back.
//
//	var r scavenge.Releaser
//	plan := r.Step(&reading) // every tick: no clock, no I/O, no allocation
//	if plan.Release {
//		go func() { outcome, err := scavenge.Release(); ... }() // never in the tick
//	}
//
// # When a release pays
//
// debug.FreeOSMemory is a whole collection and then the return of every idle span.
// It takes tens to hundreds of milliseconds, and what is used again afterwards is
// faulted in again. The runtime's own scavenger and the memory limit do that work
// in the background, and do it well where they look. It pays where they do not:
//
//   - stacks after a burst, which each collection halves (runtime/stack.go,
//     shrinkstack);
//   - idle spans after a spike, which the scavenger leaves alone until the second
//     collection (runtime/mgcscavenge.go, shouldScavenge), and garbage that nothing
//     will collect while the service is idle: at once when a neighbour in the cgroup
//     needs the room;
//   - memory that grows outside the heap near the limit.
//
// For the plain garbage of a heap near the limit it does not: the collector runs all
// the time already. So the growth of a size class brings a release only away from
// the limit, and the limit by itself brings none: its ladder goes from the log
// straight to shedding load, because a collection that cannot free burns CPU only.
package scavenge

import "time"

// Grade is a rung of the ladder; each does more, and costs more, than the one below.
type Grade int

// The grades.
const (
	Observe      Grade = iota // nothing to do
	Log                       // tell somebody
	LowerPercent              // collect earlier
	FreeOSMemory              // give memory back, as often as it pays
	Shed                      // refuse load: the plan only says so
	numGrades    = iota
)

// They are the names of what is done, where it is one of the guard's actions.
var gradeNames = [numGrades]string{"observe", "log", "gc-percent", "free-os-memory", "shed"}

// String returns the name of the grade.
func (g Grade) String() string {
	if g < Observe || g > Shed {
		return "unknown grade"
	}
	return gradeNames[g]
}

// Reading is what a Releaser decides on. A block that is nil is unknown: what needs
// it holds its grade. Byte counts are bytes.
type Reading struct {
	Time   time.Time
	Heap   *Heap
	Cgroup *Cgroup // nil also where there is no limit
	Class  *Class  // the zero Class: none grows

	Releasing bool     // a release is under way, whoever started it
	Outcome   *Outcome // of a release that has ended since the last step
}

// Heap is the runtime's view, of runtime/metrics.
type Heap struct {
	Mapped     uint64 // /memory/classes/total less heap/released
	Objects    uint64 // /memory/classes/heap/objects
	Free       uint64 // /memory/classes/heap/free: idle spans, still backed
	Stacks     uint64 // /memory/classes/heap/stacks
	Goal       uint64 // /gc/heap/goal
	Allocated  uint64 // /gc/heap/allocs, since the start of the process
	Goroutines uint64 // /sched/goroutines
	Cycles     uint64 // /gc/cycles/total; the two below are not looked at before the first
	Live       uint64 // /gc/heap/live: marked by the last cycle
	StackScan  uint64 // /gc/scan/stack: in use on stacks when the last cycle scanned them
}

// Cgroup is the kernel's view of a memory cgroup with a limit.
type Cgroup struct {
	Limit uint64
	Usage uint64 // charged and not droppable: less page cache
	Own   uint64 // resident anonymous memory of the calling process
}

// Class is the growing size class with the most objects, over two cycles at least.
type Class struct {
	Size    uint64 // bytes; 0 for large objects
	Objects uint64 // outstanding, after a completed cycle
	Bytes   uint64 // that they take
}

// Plan is what should be done now.
type Plan struct {
	Grade   Grade // the highest at which a trigger stands
	Changed bool  // the grade is not that of the last step

	// Release asks for one call of Release, now, in a goroutine of its own. It is
	// true in one step for each. Where it is false at FreeOSMemory, Held says why.
	Release bool
	Held    Held

	GCPercent int // no more than that is asked for; 0 asks for nothing

	Reason Reason // zero at Observe
	Blind  bool   // something could not be seen, and holds its grade
}

// Held is why there is no release although a trigger stands that high.
type Held int

// The reasons to wait.
const (
	NotHeld   Held = iota
	Running        // one is under way
	CoolDown       // it is too soon after the last one for what that took
	BackedOff      // the last ones for this trigger did not pay
	TooMany        // as many as there may be within a minute
	NoGain         // plain garbage near the limit: it would not pay
	numHelds  = iota
)

var heldNames = [numHelds]string{"", "one is under way", "cooling down", "the last one did not pay", "too many within a minute", "near the limit it does not pay for plain garbage"}

// String returns the reason in words, empty for NotHeld.
func (h Held) String() string {
	if h < NotHeld || h > NoGain {
		return "unknown"
	}
	return heldNames[h]
}

// lowPercent is the GC percent asked for: half of the default. How low it may
// really go is the pacer's to say.
const lowPercent = 50

// Shares of the cgroup's limit. Where there are two, what begins at the first ends
// at the second.
const (
	nearEnter, nearExit = 0.85, 0.80 // near the limit: triggers that pay do not climb, they jump
	highEnter, highExit = 0.80, 0.70 // high enough for a neighbour to need what we retain
	fillLeast           = 0.50       // from here on a neighbour that grows fast enough needs it, too
)

// fillAgain is how long only what is high counts after a release for a neighbour that
// was going to fill the cgroup: one that comes and goes must not cost a collection
// each time.
const fillAgain = time.Minute

// Releaser walks the ladder. It keeps about a kilobyte, whatever happens. The
// zero Releaser is ready; it is not safe for concurrent use.
type Releaser struct {
	ClassObjects uint64 // outstanding objects of one growing class that are worth a line in the log; 0 is 500,000

	now      time.Duration // sum of the steps, so that a clock set back stops nothing
	last     time.Time
	triggers [numTriggers]standing
	books    books
	grade    Grade

	near, high    bool
	filling       bool // others will have filled the cgroup within neighbourHorizon
	nextFill      time.Duration
	alloc         meter // bytes allocated
	others        meter // usage that is not ours
	own           meter // resident anonymous bytes of ours
	outside       outside
	beyond        meter // of them, outside the runtime
	cycles        uint64
	stacksAtCycle uint64 // when the last cycle was seen
	settled       settled
}

// settled is what was live when last a cycle ran in quiet, or less if less was
// since. What a cycle has marked beyond that was in use then, amid the work.
type settled struct {
	bytes uint64
	set   bool
}

// Step takes a reading and returns what should be done now.
func (r *Releaser) Step(in *Reading) Plan {
	if dt := in.Time.Sub(r.last); dt > 0 && !r.last.IsZero() {
		r.now += dt
	}
	r.last = in.Time
	r.watch(in)
	r.books.settle(r.now, in)

	p := Plan{Blind: in.Heap == nil || in.Cgroup == nil || in.Class == nil}
	top, release := None, None
	for t := SizeClass; t < numTriggers; t++ {
		s := &r.triggers[t]
		f, ok := r.figure(t, in)
		near := r.near || t == Neighbour && r.filling
		if ok {
			s.climb(r.now, &ladders[t], f, near && ladders[t].jumps)
		}
		if best := &r.triggers[top]; s.grade > best.grade || s.grade == best.grade && s.ratio > best.ratio {
			top = t
		}
		if !ok || in.Heap == nil || s.grade != FreeOSMemory || s.ratio < ladders[t].rungs[FreeOSMemory].exit {
			continue
		}
		held := r.books.held(r.now, in, t, f.gain, r.near)
		if held == NotHeld && r.near && !ladders[t].jumps {
			held = NoGain
		}
		switch {
		case release == None, p.Held != NotHeld && held == NotHeld, p.Held == held && s.ratio > r.triggers[release].ratio:
			release, p.Held = t, held
		}
	}
	p.Grade = r.triggers[top].grade
	p.Changed, r.grade = p.Grade != r.grade, p.Grade
	if release != None && p.Held == NotHeld {
		p.Release = true
		r.books.start(r.now, release, r.triggers[release].figure.gain)
		if release == Neighbour && r.filling {
			r.nextFill = r.now + fillAgain
		}
		top = release // it is what this step is about
	}
	if p.Grade > Observe {
		p.Reason = r.reason(top, in)
	}
	if r.triggers[Limit].grade < Shed { // else collections cannot free what is missing
		for t := range r.triggers {
			if g := r.triggers[t].grade; g == LowerPercent || g == FreeOSMemory {
				p.GCPercent = lowPercent
			}
		}
	}
	return p
}

// watch brings up to date what is remembered of earlier readings.
func (r *Releaser) watch(in *Reading) {
	if h := in.Heap; h != nil {
		r.alloc.step(r.now, float64(h.Allocated))
		if !r.settled.set {
			r.settled = settled{h.Objects, true} // no less than what lives
		}
		if h.Cycles != r.cycles {
			r.cycles, r.stacksAtCycle = h.Cycles, h.Stacks
			if rate, known := r.alloc.rate(); known && !collects(h, rate, idleHorizon) || h.Live < r.settled.bytes {
				r.settled.bytes = h.Live
			}
		}
	}
	if c := in.Cgroup; c != nil && c.Limit > 0 {
		share := float64(c.Usage) / float64(c.Limit)
		r.near = share >= nearEnter || r.near && share >= nearExit
		r.high = share >= highEnter || r.high && share >= highExit
		r.own.step(r.now, float64(c.Own))
		r.others.step(r.now, float64(c.Usage-min(c.Usage, c.Own)))
		rate, known := r.others.rate()
		r.filling = known && r.now >= r.nextFill && share >= fillLeast && rate*neighbourHorizon.Seconds() >= float64(c.Limit-min(c.Limit, c.Usage))
		if in.Heap != nil {
			r.beyond.step(r.now, float64(r.outside.step(c.Own, in.Heap.Mapped)))
		}
	}
}

// outside tells how much of what is resident is not the runtime's, at the least. The
// kernel does not say whose a page is, and Go touches what it has mapped when it
// needs it, so what becomes resident is Go's as long as that has pages left to touch.
type outside struct{ own, touched uint64 }

func (o *outside) step(own, mapped uint64) (bytes uint64) {
	o.touched = min(o.touched+own-min(own, o.own), own, mapped) // no overflow: it was o.own at most
	o.own = own
	return own - o.touched
}

// Account returns what releases have cost and gained so far.
func (r *Releaser) Account() Account { return r.books.account }

// meter measures growth over the last one to two seconds.
type meter struct {
	from, mid, now point
	set            bool
}

type point struct {
	at time.Duration
	v  float64
}

const meterSpan = time.Second

func (m *meter) step(now time.Duration, v float64) {
	m.now = point{now, v}
	switch {
	case !m.set:
		m.from, m.mid, m.set = m.now, m.now, true
	case now-m.mid.at >= meterSpan:
		m.from, m.mid = m.mid, m.now
	}
}

// rate is the growth in units a second; unknown before a second was seen.
func (m *meter) rate() (perSecond float64, ok bool) {
	over := m.now.at - m.from.at
	if over < meterSpan {
		return 0, false
	}
	return (m.now.v - m.from.v) / over.Seconds(), true
}
