// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/memguard/memguard-go/memguard/evidence"
)

// Config says what a [Guard] watches. The zero Config watches the calling
// process and keeps what it finds for [Guard.Report].
type Config struct {
	// Source is what is watched; nil is the calling process. It is the guard's from
	// then on: nobody else may use it, and the guard closes it.
	Source *Source

	// Event, if set, is called for everything that changes, in order, from the
	// guard's goroutine: it should return soon. If it panics, the guard goes on
	// without it for that event.
	Event func(Event)

	// Recorder, if set, saves the last seconds of the execution trace when a
	// finding is raised, at Warning or above, that a trace explains (gc-pause):
	// once in a minute at most, and not in the tick's goroutine. The guard
	// closes it.
	Recorder *evidence.Recorder
}

// EventKind says what an [Event] tells.
type EventKind string

// The kinds of events.
const (
	Raised  EventKind = "raised"  // a finding is new, or has another severity
	Cleared EventKind = "cleared" // a finding stands no longer
	Lost    EventKind = "lost"    // something cannot be seen any more, or a callback failed
	Saved   EventKind = "saved"   // evidence was written to Path
	Ended   EventKind = "ended"   // the watched process has ended, and the guard with it
)

// Event is one thing that happened while watching.
type Event struct {
	Time    time.Time
	Kind    EventKind
	Finding Finding // of Raised, Cleared and Saved
	Blind   Blind   // of Lost: what and why
	Path    string  // of Saved
}

// Guard watches a process in one goroutine. Its tick is a second at rest and
// shortens to 10 ms as the limit comes near. It only observes.
type Guard struct {
	cancel   context.CancelFunc
	done     chan struct{}
	once     sync.Once // for Close
	closed   error     // what Close returns
	event    func(Event)
	recorder *evidence.Recorder
	saved    chan Event // from the goroutine that saves a trace
	saving   bool
	savedAt  time.Time

	mu       sync.Mutex // guards everything below; held for a tick, never for a callback or a survey
	source   *Source
	judge    *Judge
	sample   Sample
	standing map[ID]Finding
	lost     []Blind // what the last tick could not see
	changed  bool    // the findings are not what standing says
	err      error   // why watching ended
	pace     pace
}

// Start starts watching. Close ends it.
func Start(cfg Config) *Guard {
	ctx, cancel := context.WithCancel(context.Background())
	g := &Guard{
		cancel: cancel, done: make(chan struct{}), event: cfg.Event,
		recorder: cfg.Recorder, saved: make(chan Event, 1),
		source: cfg.Source, judge: NewJudge(),
		standing: map[ID]Finding{},
	}
	if g.source == nil {
		g.source = Self()
	}
	go g.run(ctx)
	return g
}

// Close stops watching and waits for the last tick: not to be called by Event,
// which is a part of it. Closing again does nothing more.
func (g *Guard) Close() error {
	g.once.Do(func() {
		g.cancel()
		<-g.done
		if g.recorder != nil {
			g.recorder.Close() // waits for a save under way
		}
		g.mu.Lock() // a Report may be under way
		defer g.mu.Unlock()
		if g.err == nil {
			g.err = errClosed
		}
		g.closed = g.source.Close()
	})
	return g.closed
}

var errClosed = errors.New("memguard: the guard is closed")

// Done is closed when watching has ended: by Close, or because the watched
// process has ended.
func (g *Guard) Done() <-chan struct{} { return g.done }

func (g *Guard) run(ctx context.Context) {
	defer close(g.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-g.saved:
			g.saving = false
			g.tell(e)
			continue
		case <-timer.C:
		}
		next, events, err := g.tick()
		for _, e := range events {
			g.tell(e)
			g.save(e)
		}
		if err != nil {
			return
		}
		timer.Reset(next)
	}
}

