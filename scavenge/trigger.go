// SPDX-License-Identifier: Apache-2.0

package scavenge

import "time"

// Trigger is what made a Releaser climb.
type Trigger int

// The triggers.
const (
	None      Trigger = iota
	SizeClass         // one size class grows, and has many objects
	Neighbour         // we retain memory while others fill the cgroup
	Stacks            // stacks are far larger than what is in use on them
	Idle              // memory left over from a spike, and no collection is coming
	NonHeap           // memory outside the heap grows, near the limit
	Limit             // what no collection can free is near the limit

	numTriggers
)

var triggerNames = [numTriggers]string{"none", "size class", "neighbour", "stacks", "idle", "non-heap", "limit"}

// String returns the name of the trigger.
func (t Trigger) String() string {
	if t < None || t >= numTriggers {
		return "unknown trigger"
	}
	return triggerNames[t]
}

// figure is what a trigger measures, in bytes; objects for SizeClass.
type figure struct {
	value     uint64
	threshold uint64
	gain      uint64 // bytes that a release may gain; 0 when that is unknown
}

func (f *figure) ratio() float64 { return float64(f.value) / float64(max(f.threshold, 1)) }

// rung is where a grade is entered and left, as the ratio of the figure to its
// threshold, and how long the grade below must have lasted. A rung that is never
// entered has no enter.
type rung struct {
	enter, exit float64
	after       time.Duration
}

// ladder is the rungs of one trigger.
type ladder struct {
	rungs [numGrades]rung
	// Near the limit, or when others are about to be there, the trigger goes to
	// FreeOSMemory at once, because that pays then. One that does not jump has no release there.
	jumps bool
}

// settle is how long a grade lasts at least before a lower one: what GC percent
// follows must not flap.
const settle = 10 * time.Second

var (
	gently = [numGrades]rung{
		Log:          {1.0, 0.7, 0},
		LowerPercent: {1.25, 0.9, 2 * time.Second},
		FreeOSMemory: {1.5, 1.0, 3 * time.Second},
	}
	ladders = [numTriggers]ladder{
		SizeClass: {gently, false},
		Neighbour: {gently, true},
		Stacks:    {gently, true},
		Idle:      {gently, true},
		NonHeap:   {gently, true},
		Limit:     {[numGrades]rung{Log: {0.80, 0.75, 0}, Shed: {0.90, 0.85, 0}}, false}, // of the limit
	}
)

// standing is where a trigger stands on its ladder.
type standing struct {
	grade  Grade
	since  time.Duration
	figure figure
	ratio  float64
}

// climb moves a trigger up as far as its figure, and the time, allow, or down.
func (s *standing) climb(now time.Duration, l *ladder, f figure, jump bool) {
	s.figure, s.ratio = f, f.ratio()
	if jump && s.ratio >= l.rungs[Log].enter && s.grade < FreeOSMemory {
		s.grade, s.since = FreeOSMemory, now
		return
	}
	for g := s.grade + 1; g < numGrades; g++ {
		rung := &l.rungs[g]
		if rung.enter == 0 {
			continue
		}
		if s.ratio < rung.enter || now-s.since < rung.after {
			break
		}
		s.grade, s.since = g, now
	}
	if s.grade == Observe || s.ratio >= l.rungs[s.grade].exit || now-s.since < settle {
		return
	}
	for s.grade > Observe && (l.rungs[s.grade].enter == 0 || s.ratio < l.rungs[s.grade].exit) {
		s.grade, s.since = s.grade-1, now
	}
}

const (
	defaultClassObjects = 500_000

	// A collection is coming when the heap reaches its goal within that time at the
	// present rate. Without one garbage stays, for up to two minutes
	// (runtime/proc.go, forcegcperiod), or for ever with GOGC=off.
	idleHorizon      = time.Minute
	neighbourHorizon = 10 * time.Second // of a neighbour's growth, too: a collection and a return take their time when all CPUs are busy

	idleLeast  = 32 << 20
	idleShare  = 0.25 // of what the runtime holds
	idleExtra  = 0.10 // of the heap, which the scavenger keeps on purpose (runtime/mgcscavenge.go, retainExtraPercent)
	stackLeast = 32 << 20
	stackShare = 0.10 // of what the runtime holds

	// Near the limit less is worth the while.
	nearLeast = 8 << 20
	nearShare = 0.02 // of the limit

	othersShare = 0.05             // of the limit: others than us are in the cgroup
	ownStill    = 0.01             // of the limit a second: we do not grow
	fillHorizon = 30 * time.Second // non-heap memory would fill the rest of the limit within that

	// A goroutine's stack is halved while it uses less than a quarter of it, with 800
	// bytes for functions that do not check (runtime/stack.go, shrinkstack;
	// internal/abi/stack.go, StackNosplitBase).
	stackSlack   = 4
	stackNosplit = 800

	// /gc/heap/goal is in this region when no cycle will ever start: GOGC=off
	// without a limit.
	noGoal = 1 << 62
)

