// SPDX-License-Identifier: Apache-2.0

package exectrace

import (
	"strings"
	"time"

	"golang.org/x/exp/trace"
)

// Names of ranges, as trace.Event.Range gives them.
const (
	rangeMark   = "GC concurrent mark phase"
	rangeAssist = "GC mark assist"
	rangeSweep  = "GC incremental sweep"
	rangeStop   = "stop-the-world (" // REASON)

	sweepTermination = "GC sweep termination"
	markTermination  = "GC mark termination"
)

func stopReason(name string) (reason string, ok bool) {
	rest, ok := strings.CutPrefix(name, rangeStop)
	if !ok {
		return "", false
	}
	return strings.TrimSuffix(rest, ")"), true
}

func (s *story) rangeBegin(r trace.Range, ev *trace.Event) {
	switch r.Name {
	case rangeAssist:
		g := r.Scope.Goroutine()
		s.assistBegin(g, ev.Proc(), ev.Stack(), s.now)
	case rangeSweep:
		s.procSweep(r.Scope.Proc())
	case rangeMark:
		s.closeCycle(s.sweeping)
		s.openCycle()
		s.cycle.Start = Some(s.now)
		s.cycle.Goal = s.goal
		s.cycle.HeapStart = s.heap
		s.cycle.Trigger, s.cycle.By = s.trigger(ev.Stack())
		s.rate()
	default:
		reason, ok := stopReason(r.Name)
		if !ok {
			s.note("range " + r.Name)
			return
		}
		if s.stop != nil { // its end was not in the trace
			s.pauses.reason(s.stop.Reason).Cut++
		}
		s.stop = &Pause{Start: s.now, Reason: s.intern(reason), Goroutine: int64(ev.Goroutine())}
		if reason == markTermination && s.marking {
			s.markStop = s.now
			// Until this stop ends a cycle, its heap is what it is now.
			s.cycle.HeapEnd, s.cycle.Marked = s.heap, Opt[uint64]{}
		}
	}
}

// rangeActive is a range that was under way when a generation began. Only in
// the first is that news, and then it means: ever since the trace began.
func (s *story) rangeActive(ev *trace.Event) {
	r := ev.Range()
	switch r.Name {
	case rangeMark:
		if !s.marking && s.syncs <= 1 && !s.cycling {
			s.line.relabel(Mark)
			s.openCycle()
		}
	case rangeAssist:
		g := r.Scope.Goroutine()
		begin := s.now
		if s.syncs <= 1 {
			begin = 0
		}
		if a := s.assistBegin(g, trace.NoProc, trace.NoStack, begin); a != nil {
			a.off = true // whether it runs, its next event tells
		}
	case rangeSweep:
		s.procSweep(r.Scope.Proc())
	default:
		s.note("range " + r.Name + ", active")
	}
}

func (s *story) rangeEnd(r trace.Range, ev *trace.Event) {
	switch r.Name {
	case rangeAssist:
		if a := s.byG.active(r.Scope.Goroutine()); a != nil {
			s.spend(a, s.proc(ev.Proc()))
			s.assistEnd(a)
		}
		s.phase()
	case rangeSweep:
		p := s.proc(r.Scope.Proc())
		if p.sweep < 0 {
			return
		}
		s.rep.CPU.Sweeping += s.now - p.sweep
		p.sweep = -1
		s.procSweeps--
		s.phase()
	case rangeMark:
		s.markEnd()
	default:
		if reason, ok := stopReason(r.Name); ok {
			s.stopEnd(reason)
		} else {
			s.note("range " + r.Name)
		}
	}
}

func (s *story) procSweep(id trace.ProcID) {
	if p := s.proc(id); p.sweep < 0 {
		p.sweep = s.now
		s.procSweeps++
		s.phase()
	}
}

func (s *story) openCycle() {
	s.rep.CycleCount++
	s.cycle = Cycle{N: int(s.rep.CycleCount), Trigger: "unknown"}
	s.cycling, s.marking, s.sweeping = true, true, false
	s.markBegin = Opt[time.Duration]{}
	s.phase()
}

