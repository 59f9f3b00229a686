// SPDX-License-Identifier: Apache-2.0

package exectrace

import (
	"fmt"
	"time"

	"golang.org/x/exp/trace"
)

// story turns events into a Report, one event at a time. Its clock, now, is
// the time since the first event.
//
// How a collection looks in a trace (runtime/mgc.go, gcStart to
// gcMarkTermination), with the clock figures of its gctrace line:
//
//	GCBegin
//	stop-the-world (GC sweep termination)  begin ┐ sweep termination
//	                                       end   ┘┐
//	  workers start, labelled; assists begin, end │ mark
//	stop-the-world (GC mark termination)   begin ┐┘
//	  HeapAlloc = what was found live            │ mark termination
//	GCEnd                                        ┘
//	  HeapGoal of the next cycle
//	stop-the-world                         end
//	  Ps sweep before they allocate; the background sweeper runs, yields, parks
type story struct {
	old     bool // traced by Go 1.21 or older: Event.Goroutine may be the one after a change
	events  uint64
	started bool
	first   trace.Time
	now     time.Duration
	syncs   int

	line    timeline
	curve   curve
	pauses  pauses
	unknown map[string]uint64
	rep     Report // Cycles, CPU, Peak and Assists are summed in place

	heap, goal Opt[uint64]
	procs      uint64 // GOMAXPROCS; 0 until reported
	procsSince time.Duration

	// What is under way.
	marking    bool
	sweeping   bool // from GCEnd until the background sweeper parks
	procSweeps int  // Ps in a sweep range
	scavenging bool
	stop       *Pause
	cycle      Cycle
	cycling    bool               // cycle holds one
	markBegin  Opt[time.Duration] // when cycle's sweep termination ended
	markStop   time.Duration      // when cycle's last mark-termination stop began
	markEnded  time.Duration      // when cycle's GCEnd was
	starts     []time.Duration    // of the last stormCycles cycles, a ring

	ps      []proc                 // by ProcID + 1
	assists int                    // under way
	stacks  map[trace.Stack]*payer // of this generation; a cache in front of byStack
	key     []byte                 // of a stack, to build it in
	strings map[string]string      // names of functions and files
	byStack tally[string]
	byG     tally[trace.GoID]

	// The heap's two background goroutines, NoGoroutine until met: they are
	// known by their first function once a stack of theirs is seen.
	sweeper, scavenger trace.GoID
	met                map[trace.GoID]struct{} // that it is neither, or that it is
	scavengerReady     time.Duration           // since when it waits for a P, -1 if it does not
	scavengerNear      bool                    // it sleeps or waits for a P, and so may run soon
}

// proc is what is known of a P.
type proc struct {
	since  time.Duration // when the goroutine that it runs, if any, started
	worker workerKind    // what that is labelled, notWorker mostly
	sweep  time.Duration // when its sweep range began, -1 outside of one
}

// maxSpan is longer than any trace, and short enough that no sum over procs
// or goroutines overflows.
const maxSpan = time.Duration(1) << 50 // 13 days

const (
	maxProcs = 4096
	maxMet   = 1 << 14
)

func newStory() *story {
	return &story{
		stacks:         make(map[trace.Stack]*payer),
		unknown:        make(map[string]uint64),
		strings:        make(map[string]string),
		line:           timeline{segs: []Segment{}},
		curve:          curve{points: []Point{}},
		rep:            Report{Cycles: []Cycle{}},
		met:            make(map[trace.GoID]struct{}),
		sweeper:        trace.NoGoroutine,
		scavenger:      trace.NoGoroutine,
		scavengerReady: -1,
	}
}

func (s *story) event(ev *trace.Event) error {
	t := ev.Time()
	if !s.started {
		s.started, s.first = true, t
	}
	if t > s.first {
		d := time.Duration(t - s.first)
		if uint64(d) > uint64(maxSpan) { // or so far that it overflows
			return s.leap(d)
		}
		// Traces before Go 1.22 are not strictly in order; what is late happens now.
		s.now = max(s.now, d)
	}
	s.events++

	// The details are taken out of the event one call down: their structs
	// would make this frame large, and clearing it on every event slow.
	switch ev.Kind() {
	case trace.EventStateTransition:
		if s.concerns(ev) {
			s.transition(ev)
		}
	case trace.EventRangeBegin:
		s.rangeBegin(ev)
	case trace.EventRangeActive:
		s.rangeActive(ev)
	case trace.EventRangeEnd:
		s.rangeEnd(ev)
	case trace.EventMetric:
		s.metric(ev)
	case trace.EventLabel:
		s.label(ev)
	case trace.EventSync:
		s.syncs++
		clear(s.stacks) // the handles are those of a generation
	case trace.EventStackSample, trace.EventTaskBegin, trace.EventTaskEnd,
		trace.EventRegionBegin, trace.EventRegionEnd, trace.EventLog:
	default:
		s.strange(ev)
	}
	return nil
}

func (s *story) leap(to time.Duration) error {
	if to < 0 {
		return fmt.Errorf("time leaps from %s by more than can be", s.now)
	}
	return fmt.Errorf("time leaps from %s to %s", s.now, to)
}