// figure measures a trigger. It is unknown where what it needs was not read.
func (r *Releaser) figure(t Trigger, in *Reading) (f figure, ok bool) {
	h, c := in.Heap, in.Cgroup
	switch t {
	case SizeClass:
		if in.Class == nil {
			return f, false
		}
		f = figure{value: in.Class.Objects, threshold: r.ClassObjects}
		if f.threshold == 0 {
			f.threshold = defaultClassObjects
		}
		return f, true
	case Stacks:
		if h == nil {
			return f, false
		}
		f.threshold = max(stackLeast, uint64(stackShare*float64(h.Mapped)))
		f.value = r.slackStacks(h)
		if r.near && c != nil {
			f.threshold = min(f.threshold, nearThreshold(c))
		}
	case Idle:
		if h == nil {
			return f, false
		}
		f.threshold = max(idleLeast, uint64(idleShare*float64(h.Mapped)))
		rate, known := r.alloc.rate()
		if !known {
			return f, false
		}
		if !collects(h, rate, idleHorizon) {
			inUse := h.Mapped - min(h.Mapped, h.Free)
			f.value = r.leftInQuiet(h)
			f.value -= min(f.value, uint64(idleExtra*float64(inUse)))
			if rate*idleHorizon.Seconds() > float64(f.value) {
				f.value = 0 // it would soon be taken again
			}
		}
	case Neighbour:
		if h == nil || c == nil {
			return f, false
		}
		f.threshold = nearThreshold(c)
		ownRate, known := r.own.rate()
		if !known {
			return f, false
		}
		others := c.Usage - min(c.Usage, c.Own)
		if (r.high || r.filling) && float64(others) >= othersShare*float64(c.Limit) && ownRate < ownStill*float64(c.Limit) {
			f.value = retained(h)
			if rate, known := r.alloc.rate(); known && !collects(h, rate, neighbourHorizon) {
				f.value = r.leftInQuiet(h)
			}
		}
	case NonHeap:
		if h == nil || c == nil {
			return f, false
		}
		f.threshold = nearThreshold(c)
		rate, known := r.beyond.rate()
		if !known {
			return f, false
		}
		if room := c.Limit - min(c.Limit, c.Usage); r.near && rate*fillHorizon.Seconds() > float64(room) && rate > 0 {
			f.value = left(h)
		}
	case Limit:
		if h == nil || c == nil || h.Cycles == 0 { // nobody knows what is garbage
			return f, false
		}
		stays := c.Usage - min(c.Usage, h.Free+garbage(h))
		return figure{value: stays, threshold: c.Limit}, true
	default:
		return f, false
	}
	f.gain = f.value
	return f, true
}

func nearThreshold(c *Cgroup) uint64 { return max(nearLeast, uint64(nearShare*float64(c.Limit))) }

// growth is how much the heap may grow before the next cycle, 0 if none will come.
func growth(h *Heap) uint64 {
	if h.Goal >= noGoal {
		return 0
	}
	return h.Goal - min(h.Goal, h.Objects)
}

// collects reports whether a cycle will start within a time, at this rate of
// allocation in bytes a second.
func collects(h *Heap, rate float64, within time.Duration) bool {
	return h.Goal < noGoal && rate*within.Seconds() >= float64(growth(h))
}

// retained is idle spans beyond what the heap will grow into.
func retained(h *Heap) uint64 { return h.Free - min(h.Free, growth(h)) }

// garbage is what may be dead, because it was allocated since the last mark.
func garbage(h *Heap) uint64 {
	if h.Cycles == 0 {
		return h.Objects
	}
	return h.Objects - min(h.Objects, h.Live)
}

// left is all that a collection and the return of idle spans may gain from a heap
// that does not grow.
func left(h *Heap) uint64 { return h.Free + garbage(h) }

// leftInQuiet is the same when the work has stopped: what was marked live amid a
// spike may be dead by now, and nothing comes to see.
func (r *Releaser) leftInQuiet(h *Heap) uint64 {
	var spike uint64
	if r.settled.set && h.Cycles > 0 {
		spike = h.Live - min(h.Live, r.settled.bytes)
	}
	return left(h) + spike
}

// slackStacks is how much of the stacks collections would give back: all beyond
// four times of what was in use at the last one. Nobody has looked at what has
// grown since: half of it is worth a try near the limit, or when no collection comes
// to look.
func (r *Releaser) slackStacks(h *Heap) uint64 {
	var slack uint64
	if h.Cycles > 0 {
		slack = h.Stacks - min(h.Stacks, stackSlack*(h.StackScan+stackNosplit*h.Goroutines))
	}
	grown := h.Stacks - min(h.Stacks, r.stacksAtCycle)
	if grown <= h.Stacks/4 {
		return slack // too little to say that the last cycle saw other stacks
	}
	slack -= min(slack, grown)
	if rate, known := r.alloc.rate(); r.near || known && !collects(h, rate, idleHorizon) {
		slack += grown / 2
	}
	return slack
}