// tick takes one sample and judges it. The error is ErrGone.
func (g *Guard) tick() (next time.Duration, events []Event, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() {
		if p := recover(); p != nil { // a defect of ours must not be the service's end
			next, events = tickRest, append(events, g.panicked("tick", p))
		}
	}()
	if err := g.source.Read(&g.sample); errors.Is(err, ErrGone) {
		g.err = err
		return 0, []Event{{Time: g.sample.Time, Kind: Ended}}, err
	}
	if g.judge.Step(&g.sample) || g.changed {
		events, g.changed = g.changes(), false
	}
	return g.pace.next(&g.sample), append(events, g.newlyLost()...), nil
}

// changes compares the judge's findings with what was told before.
func (g *Guard) changes() (events []Event) {
	now := map[ID]Finding{}
	for _, f := range g.judge.Findings() {
		now[f.ID] = f
		if old, ok := g.standing[f.ID]; !ok || old.Severity != f.Severity {
			events = append(events, Event{Time: g.sample.Time, Kind: Raised, Finding: f})
		}
	}
	for _, d := range docs { // in an order that is always the same
		f, stood := g.standing[d.ID]
		if _, stands := now[d.ID]; stood && !stands {
			events = append(events, Event{Time: g.sample.Time, Kind: Cleared, Finding: f})
		}
	}
	g.standing = now
	return events
}

// newlyLost tells each thing that cannot be seen once, until it was seen again.
func (g *Guard) newlyLost() (events []Event) {
	for _, b := range g.sample.Blind {
		if !slices.Contains(g.lost, b) {
			events = append(events, Event{Time: g.sample.Time, Kind: Lost, Blind: b})
		}
	}
	g.lost = append(g.lost[:0], g.sample.Blind...)
	return events
}

const saveEvery = time.Minute

// explainedByTrace are the findings whose cause an execution trace shows.
var explainedByTrace = map[ID]bool{"gc-pause": true}

// explained reports whether e is to be answered with a trace, the last of which
// was saved at last.
func (g *Guard) explained(e Event, last time.Time) bool {
	return g.recorder != nil && e.Kind == Raised && e.Finding.Severity >= Warning &&
		explainedByTrace[e.Finding.ID] && (last.IsZero() || e.Time.Sub(last) >= saveEvery)
}

// save writes the recorder's trace for a finding that it explains.
func (g *Guard) save(e Event) {
	if g.saving || !g.explained(e, g.savedAt) {
		return
	}
	g.saving, g.savedAt = true, e.Time
	go func() {
		done := Event{Time: e.Time, Kind: Saved, Finding: e.Finding}
		var err error
		if done.Path, err = g.recorder.Save(string(e.Finding.ID)); err != nil {
			done = Event{Time: e.Time, Kind: Lost, Blind: Blind{"execution trace", err.Error()}}
		}
		g.saved <- done
	}()
}

func (g *Guard) panicked(where string, p any) Event {
	return Event{Time: time.Now(), Kind: Lost, Blind: Blind{What: where, Why: fmt.Sprint("panic: ", p)}}
}

// tell hands an event to the callback.
func (g *Guard) tell(e Event) {
	if g.event == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			defer func() { _ = recover() }() // then it does not want to hear of it
			g.event(g.panicked("event callback", p))
		}
	}()
	g.event(e)
}

// Report says what the guard knows now, with a survey of the address space
// taken for it in the caller's goroutine (see [Source.Survey] for what that
// costs). The error is ErrGone when the watched process has ended. After Close
// there is no report.
func (g *Guard) Report() (r *Report, err error) {
	defer func() {
		if p := recover(); p != nil { // as in a tick
			r, err = nil, fmt.Errorf("memguard: report: panic: %v", p)
		}
	}()
	maps, err := g.source.maps()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return nil, g.err
	}
	if err := g.source.refuses(err); err != nil {
		return nil, err
	}
	if err := g.source.Read(&g.sample); err != nil {
		return nil, err
	}
	s := g.sample
	s.Blind = append([]Blind{}, s.Blind...)
	s.Process.Maps = maps
	if err != nil {
		s.Blind = append(s.Blind, Blind{"smaps", err.Error()})
	}
	g.source.members(&s)
	g.changed = g.judge.Step(&s) || g.changed // the next tick tells
	return newReport(&s, g.judge, 0), nil
}
