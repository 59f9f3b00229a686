// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Guard watches a process in one goroutine, and keeps the calling one alive. Its
// tick is a second at rest and shortens to 10 ms as the limit comes near.
type Guard struct {
	cancel context.CancelFunc
	ctx    context.Context
	done   chan struct{}
	once   sync.Once // for Close
	closed error     // what Close returns
	born   time.Time
	beat   atomic.Int64 // the last tick, in nanoseconds after born: see Alive

	event    func(Event)
	log      *slog.Logger
	journal  *journal
	finished chan func() // what was done aside has ended: see aside
	asides   sync.WaitGroup

	mu       sync.Mutex // guards everything below; held for a tick, never for a callback or a survey
	source   *Source
	judge    *Judge
	sample   Sample
	ticks    uint64
	standing map[ID]Finding
	lost     []Blind // what the last tick could not see
	changed  bool    // the findings are not what standing says
	err      error   // why watching ended
	pace     pace
	stir     stir
	pending  []Event // noted, and not yet being told; at most eventsKept
	defect   Event   // the last panic that was told
	busy     map[string]bool
	hand     *hand  // nil where the process is not ours
	proof    proof  // what is kept for after the end
	exit     func() // set when the process is to end
	leaks    *leakWatch

	news  chan struct{} // there is something to tell
	quiet chan struct{} // closed when there will be nothing more
	told  chan struct{} // closed when all was told
	// The telling goroutine's own: what is left to tell, and that the log has panicked,
	// which is told once.
	telling []Event
	logLost bool
}

// Start starts guarding. Close ends it. With a store for evidence Start waits for the
// disk, for a second at most: one that hangs has the black box and the word of how the
// predecessor ended come later.
func Start(cfg Config) *Guard {
	ctx, cancel := context.WithCancel(context.Background())
	g := &Guard{
		ctx: ctx, cancel: cancel, done: make(chan struct{}), born: time.Now(),
		event: cfg.Event, log: cfg.Logger, journal: newJournal(),
		finished: make(chan func()), stir: stir{wake: make(chan struct{}, 1)}, news: make(chan struct{}, 1), quiet: make(chan struct{}), told: make(chan struct{}),
		source: cfg.Source, judge: NewJudge(),
		standing: map[ID]Finding{}, busy: map[string]bool{},
	}
	if g.source == nil {
		g.source = Self()
	}
	g.source.limit = cfg.Limit
	g.judge.classObjects(cfg.ClassObjects)
	g.proof = newProof(&cfg, g)
	if g.source.runtime != nil {
		g.hand = newHand(&cfg, g)
		g.hand.claim()
		g.leaks = newLeakWatch()
		g.leaks.start()
	}
	if p := g.proof.profiles; p != nil {
		g.record(func() opened { return openBox(p.Store.Dir) })
	}
	go g.teller()
	go g.run()
	return g
}

// Close stops watching, takes back every setting that was changed, and waits for
// the last tick, and for what is under way: for two seconds, if a disk hangs, say;
// what is left then is an event of kind Lost. It is not to be called by Event, which
// it waits for: for a second, if that or the log hangs. Closing again does nothing
// more.
func (g *Guard) Close() error {
	g.once.Do(func() {
		g.cancel()
		<-g.done
		g.proof.close()
		g.mu.Lock() // a Report may be under way
		defer g.mu.Unlock()
		g.closed = g.source.Close()
	})
	return g.closed
}

var errClosed = errors.New("memguard: the guard is closed")

// Done is closed when watching has ended: by Close, or because the watched
// process has ended.
func (g *Guard) Done() <-chan struct{} { return g.done }

func (g *Guard) run() {
	defer close(g.done)
	defer g.journal.end()
	defer g.leave()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var ticked time.Time
	for {
		select {
		case <-g.ctx.Done():
			return
		case then := <-g.finished:
			g.locked(then)
		case <-g.stir.wake:
			timer.Reset(max(tickFastest-time.Since(ticked), 0))
		case <-timer.C:
			ticked = time.Now()
			next, err := g.tick()
			if err != nil {
				return
			}
			timer.Reset(next)
		}
		g.nudge()
		if g.exit != nil {
			g.hush()
			g.exit()
		}
	}
}