// strange counts events of kinds that this package does not know.
func (s *story) strange(ev *trace.Event) {
	kind := ev.Kind()
	if kind == trace.EventExperimental {
		x := ev.Experimental()
		s.note("experimental event " + x.Experiment + "/" + x.Name)
		return
	}
	s.note("event " + kind.String())
}

// note counts a name that this package does not know.
func (s *story) note(name string) {
	if _, ok := s.unknown[name]; !ok && len(s.unknown) >= maxNames {
		name = otherNames
	}
	s.unknown[name]++
}

// phase moves the timeline to the phase that holds now.
func (s *story) phase() {
	p := Idle
	switch {
	case s.marking && s.assists > 0:
		p = MarkAssist
	case s.marking:
		p = Mark
	case s.sweeping || s.procSweeps > 0:
		p = Sweep
	case s.scavenging:
		p = Scavenge
	}
	s.line.to(s.now, p, s.heap, s.goal)
}

// proc returns what is known of a P. The pointer is good until the next call.
func (s *story) proc(id trace.ProcID) *proc {
	if i := int(id) + 1; uint(i) < uint(len(s.ps)) {
		return &s.ps[i]
	}
	return s.newProc(id)
}

// newProc makes room for a P. NoProc and ids that no GOMAXPROCS allows share
// the first place.
func (s *story) newProc(id trace.ProcID) *proc {
	i := int(id) + 1
	if i < 0 || i > maxProcs {
		i = 0
	}
	for len(s.ps) <= i {
		s.ps = append(s.ps, proc{sweep: -1})
	}
	return &s.ps[i]
}

func (s *story) metric(ev *trace.Event) {
	m := ev.Metric()
	if m.Value.Kind() != trace.ValueUint64 {
		s.note("metric " + m.Name)
		return
	}
	v := m.Value.Uint64()
	switch m.Name {
	case "/memory/classes/heap/objects:bytes":
		s.heapIs(v)
	case "/gc/heap/goal:bytes":
		// 0 stands for none, runtime/traceruntime.go, HeapGoal.
		s.goal = Opt[uint64]{v, v != 0}
		s.curve.goal(s.now, s.goal)
	case "/sched/gomaxprocs:threads":
		if v > maxProcs {
			s.note("metric " + m.Name + " over 4096")
			return
		}
		s.rep.CPU.Available += time.Duration(s.procs) * (s.now - s.procsSince)
		s.procs, s.procsSince = v, s.now
	default:
		s.note("metric " + m.Name)
	}
}

func (s *story) heapIs(v uint64) {
	if s.stop != nil && s.stop.Reason == markTermination && s.cycling && s.marking {
		// The last report in this stop is what was found live; the one
		// before it is what the heap had come to.
		if s.cycle.Marked.ok {
			s.cycle.HeapEnd = s.cycle.Marked
		}
		s.cycle.Marked = Some(v)
	}
	s.heap = Some(v)
	s.curve.heap(s.now, v)
}

// label makes a running goroutine a mark worker, right after it started
// (runtime/traceruntime.go, GoStart).
func (s *story) label(ev *trace.Event) {
	l := ev.Label()
	p := s.proc(ev.Proc())
	switch l.Label {
	case "GC (dedicated)":
		p.worker = dedicated
	case "GC (fractional)":
		p.worker = fractional
	case "GC (idle)":
		p.worker = idleWorker
	default:
		s.note("label " + l.Label)
	}
}

// workerKind is who spends CPU time on marking.
type workerKind uint8

const (
	notWorker workerKind = iota
	dedicated
	fractional
	idleWorker
	assisting
)

// charge adds marking time to the cycle and the total.
func (s *story) charge(k workerKind, d time.Duration) {
	for _, w := range []*Workers{&s.cycle.Workers, &s.rep.CPU.Workers} {
		switch k {
		case dedicated:
			w.Dedicated += d
		case fractional:
			w.Fractional += d
		case idleWorker:
			w.Idle += d
		case assisting:
			w.Assist += d
		}
	}
}

// concerns is false for most changes of state: those of goroutines that do
// nothing for the collector. Taking the details out of an event costs as much
// as half of reading it, and what is known without them is enough:
//
// A P that runs nothing is in the context of an event that starts a goroutine
// there, but not of any that this goroutine then makes. So the last event
// without a goroutine is the start of the one that is running.
func (s *story) concerns(ev *trace.Event) bool {
	g := ev.Goroutine()
	switch {
	case s.old:
		return true
	case g == trace.NoGoroutine:
		id := ev.Proc()
		s.proc(id).starts(s.now)
		// The scavenger is woken by a thread without a P (runtime/proc.go,
		// sysmon) or, when it sleeps, by whatever P sees to the timer.
		return id == trace.NoProc || s.scavengerNear || s.early()
	case g == s.sweeper, g == s.scavenger, s.proc(ev.Proc()).worker != notWorker:
		return true
	}
	if s.assists > 0 && s.byG.active(g) != nil || s.early() {
		return true
	}
	if !s.strangers() {
		return false
	}
	_, met := s.met[g]
	return !met
}

