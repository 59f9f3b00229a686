// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// EventKind says what an [Event] tells.
type EventKind string

// The kinds of events.
const (
	Raised  EventKind = "raised"  // a finding is new, or has another severity
	Cleared EventKind = "cleared" // a finding stands no longer
	Planned EventKind = "planned" // an action is about to be taken; in a dry run it would be
	Applied EventKind = "applied" // it was taken
	Undone  EventKind = "undone"  // a setting is back at what it was before the guard
	Clamped EventKind = "clamped" // the breaker's GC percent was not given, and why
	Lost    EventKind = "lost"    // something cannot be seen or done any more, or a callback failed
	Saved   EventKind = "saved"   // evidence was written to Path
	Died    EventKind = "died"    // an earlier process of this service has ended: Why says how
	Ended   EventKind = "ended"   // the watched process has ended, and the guard with it
)

// Event is one thing that happened while watching.
type Event struct {
	Seq     uint64    `json:"seq"` // 1 is the guard's first, without gaps
	Time    time.Time `json:"time"`
	Kind    EventKind `json:"kind"`
	Finding Finding   `json:"finding,omitzero"` // of Raised, Cleared and Saved
	Action  Action    `json:"action,omitzero"`  // of Planned, Applied, Undone and Clamped
	Blind   Blind     `json:"blind,omitzero"`   // of Lost: what and why
	Path    string    `json:"path,omitempty"`   // of Saved
	Why     string    `json:"why,omitempty"`    // of Died
}

// ActionName names what can be done to the process.
type ActionName string

// The actions.
const (
	SetGCPercent   ActionName = "gc-percent"     // From and To are percent, -1 is off
	SetMemoryLimit ActionName = "memory-limit"   // From and To are bytes, math.MaxInt64 is none
	Log            ActionName = "log"            // nothing but the event, which is Planned: memory may soon be worth giving back
	FreeOSMemory   ActionName = "free-os-memory" // collect, and give back all that is idle
	CollectGarbage ActionName = "gc"             // collect
	Compact        ActionName = "compact"        // the service's own hook against fragmentation
	Capture        ActionName = "capture"        // profiles to the evidence store
	SetBreaker     ActionName = "breaker"        // of Config.MemoryBreaker: From and To are a pacer.State
	ShedLoad       ActionName = "shed"           // the guard's own: the limiter refuses what does not fit, or in a spiral a share of all, To is 1, 0 is that it no longer does; ordered: From and To are percent of the work
	Exit           ActionName = "exit"           // end the process, as configured
)

// settingNames are the actions of which an order stands for a time.
var settingNames = [...]ActionName{SetGCPercent, SetMemoryLimit, SetBreaker, ShedLoad}

// IsSetting reports whether an order of the action stands, until its TTL is over or
// [Guard.Undo]: it says to what, and can be taken back. Any other is done once.
func (name ActionName) IsSetting() bool { return slices.Contains(settingNames[:], name) }

// Action is something that is done to the process.
type Action struct {
	Name   ActionName    `json:"name"`
	From   int64         `json:"from,omitempty"`
	To     int64         `json:"to,omitempty"`
	Reason string        `json:"reason"`
	By     string        `json:"by,omitempty"`          // who ordered it; empty is the guard itself
	DryRun bool          `json:"dry_run,omitempty"`     // planned, and not to be taken
	Took   time.Duration `json:"took_ns,omitempty"`     // of Applied
	Gained Value[int64]  `json:"gained_bytes,omitzero"` // of Applied: memory that the process holds less than before
	Undoes uint64        `json:"undoes,omitempty"`      // of Undone: the Seq of what is taken back
	Until  time.Time     `json:"until,omitzero"`        // of an order: when it is taken back by itself
}

// eventsKept is how many events a guard remembers.
const eventsKept = 1024

// journal is the ordered stream of a guard's events: the last ones, and whoever
// waits for the next.
type journal struct {
	mu    sync.Mutex
	ring  [eventsKept]Event
	next  uint64               // Seq of the next event, less one
	kinds map[EventKind]uint64 // how many there were
	more  chan struct{}        // closed when there is one more
	over  bool                 // there will be no more
}

func newJournal() *journal { return &journal{kinds: map[EventKind]uint64{}, more: make(chan struct{})} }

// add gives an event its number and keeps it.
func (l *journal) add(e Event) Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	e.Seq = l.next
	l.ring[e.Seq%eventsKept] = e
	l.kinds[e.Kind]++
	if !l.over {
		close(l.more)
		l.more = make(chan struct{})
	}
	return e
}

// end wakes all who wait: there will be no more.
func (l *journal) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.over = true
		close(l.more)
	}
}

// count is how many events there were, all and by kind.
func (l *journal) count() (all uint64, kinds map[EventKind]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next, maps.Clone(l.kinds)
}

// since returns the events after the given one that are still kept. After one
// that is yet to come there are none.
func (l *journal) since(after uint64) (es []Event, more <-chan struct{}, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := uint64(1)
	if l.next > eventsKept {
		first = l.next - eventsKept + 1
	}
	for seq := max(min(after, l.next)+1, first); seq <= l.next; seq++ {
		es = append(es, l.ring[seq%eventsKept])
	}
	return es, l.more, l.over
}

// Events returns the events after the one with the given Seq, 0 for all that are
// kept, which is the last 1024. If there is none yet it waits for one, until ctx
// ends or the guard does; then it returns none. A first Seq that does not follow
// on after says how many were missed.
func (g *Guard) Events(ctx context.Context, after uint64) []Event {
	for {
		es, more, over := g.journal.since(after)
		if len(es) > 0 || over {
			return es
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}
