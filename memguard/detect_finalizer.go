// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"

	"github.com/memguard/memguard-go/memguard/leak"
)

// queueStall: one finalizer or cleanup does not return, and all others wait.
type queueStall struct {
	kind  leak.QueueKind
	found leak.QueueVerdict // the last: figures do not say where
	live  Bytes             // the live heap when all was well last
}

// finalizerSlow: finalizers or cleanups are run, but behind what is queued.
type finalizerSlow struct{ found leak.QueueVerdict }

const noQueues = "the queues of finalizers and cleanups are not watched: they are seen by the guard in the process only"

func (d *queueStall) id() ID {
	if d.kind == leak.Cleanups {
		return "cleanup-stall"
	}
	return "finalizer-stall"
}

func (d *queueStall) step(s *Sample) verdict {
	if s.Queues == nil {
		return blindly(noQueues)
	}
	q := &s.Queues.Finalizers
	if d.kind == leak.Cleanups {
		q = &s.Queues.Cleanups
	}
	if q.State != leak.Stalled {
		d.live = s.Runtime.Live
		return clearly()
	}
	d.found = *q
	v := verdict{state: found, severity: Warning}
	v.add("stuck for", q.For.Seconds(), UnitSeconds)
	v.addFigure(waiting, q.Behind, UnitCount)
	// Nothing says what the objects in a queue hold. They stay live, so it is at
	// most what the live heap has grown by.
	if n, ok := minus(s.Runtime.Live, d.live).Get(); ok {
		v.add(held, float64(max(n, 0)), UnitBytes)
	}
	return v
}

const held = "live heap grown since"

// waiting are the functions that have not run, with the one that is being run.
const waiting = "waiting"

func (v *verdict) addFigure(name string, f leak.Figure, unit Unit) {
	if n, ok := f.Get(); ok {
		v.add(name, n, unit)
	}
}

func (d *queueStall) say(v *verdict) string {
	s := fmt.Sprintf("A %s has not returned for %.0f s", d.kind, v.fact("stuck for"))
	s += running(&d.found)
	if d.found.Doing != "" {
		s += fmt.Sprintf(" [%s]", d.found.Doing)
	}
	if n := v.fact(waiting); n > 0 {
		s += fmt.Sprintf(", and %.0f wait with it", n)
	}
	if n := v.fact(held); n >= 1<<20 {
		s += fmt.Sprintf("; the live heap has grown by %s since, what they hold among it", mib(n))
	}
	return s + "."
}

func (*finalizerSlow) id() ID { return "finalizer-slow" }

func (d *finalizerSlow) step(s *Sample) verdict {
	if s.Queues == nil {
		return blindly(noQueues)
	}
	q := &s.Queues.Finalizers
	if q.State != leak.Slow {
		q = &s.Queues.Cleanups
	}
	if q.State != leak.Slow {
		return clearly()
	}
	d.found = *q
	v := verdict{state: found, severity: Info}
	v.add("behind for", q.For.Seconds(), UnitSeconds)
	v.addFigure(waiting, q.Behind, UnitCount)
	v.addFigure(aSecond, q.PerSecond, UnitCount)
	return v
}

const aSecond = "executed a second"

func (d *finalizerSlow) say(v *verdict) string {
	s := fmt.Sprintf("The %ss are behind for %.0f s", d.found.Kind, v.fact("behind for"))
	if n := v.fact(waiting); n > 0 {
		s += fmt.Sprintf(": %.0f wait", n)
	}
	if n := v.fact(aSecond); n > 0 {
		s += fmt.Sprintf(", %.1f a second are executed", n)
	}
	if d.found.Func.Func != "" {
		s += "; one runs now"
	}
	return s + running(&d.found) + "."
}

// running names the function that is run and the line where it is, if they are
// known.
func running(q *leak.QueueVerdict) string {
	switch {
	case q.Func.Func == "":
		return ""
	case q.Where.Func == "" || q.Where.Func == q.Func.Func:
		return fmt.Sprintf(": it is %s", q.Func)
	}
	return fmt.Sprintf(": it is %s, which waits in %s", q.Func.Func, q.Where)
}