// early is while the states that goroutines were in when the trace began come
// in, as they first do something.
func (s *story) early() bool { return s.events < 1<<14 && s.strangers() }

// strangers reports whether one of the two helpers is yet to be met.
func (s *story) strangers() bool {
	return s.sweeper == trace.NoGoroutine || s.scavenger == trace.NoGoroutine
}

func (s *story) transition(ev *trace.Event) {
	st := ev.StateTransition()
	if st.Resource.Kind != trace.ResourceGoroutine {
		return
	}
	g := st.Resource.Goroutine()
	from, to := st.Goroutine()
	if from == to {
		return // a status at the start of a generation
	}
	if from == trace.GoUndetermined && st.Stack != trace.NoStack {
		s.meet(g, to, st.Stack)
	}
	if from == trace.GoRunning {
		s.leaves(s.proc(ev.Proc()), g, to, &st)
	}
	if to == trace.GoRunning {
		s.proc(ev.Proc()).starts(s.now)
	}
	if g == s.scavenger {
		s.scavenges(from, to, st.Reason)
	}
}

// starts is an event after which some goroutine may run.
func (p *proc) starts(now time.Duration) { p.since, p.worker = now, notWorker }

// leaves takes a goroutine off its P and charges the time that it held it.
func (s *story) leaves(p *proc, g trace.GoID, to trace.GoState, st *trace.StateTransition) {
	d := s.now - p.since
	if p.worker != notWorker {
		s.charge(p.worker, d)
	} else if s.assists > 0 {
		if a := s.byG.active(g); a != nil {
			s.spend(a, p)
			a.off = true
		}
	}
	p.starts(s.now)
	if to == trace.GoWaiting {
		s.parks(g, to, st)
	}
	switch g {
	case s.sweeper:
		s.rep.CPU.Sweeper += d
	case s.scavenger:
		s.rep.CPU.Scavenger += d
	}
}

// parks looks whether it is one of the two helpers that parks, and which. The
// reason is one of traceBlockReasonStrings in runtime/traceruntime.go; traces
// before Go 1.22 give none.
func (s *story) parks(g trace.GoID, to trace.GoState, st *trace.StateTransition) {
	switch st.Reason {
	case "GC background sweeper wait":
		s.sweeper = g
	default:
		if s.strangers() && st.Stack != trace.NoStack {
			s.meet(g, to, st.Stack)
		}
	}
	if g == s.sweeper {
		s.sweptOut() // it parks only with nothing left to sweep: runtime/mgcsweep.go, bgsweep
	}
}

// meet looks whether a goroutine is one of the two helpers.
func (s *story) meet(g trace.GoID, state trace.GoState, stack trace.Stack) {
	if len(s.met) >= maxMet {
		clear(s.met)
	}
	s.met[g] = struct{}{}
	switch root(stack) {
	case "runtime.bgsweep":
		s.sweeper = g
		if state != trace.GoWaiting {
			s.sweeping = true
			s.phase()
		}
	case "runtime.bgscavenge":
		s.scavenger = g
	}
}

// scavenges follows the scheduling of the background scavenger.
func (s *story) scavenges(from, to trace.GoState, reason string) {
	if from == trace.GoRunnable && s.scavengerReady >= 0 {
		s.rep.ScavengerWait += s.now - s.scavengerReady
	}
	s.scavengerReady = -1
	if to == trace.GoRunnable {
		s.scavengerReady = s.now
	}
	s.scavengerNear = to == trace.GoRunnable || to == trace.GoWaiting && reason == "sleep"
	s.scavenging = to == trace.GoRunning
	s.phase()
}

// report ends the story.
func (s *story) report() *Report {
	for _, p := range s.ps {
		if p.sweep >= 0 {
			s.rep.CPU.Sweeping += s.now - p.sweep
		}
		if p.worker != notWorker {
			s.charge(p.worker, s.now-p.since)
		}
	}
	for g, a := range s.byG.payers {
		if a.busy > 0 && !a.off {
			s.spend(a, s.proc(a.proc))
		}
		s.assistEnd(g)
	}
	if s.stop != nil {
		s.pauses.reason(s.stop.Reason).Cut++
	}
	s.closeCycle(false)
	s.line.close(s.now)
	r := &s.rep
	r.Events, r.Span = s.events, s.now
	r.CPU.Available += time.Duration(s.procs) * (s.now - s.procsSince)
	r.Procs = Opt[uint64]{s.procs, s.procs != 0}
	r.Phases, r.Timeline, r.Transitions = s.line.totals, s.line.segs, s.line.transitions()
	r.Heap = Curve{s.curve.width, s.curve.points}
	r.Pauses, r.Reasons = s.pauses.lists()
	r.PausesDropped = s.pauses.dropped
	r.Assists.Goroutines, r.Assists.Stacks = s.byG.top(), s.byStack.top()
	r.Unknown = s.unknown
	r.Findings = r.findings()
	r.Verdict = r.verdict()
	return r
}