// closeCycle files the current cycle when the next begins, or the trace ends.
func (s *story) closeCycle(cut bool) {
	if !s.cycling {
		return
	}
	c := &s.cycle
	s.cycling = false
	c.SweepCut = cut
	p := &s.rep.Peak
	p.Mark.raise(c.Mark)
	p.SweepTermination.raise(c.SweepTermination)
	p.MarkTermination.raise(c.MarkStop)
	if c.MarkStop.v > slowStop {
		p.SlowMark++
	}
	if c.SweepTermination.v > slowStop {
		p.SlowSweep++
	}
	if c.SweepCut {
		p.SweepsCut++
	}
	if over, ok := c.Overshoot(); ok {
		if !p.Overshoot.ok || over > p.Overshoot.v {
			p.Overshoot, p.OvershootCycle = Some(over), c.N
		}
		if over > overshootOver && c.HeapEnd.v > c.Goal.v+overshootMin {
			p.Overshoots++
		}
	}
	if len(s.rep.Cycles) < maxCycles {
		s.rep.Cycles = append(s.rep.Cycles, *c)
	} else {
		s.rep.CyclesDropped++
	}
}

// rate keeps the highest rate of cycles over stormCycles in a row.
func (s *story) rate() {
	if len(s.starts) == stormCycles {
		if d := s.now - s.starts[0]; d > 0 {
			s.rep.Peak.CyclesPerSecond.raise(Some(stormCycles / d.Seconds()))
		}
		s.starts = append(s.starts[:0], s.starts[1:]...)
	}
	s.starts = append(s.starts, s.now)
}

func (s *story) markEnd() {
	if !s.marking {
		return
	}
	s.marking, s.sweeping = false, true
	s.cycle.End = Some(s.now)
	s.markEnded = s.now
	if s.stop != nil && s.stop.Reason == markTermination {
		s.cycle.MarkTermination = Some(s.now - s.markStop)
		if sw, ok := s.markBegin.Value(); ok {
			s.cycle.Mark = Some(s.markStop - sw)
		}
	}
	s.phase()
}

func (s *story) stopEnd(reason string) {
	if s.stop == nil || s.stop.Reason != reason {
		return // it began before the trace did
	}
	stop := *s.stop
	s.stop = nil
	stop.Length = s.now - stop.Start
	s.pauses.add(stop)
	switch reason {
	case sweepTermination:
		s.rep.CPU.Stopped += stop.Length
		if s.marking {
			s.cycle.SweepTermination = Some(stop.Length)
			s.markBegin = Some(s.now)
		}
	case markTermination:
		s.rep.CPU.Stopped += stop.Length
		if s.marking { // called off: marking goes on
			s.cycle.Restarts++
			s.cycle.HeapEnd, s.cycle.Marked = Opt[uint64]{}, Opt[uint64]{}
		} else if s.cycling {
			s.cycle.MarkStop = Some(stop.Length)
		}
	}
}

// sweptOut is the background sweeper parking: nothing is left to sweep.
func (s *story) sweptOut() {
	if !s.sweeping {
		return
	}
	s.sweeping = false
	if s.cycling {
		s.cycle.Sweep = Some(s.now - s.markEnded)
	}
	s.phase()
}

// trigger says why a cycle began, from the stack of GCBegin. gcStart has three
// kinds of callers: runtime.GC, the goroutine of the two-minute cycle, and
// every way to allocate.
func (s *story) trigger(stack trace.Stack) (why, by string) {
	fs := s.frames(stack)
	if len(fs) == 0 {
		return "unknown", ""
	}
	for _, f := range fs {
		switch f.Func {
		case "runtime.GC":
			return "forced", outside(fs)
		case "runtime.forcegchelper":
			return "periodic", ""
		}
	}
	return "heap", outside(fs)
}
