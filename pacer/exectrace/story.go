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
	available  time.Duration // GOMAXPROCS over time, up to procsSince

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
	yield              trace.Stack             // of the sweeper, where it yields, in this generation
	met                map[trace.GoID]struct{} // that it is neither, or that it is
	scavengerReady     time.Duration           // since when it waits for a P, -1 if it does not
	scavengerNear      bool                    // it sleeps or waits for a P, and so may run soon
}

// maxSpan is longer than any trace, and short enough that no sum over procs
// or goroutines overflows.
const maxSpan = time.Duration(1) << 50 // 13 days

func newStory() *story {
	return &story{
		stacks:         make(map[trace.Stack]*payer),
		unknown:        make(map[string]uint64),
		strings:        make(map[string]string),
		line:           timeline{segs: make([]Segment, 0, maxSegments/4)}, // growing them from nothing shows
		curve:          curve{points: make([]Point, 0, maxPoints/4)},
		rep:            Report{Cycles: []Cycle{}},
		met:            make(map[trace.GoID]struct{}),
		sweeper:        trace.NoGoroutine,
		scavenger:      trace.NoGoroutine,
		scavengerReady: -1,
	}
}

func (s *story) event(ev trace.Event) error {
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

	// Every getter copies the event, twice from behind a pointer; so events
	// come by value, and their details are taken only where needed.
	switch ev.Kind() {
	case trace.EventStateTransition:
		if p := ev.Proc(); s.concerns(&ev, ev.Goroutine(), p) {
			s.transition(ev.StateTransition(), p)
		}
	case trace.EventRangeBegin:
		s.rangeBegin(ev.Range(), &ev)
	case trace.EventRangeActive:
		s.rangeActive(&ev)
	case trace.EventRangeEnd:
		s.rangeEnd(ev.Range(), &ev)
	case trace.EventMetric:
		s.metric(ev.Metric())
	case trace.EventLabel:
		s.label(&ev)
	case trace.EventSync:
		s.syncs++
		clear(s.stacks) // the handles are those of a generation
		s.yield = trace.NoStack
	case trace.EventStackSample, trace.EventTaskBegin, trace.EventTaskEnd,
		trace.EventRegionBegin, trace.EventRegionEnd, trace.EventLog:
	default:
		s.strange(&ev)
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

func (s *story) metric(m trace.Metric) {
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
		s.available += time.Duration(s.procs) * (s.now - s.procsSince)
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
	for _, a := range s.byG.payers {
		if a.busy == 0 {
			continue
		}
		if !a.off {
			s.spend(a, s.proc(a.proc))
		}
		s.assistEnd(a)
	}
	if s.stop != nil {
		s.pauses.reason(s.stop.Reason).Cut++
	}
	s.closeCycle(false)
	s.line.close(s.now)
	r := &s.rep
	r.Events, r.Span = s.events, s.now
	s.available += time.Duration(s.procs) * (s.now - s.procsSince)
	r.CPU.Available = Opt[time.Duration]{s.available, s.procs != 0}
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
