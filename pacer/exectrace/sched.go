// SPDX-License-Identifier: Apache-2.0

package exectrace

import (
	"time"

	"golang.org/x/exp/trace"
)

const (
	maxProcs = 4096
	maxMet   = 1 << 14
)

// proc is what is known of a P.
type proc struct {
	since  time.Duration // when the goroutine that it runs, if any, started
	worker workerKind    // what that is labelled, notWorker mostly
	sweep  time.Duration // when its sweep range began, -1 outside of one
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
//
// The states that goroutines were in when a generation began have a stack, to
// meet them by, only if the tracer wrote them, outside of any P
// (runtime/trace.go, traceAdvance).
func (s *story) concerns(ev *trace.Event, g trace.GoID, id trace.ProcID) bool {
	switch {
	case s.old:
		return true
	case g == trace.NoGoroutine:
		s.proc(id).starts(s.now)
		// The scavenger is woken by a thread without a P (runtime/proc.go,
		// sysmon) or, when it sleeps, by whatever P sees to the timer.
		return id == trace.NoProc || s.scavengerNear
	case g == s.sweeper:
		// It yields thousands of times a cycle, all at one place
		// (runtime/mgcsweep.go, bgsweep).
		if s.yield != trace.NoStack && ev.Stack() == s.yield {
			p := s.proc(id)
			s.rep.CPU.Sweeper += s.now - p.since
			p.starts(s.now)
			return false
		}
		return true
	case g == s.scavenger, s.proc(id).worker != notWorker:
		return true
	}
	if s.assists > 0 && s.byG.active(g) != nil {
		return true
	}
	if !s.strangers() {
		return false
	}
	_, met := s.met[g]
	return !met
}

// strangers reports whether one of the two helpers is yet to be met.
func (s *story) strangers() bool {
	return s.sweeper == trace.NoGoroutine || s.scavenger == trace.NoGoroutine
}

func (s *story) transition(st trace.StateTransition, id trace.ProcID) {
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
		s.leaves(s.proc(id), g, to, &st)
	}
	if to == trace.GoRunning {
		s.proc(id).starts(s.now)
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
	// The reason is one of traceBlockReasonStrings in
	// runtime/traceruntime.go; traces before Go 1.22 give none. The sweeper
	// may yield for long before it first parks.
	if to == trace.GoWaiting && st.Reason == "GC background sweeper wait" {
		s.sweeper = g
	} else if st.Stack != trace.NoStack && s.strangers() {
		s.meet(g, to, st.Stack)
	}
	if g == s.sweeper && to == trace.GoWaiting {
		s.sweptOut() // it parks only with nothing left to sweep: runtime/mgcsweep.go, bgsweep
	}
	switch g {
	case s.sweeper:
		s.rep.CPU.Sweeper += d
		if to == trace.GoRunnable {
			s.yield = st.Stack
		}
	case s.scavenger:
		s.rep.CPU.Scavenger += d
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
