// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

// Event is one thing that happened, of all targets in one order.
type Event struct {
	Seq      uint64          `json:"seq"` // 1 is the first, without gaps
	Time     time.Time       `json:"time"`
	Target   string          `json:"target"`
	PID      int             `json:"pid,omitempty"`
	Kind     string          `json:"kind"`               // appeared, ended, source, guard, incident, control, lost
	Text     string          `json:"text"`               // one plain sentence
	Guard    *memguard.Event `json:"guard,omitempty"`    // what a guard said: the service's own, or the one that watches from here
	Incident string          `json:"incident,omitempty"` // id of an incident report
}

// The kinds of events that come from here.
const (
	Appeared = "appeared"
	Ended    = "ended"
	Sourced  = "source"
	Guarded  = "guard"
	Lost     = "lost"
)

const (
	eventsKept = 1024
	mostText   = 1024 // bytes, of what may come from a target
)

// events are the last ones, and whoever waits for the next.
type events struct {
	mu   sync.Mutex
	ring []Event // grows to eventsKept; then next is overwritten
	seq  uint64
	more chan struct{} // closed when there is one more
}

func newEvents() *events { return &events{more: make(chan struct{})} }

// add gives an event its number and keeps it.
func (l *events) add(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.Round(0) // who reads it does not know our monotonic clock
	e.Target, e.Text = bounded(e.Target), bounded(e.Text)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Seq = l.seq
	if i := (l.seq - 1) % eventsKept; i < uint64(len(l.ring)) {
		l.ring[i] = e
	} else {
		l.ring = append(l.ring, e)
	}
	close(l.more)
	l.more = make(chan struct{})
}

// since returns the events after the given one that are still kept.
func (l *events) since(after uint64) ([]Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var es []Event
	for seq := max(min(after, l.seq), l.seq-uint64(len(l.ring))) + 1; seq <= l.seq; seq++ {
		es = append(es, l.ring[(seq-1)%eventsKept])
	}
	return es, l.more
}

// Events returns the events after the one with the given Seq, and waits for one
// until ctx ends. Old ones are dropped: the first may have a higher Seq than asked for.
func (w *Watcher) Events(ctx context.Context, after uint64) []Event {
	for {
		es, more := w.events.since(after)
		if len(es) > 0 {
			return es
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

// Note adds an event: what the control API did, that an incident was written.
func (w *Watcher) Note(e Event) { w.events.add(e) }

// event adds one of a target, unless it has had too many of late: a target that is
// restarted ten times a second must not drive out what is told of the others.
// That some are left out is told. The caller holds w.mu or is the slot's only one.
func (w *Watcher) event(s *slot, e Event) {
	e.Target = s.name
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	left, ok := s.budget.spend(e.Time)
	if !ok {
		return
	}
	if left > 0 {
		w.events.add(Event{Time: e.Time, Target: s.name, Kind: Lost, Text: plural(left, "event") + " of it left out: they come faster than can be told"})
	}
	w.events.add(e)
	select {
	case w.logs <- e:
	default: // the log hangs: a pipe that nobody drains must not stop the watching
	}
}

// write logs events, until all is over.
func (w *Watcher) write(over <-chan struct{}) {
	for {
		select {
		case e := <-w.logs:
			w.log(&e)
			continue
		case <-over:
		}
		select {
		case e := <-w.logs:
			w.log(&e)
		default:
			return
		}
	}
}

func (w *Watcher) log(e *Event) {
	w.cfg.Logger.LogAttrs(context.Background(), level(e), "memguard: "+bounded(e.Text),
		slog.String("target", e.Target), slog.Int("pid", e.PID), slog.String("kind", e.Kind))
}

func level(e *Event) slog.Level {
	switch {
	case e.Kind == Lost, e.Guard != nil && e.Guard.Kind == memguard.Raised && e.Guard.Finding.Severity >= memguard.Warning:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// A target may have so many events at once, and one in so much time for long.
const (
	burst  = 64
	refill = 2 * time.Second
)

// budget bounds the events of a target.
type budget struct {
	mu   sync.Mutex
	from time.Time // a bucket that was full then
	used int
	left int // out since the last that was let through
}

// spend takes one, and says how many were left out before it.
func (b *budget) spend(now time.Time) (left int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := int(now.Sub(b.from) / refill); n > 0 || b.from.IsZero() {
		if b.used = max(b.used-n, 0); b.used == 0 || b.from.IsZero() {
			b.from = now
		} else {
			b.from = b.from.Add(time.Duration(n) * refill)
		}
	}
	if b.used >= burst {
		b.left++
		return 0, false
	}
	b.used++
	left, b.left = b.left, 0
	return left, true
}

// bounded is a text of at most mostText bytes, and valid.
func bounded(s string) string {
	if len(s) > mostText {
		s = s[:mostText] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
