// SPDX-License-Identifier: Apache-2.0

package leak

import "time"

// QueueKind is finalizers or cleanups.
type QueueKind string

// The runtime's queues of functions that follow a collection. One goroutine runs
// all finalizers of a process, one after the other, and waits for each; cleanups
// (runtime.AddCleanup) have a few goroutines since Go 1.25 and shared that one
// before.
const (
	Finalizers QueueKind = "finalizer"
	Cleanups   QueueKind = "cleanup"
)

// QueueReading is one look at a queue.
type QueueReading struct {
	Time time.Time
	// Queued and Executed are /gc/finalizers/{queued,executed} or those of
	// cleanups, since the process started, if Counted (Go 1.26). Executed moves
	// by whole blocks, of up to 101 finalizers or 20 cleanups.
	Queued, Executed uint64
	Counted          bool
	// Cycles are the completed collections, Probes how often the sentinel's
	// finalizer has run. A queue without a sentinel has Probed false.
	Cycles, Probes uint64
	Probed         bool
	// Running is what the queue's goroutines were seen to run, nil if nobody has
	// looked since the last reading.
	Running *Running
}

// Running is what a queue's goroutines are running.
type Running struct {
	Time  time.Time
	Count int   // goroutines in a function of the program; 0 is none
	Func  Frame // the finalizer or cleanup itself
	Where Frame // the innermost frame of the program's own code: the line that blocks
	State State
	// Print is a fingerprint of the stacks. With Args the arguments of every call
	// are in it: it may change with the object that is finalized. It need not,
	// since the compiler drops an argument that is not used again.
	Print uint64
	Args  bool
}

// QueueState says how a queue does.
type QueueState string

// The states of a queue.
const (
	Flowing QueueState = "flowing"
	Slow    QueueState = "slow"    // behind, but it gets on
	Stalled QueueState = "stalled" // one function does not return
)

// QueueVerdict is what a Queue says.
type QueueVerdict struct {
	Kind  QueueKind     `json:"kind"`
	State QueueState    `json:"state"`
	For   time.Duration `json:"for_ns"` // since the last progress if stalled, since it is behind if slow
	// Behind are the functions that wait, with the one that is run: unknown before
	// Go 1.26.
	Behind Figure `json:"behind"`
	// PerSecond is how many were executed since the queue is behind, counted in
	// whole blocks: unknown before the first is through.
	PerSecond Figure `json:"per_second"`
	// Func and Where are what is being run, empty if unknown.
	Func  Frame `json:"func"`
	Where Frame `json:"where"`
	Doing State `json:"doing,omitempty"`
}

// The times of a Queue.
const (
	// lookAfter is how long a queue must not move until somebody looks what it
	// runs: short of a tick, since timers are not exact.
	lookAfter = 900 * time.Millisecond
	// stallAfter is how long a stack must not change. With looks at the second
	// and third tick a stall is told within 3 s.
	stallAfter = 900 * time.Millisecond
	// Who sleeps, computes or talks to a peer will probably come back: more
	// patience.
	stallAfterUnsure = 10 * time.Second
	slowAfter        = 5 * time.Second
)

// Queue watches one queue. The zero Queue is ready but for its Kind. A step takes
// a reading and keeps a few words; it has no effect and allocates nothing. After
// a look, the same reading with its Running is stepped once more.
type Queue struct {
	Kind QueueKind

	last     QueueReading
	started  bool
	behind   time.Time // since when functions wait; zero if none do
	executed uint64    // then
	moved    time.Time // the last progress
	armed    uint64    // cycles when the sentinel had run last, as seen

	run      Running   // the last look
	held     time.Time // since when the looks have been the same
	patience time.Duration
	stalled  bool
	changed  bool      // something has moved while behind
	looks    int       // since the last progress
	lookAt   time.Time // the next one
}

