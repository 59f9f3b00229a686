// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Config says what a [Guard] watches. The zero Config watches the calling
// process and keeps what it finds for [Guard.Report].
type Config struct {
	// Source is what is watched; nil is the calling process. The guard closes it.
	Source *Source

	// Event, if set, is called for everything that changes, in order, from the
	// guard's goroutine: it should return soon. If it panics, the guard goes on
	// without it for that event.
	Event func(Event)
}

// EventKind says what an [Event] tells.
type EventKind string

// The kinds of events.
const (
	Raised  EventKind = "raised"  // a finding is new, or has another severity
	Cleared EventKind = "cleared" // a finding stands no longer
	Lost    EventKind = "lost"    // something cannot be seen any more, or a callback failed
	Ended   EventKind = "ended"   // the watched process has ended, and the guard with it
)

// Event is one thing that happened while watching.
type Event struct {
	Time    time.Time
	Kind    EventKind
	Finding Finding // of Raised and Cleared
	Blind   Blind   // of Lost: what and why
}

// Guard watches a process in one goroutine. Its tick is a second at rest and
// shortens to 10 ms as the limit comes near. It only observes.
type Guard struct {
	cancel context.CancelFunc
	done   chan struct{}
	event  func(Event)

	mu       sync.Mutex // guards everything below; held for a tick, never for a callback or a survey
	source   *Source
	judge    *Judge
	sample   Sample
	standing map[ID]Finding
	lost     map[Blind]bool
	changed  bool  // the findings are not what standing says
	err      error // why watching ended
	pace     pace
}

// Start starts watching. Close ends it.
func Start(cfg Config) *Guard {
	ctx, cancel := context.WithCancel(context.Background())
	g := &Guard{
		cancel: cancel, done: make(chan struct{}), event: cfg.Event,
		source: cfg.Source, judge: NewJudge(),
		standing: map[ID]Finding{}, lost: map[Blind]bool{},
	}
	if g.source == nil {
		g.source = Self()
	}
	go g.run(ctx)
	return g
}

// Close stops watching and waits for the last tick.
func (g *Guard) Close() error {
	g.cancel()
	<-g.done
	return g.source.Close()
}

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
		case <-timer.C:
		}
		next, events, err := g.tick()
		for _, e := range events {
			g.tell(e)
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
	for id, f := range g.standing {
		if _, ok := now[id]; !ok {
			events = append(events, Event{Time: g.sample.Time, Kind: Cleared, Finding: f})
		}
	}
	g.standing = now
	return events
}

// newlyLost tells each thing that cannot be seen once, until it was seen again.
func (g *Guard) newlyLost() (events []Event) {
	if len(g.sample.Blind) == 0 {
		clear(g.lost)
		return nil
	}
	now := make(map[Blind]bool, len(g.sample.Blind))
	for _, b := range g.sample.Blind {
		now[b] = true
		if !g.lost[b] {
			events = append(events, Event{Time: g.sample.Time, Kind: Lost, Blind: b})
		}
	}
	g.lost = now
	return events
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
// costs). The error is ErrGone when the watched process has ended.
func (g *Guard) Report() (*Report, error) {
	maps, err := g.source.maps()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return nil, g.err
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
