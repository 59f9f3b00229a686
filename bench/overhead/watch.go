// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"sync"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

// acts is what a guard has said and done so far.
type acts struct {
	Ticks    uint64                        `json:"ticks"`
	Events   map[memguard.EventKind]uint64 `json:"events"`
	Findings []told                        `json:"findings"` // raised; the first ones
	Loud     uint64                        `json:"loud"`     // findings raised at warning or above, all of them
	Quiet    uint64                        `json:"quiet"`    // the others
	Percent  uint64                        `json:"gc_percent_changes"`
	Limit    uint64                        `json:"memory_limit_changes"`
	Releases uint64                        `json:"releases"`
	Lost     []string                      `json:"lost"` // what it could not see or do; the first ones
}

// told is a finding that was raised.
type told struct {
	At       float64           `json:"at_seconds"`
	ID       memguard.ID       `json:"id"`
	Severity memguard.Severity `json:"severity"`
	Summary  string            `json:"summary"`
}

// toldMost bounds what is kept; everything is counted.
const toldMost = 50

// watch listens to a guard.
type watch struct {
	guard *memguard.Guard
	start time.Time

	mu   sync.Mutex
	seen acts
}

func newWatch() *watch {
	return &watch{start: time.Now(), seen: acts{Findings: []told{}, Lost: []string{}}}
}

// event is the guard's callback.
func (w *watch) event(e memguard.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e.Kind {
	case memguard.Raised:
		f := &e.Finding
		if f.Severity >= memguard.Warning {
			w.seen.Loud++
		} else {
			w.seen.Quiet++
		}
		if len(w.seen.Findings) < toldMost {
			w.seen.Findings = append(w.seen.Findings, told{e.Time.Sub(w.start).Seconds(), f.ID, f.Severity, f.Summary})
		}
	case memguard.Applied:
		switch e.Action.Name {
		case memguard.SetGCPercent:
			w.seen.Percent++
		case memguard.FreeOSMemory:
			w.seen.Releases++
		}
	case memguard.Lost:
		if len(w.seen.Lost) < toldMost {
			w.seen.Lost = append(w.seen.Lost, e.Blind.What+": "+e.Blind.Why)
		}
	}
}

// acts is what there is so far.
func (w *watch) acts() *acts {
	st := w.guard.Status()
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.seen
	a.Ticks, a.Events = st.Ticks, st.Kinds
	// A change of the memory limit is told once a second at most, but each is
	// counted; one of the GC percent is always told.
	a.Limit = st.Changes - min(st.Changes, a.Percent)
	return &a
}
