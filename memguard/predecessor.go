// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/memguard/memguard-go/memguard/evidence"
)

// diedNear is the share of its limit at which a process that then died was
// probably killed for it.
const diedNear = 0.9

// Predecessors says how the earlier processes of this service ended that died, or
// that a guard has ended (see [ExitStatus]), the last one first, as events of kind
// [Died]: Why is one sentence, and the severity of Finding is 0 for an end that may
// have been meant. Each is told to one caller only: their black boxes in dir are
// set aside. A guard with a store for evidence does so when it starts.
func Predecessors(dir string) ([]Event, error) {
	boxes, err := evidence.Previous(dir, "")
	if err != nil {
		return nil, fmt.Errorf("memguard: %w", err)
	}
	var told []Event
	add := func(why string, severity Severity) {
		told = append(told, Event{Kind: Died, Why: why, Finding: Finding{Severity: severity}})
	}
	for _, path := range boxes {
		r, err := evidence.ReadBox(path)
		switch {
		case err != nil:
			add(fmt.Sprintf("An earlier process of this service left %s, which cannot be read: %v.", path, err), Info)
		case r.State == evidence.Died:
			add(obituary(r))
		case r.State == evidence.Closed:
			if why, ok := exited(r); ok {
				add(why, Critical)
			}
		}
	}
	return told, nil
}

// exited says why a process ended itself (see [ExitStatus]), if it did.
func exited(r *evidence.Recording) (why string, ok bool) {
	for _, rec := range r.Records {
		if r.Layout != BoxLayout || rec.Kind != boxEvent {
			continue
		}
		if d, err := DecodeRecord(rec.Time, rec.Kind, rec.Payload); err == nil && d.Event.Kind == Applied && d.Event.Action.Name == Exit {
			return fmt.Sprintf("The predecessor, pid %d, ended itself after %v with exit status %d: %s (memguard incident %s)",
				r.PID, rec.Time.Sub(r.Start).Round(time.Second), d.Event.Action.To, d.Event.Action.Reason, r.Path), true
		}
	}
	return "", false
}

// obituary says in one sentence how a process ended that did not close its box: one
// that is ended by a signal, or returns from main, does not either.
func obituary(r *evidence.Recording) (why string, severity Severity) {
	var last Moment
	var stood []Finding
	end := r.Start
	for _, rec := range r.Records {
		if rec.Time.After(end) {
			end = rec.Time
		}
		if r.Layout != BoxLayout {
			continue
		}
		switch d, err := DecodeRecord(rec.Time, rec.Kind, rec.Payload); {
		case err != nil:
		case d.Moment != nil:
			last = *d.Moment
		case d.Event.Kind == Raised || d.Event.Kind == Cleared:
			f := d.Event.Finding
			stood = slices.DeleteFunc(stood, func(old Finding) bool { return old.ID == f.ID })
			if d.Event.Kind == Raised && f.Severity >= Warning {
				stood = append(stood, f)
			}
		}
	}
	s := fmt.Sprintf("The predecessor, pid %d, died after %v", r.PID, end.Sub(r.Start).Round(time.Second))
	held, ok := last.Undroppable.Get()
	limit, ok2 := bounded(last.Limit)
	switch {
	case !ok || !ok2:
	case float64(held) >= diedNear*float64(limit):
		severity = Critical
		s += fmt.Sprintf(" at %s of its limit of %s: the kernel has probably killed it for lack of memory", mib(float64(held)), mib(float64(limit)))
	default:
		s += fmt.Sprintf(" at %s of its limit of %s, which is not why: by a signal, a panic, or as it meant to", mib(float64(held)), mib(float64(limit)))
	}
	if len(stood) > 0 {
		worst := slices.MaxFunc(stood, func(a, b Finding) int { return cmp.Compare(a.Severity, b.Severity) })
		s += fmt.Sprintf("; what stood then: %s: %s", worst.ID, worst.Summary)
	}
	return s + fmt.Sprintf(" (memguard incident %s)", r.Path), severity
}