// Step takes the next reading. look asks for a Running with the next one: it is
// true only while something is wrong.
func (q *Queue) Step(r *QueueReading) (v QueueVerdict, look bool) {
	v = QueueVerdict{Kind: q.Kind, State: Flowing}
	first := !q.started
	progress := first || r.Executed != q.last.Executed || r.Probes != q.last.Probes
	if r.Probes != q.last.Probes || first {
		q.armed = r.Cycles
	}
	q.started = true
	q.last = *r
	q.last.Running = nil

	waiting := r.Counted && r.Queued > r.Executed
	if r.Counted {
		v.Behind = known(float64(r.Queued - min(r.Queued, r.Executed))) // they are read one after the other
	}
	// Armed before a collection began that has ended: queued by now.
	overdue := r.Probed && r.Cycles >= q.armed+2
	if !waiting && !overdue {
		q.wasWrong(r.Time)
		*q = Queue{Kind: q.Kind, last: q.last, started: true, armed: q.armed, patience: q.patience}
		return v, false
	}
	if q.behind.IsZero() {
		q.behind, q.executed, q.moved = r.Time, r.Executed, r.Time
		return v, false
	}
	if progress {
		q.wasWrong(r.Time)
		q.moved, q.held, q.run, q.looks = r.Time, time.Time{}, Running{}, 0
		q.changed = q.changed || r.Executed != q.executed
	}
	q.look(r.Running)

	v.Func, v.Where, v.Doing = q.run.Func, q.run.Where, q.run.State
	if over := r.Time.Sub(q.behind).Seconds(); over > 0 && r.Executed > q.executed {
		v.PerSecond = known(float64(r.Executed-q.executed) / over)
	}
	still := r.Time.Sub(q.moved)
	switch {
	case q.run.Count > 0 && still >= lookAfter && q.run.Time.Sub(q.held) >= q.stallAfter():
		q.stalled = true
		v.State, v.For = Stalled, still
	case r.Time.Sub(q.behind) >= slowAfter && v.lasts(slowAfter) && (q.changed || q.run.Count > 0):
		v.State, v.For = Slow, r.Time.Sub(q.behind)
	}
	// The look that decides is not put off, unless the queue is known to get on.
	decides := !q.changed && !q.held.IsZero() && v.State != Stalled && r.Time.Sub(q.held) >= q.stallAfter() && r.Time.After(q.run.Time)
	if r.Running == nil && still >= lookAfter && (q.looks == 0 || decides || !r.Time.Before(q.lookAt)) {
		// Two looks a tick apart, then at twice the interval each time.
		q.lookAt = r.Time.Add(lookAfter << min(max(q.looks-1, 0), 5))
		q.looks++
		return v, true
	}
	return v, false
}

// lasts says that what waits will not be through in so short a time, at the rate
// seen.
func (v *QueueVerdict) lasts(d time.Duration) bool {
	behind, ok1 := v.Behind.Get()
	rate, ok2 := v.PerSecond.Get()
	return !ok1 || !ok2 || behind >= rate*d.Seconds()
}

// look compares what is run with what was run at the last look.
func (q *Queue) look(run *Running) {
	switch {
	case run == nil:
	case run.Count == 0: // nothing of the program's: between two functions, or not yet begun
		q.run, q.held = Running{}, time.Time{}
	case run.Print != q.run.Print || q.held.IsZero():
		if !q.held.IsZero() && run.Args == q.run.Args {
			q.wasWrong(run.Time)
			q.changed, q.moved = true, run.Time // another object, or another line of it
		}
		q.run, q.held = *run, run.Time
	default:
		q.run = *run
	}
}

// wasWrong learns from a stall that has ended: whoever is that slow is not called
// stalled so soon again.
func (q *Queue) wasWrong(now time.Time) {
	if q.stalled {
		q.stalled = false
		q.patience = min(max(q.patience, 2*now.Sub(q.held)), 5*time.Minute)
	}
}

// stallAfter is how long the stack that was seen must not change.
func (q *Queue) stallAfter() time.Duration {
	d := stallAfter
	if !q.run.State.class().blocked() {
		d = stallAfterUnsure
	}
	return max(d, q.patience)
}
