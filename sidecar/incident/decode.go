// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"fmt"
	"strconv"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/evidence"
)

// decode reads a record that a guard wrote. The bytes may be anything; what is no
// record is an error.
func decode(layout uint32, r evidence.BoxRecord) (l Line, err error) {
	if layout != memguard.BoxLayout {
		return l, fmt.Errorf("written by another version, of layout %d", layout)
	}
	rec, err := memguard.DecodeRecord(r.Time, r.Kind, r.Payload)
	switch {
	case err != nil:
		return l, err
	case rec.Moment != nil:
		m := rec.Moment
		l.Moment = &Moment{
			Time: m.Time, Usage: m.Usage, Undroppable: m.Undroppable, Limit: m.Limit, Mapped: m.Mapped, Live: m.Live, Stacks: m.Stacks,
			Goal: m.Goal, GCPercent: m.GCPercent, Goroutines: m.Goroutines, OOMKills: m.OOMKills,
		}
		if n, _ := m.Limit.Get(); n == memguard.Unlimited {
			l.Moment.Limit = memguard.Bytes{}
		}
		return l, nil
	}
	l.Note = note(rec.Event)
	return l, nil
}

// note is what a reader wants of an event.
func note(e *memguard.Event) *Note {
	n := &Note{Time: e.Time, Kind: Other, Name: string(e.Kind)}
	switch e.Kind {
	case memguard.Raised, memguard.Cleared:
		n.Kind, n.Severity, n.Name, n.Text = Finding, e.Finding.Severity, string(e.Finding.ID), e.Finding.Summary
		if e.Kind == memguard.Cleared {
			n.Severity, n.Name = 0, n.Name+" cleared"
		}
	case memguard.Planned, memguard.Applied, memguard.Undone, memguard.Clamped:
		n.Kind, n.Name = Action, string(e.Action.Name)+" "+string(e.Kind)
		n.Text = strconv.FormatInt(e.Action.From, 10) + " -> " + strconv.FormatInt(e.Action.To, 10) + ": " + e.Action.Reason
	case memguard.Lost:
		n.Text = e.Blind.What + ": " + e.Blind.Why
	case memguard.Saved:
		n.Text = e.Path
	case memguard.Died:
		n.Text = e.Why
	}
	return n
}