// leaveWait is how long the end waits for what is under way.
const leaveWait = 2 * time.Second

// leave takes back what was changed, and waits for what is under way.
func (g *Guard) leave() {
	g.locked(func() {
		if g.err == nil {
			g.err = errClosed // from here on nobody changes anything any more
		}
		if g.hand != nil {
			g.hand.undo()
		}
	})
	g.nudge()
	if g.leaks != nil {
		g.leaks.stop()
	}
	over := make(chan struct{})
	go func() {
		g.asides.Wait()
		close(over)
	}()
	late := time.NewTimer(leaveWait)
	defer late.Stop()
	for waiting := true; waiting; {
		select {
		case then := <-g.finished:
			g.locked(then)
		case <-over:
			waiting = false
		case <-late.C:
			waiting = false
			g.locked(func() {
				for _, name := range slices.Sorted(maps.Keys(g.busy)) {
					g.note(Event{Kind: Lost, Blind: Blind{name, "still under way when the guard ended: left"}})
				}
			})
		}
	}
	g.hush()
}

// locked does something of the guard's between two ticks.
func (g *Guard) locked(do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.contain("between ticks")
	do()
}

// contain turns a panic into an event: a defect of ours, or of a callback, must
// not be the service's end. One that comes again is told once a minute. It is to
// be deferred.
func (g *Guard) contain(where string) {
	p := recover()
	if p == nil {
		return
	}
	e := panicked(where, p)
	if since := e.Time.Sub(g.defect.Time); e.Blind != g.defect.Blind || since >= defectEvery || since < 0 {
		g.defect = e
		g.note(e)
	}
}

const defectEvery = time.Minute

// part is a part of a tick: its defect does not keep the others from being done.
func (g *Guard) part(do func()) {
	defer g.contain("tick")
	do()
}

// tick takes one sample, judges it, and acts. The error is ErrGone.
func (g *Guard) tick() (next time.Duration, err error) {
	if g.hand != nil {
		g.hand.ask()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	next = tickRest // after a panic
	defer g.contain("tick")
	s := &g.sample
	if err := g.source.Read(s); errors.Is(err, ErrGone) {
		g.err = err
		g.note(Event{Time: s.Time, Kind: Ended})
		return 0, err
	}
	if g.leaks != nil {
		g.leaks.fill(s)
	}
	s.Paced = g.hand != nil && g.hand.paces(s)
	g.ticks++
	g.beat.Store(int64(s.Time.Sub(g.born)))
	next = g.pace.next(s)
	g.stir.ticked(s)
	g.part(func() {
		g.proof.moment(s)
		if g.judge.Step(s) || g.changed {
			g.changes()
			g.changed = false
		}
	})
	g.part(g.newlyLost)
	if g.hand != nil {
		g.part(func() { g.hand.step(s) })
	}
	g.part(func() { g.proof.step(s) })
	return next, nil
}

// changes compares the judge's findings with what was told before.
func (g *Guard) changes() {
	now := map[ID]Finding{}
	for _, f := range g.judge.Findings() {
		now[f.ID] = f
		if old, ok := g.standing[f.ID]; !ok || old.Severity != f.Severity {
			g.note(Event{Time: g.sample.Time, Kind: Raised, Finding: f})
			g.proof.raised(f)
		}
	}
	for _, d := range docs { // in an order that is always the same
		f, stood := g.standing[d.ID]
		if _, stands := now[d.ID]; stood && !stands {
			g.note(Event{Time: g.sample.Time, Kind: Cleared, Finding: f})
		}
	}
	g.standing = now
}

// newlyLost tells each thing that cannot be seen once, until it was seen again.
func (g *Guard) newlyLost() {
	for _, b := range g.sample.Blind {
		if !slices.Contains(g.lost, b) {
			g.note(Event{Time: g.sample.Time, Kind: Lost, Blind: b})
		}
	}
	g.lost = append(g.lost[:0], g.sample.Blind...)
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
	s.Paced = g.hand != nil && g.hand.paces(&s)
	s.Process.Maps = maps
	if err != nil {
		s.Blind = append(s.Blind, Blind{"smaps", err.Error()})
	}
	g.source.members(&s)
	g.changed = g.judge.Step(&s) || g.changed // the next tick tells
	return newReport(&s, g.judge, 0), nil
}
