// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/scavenge/smaps"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/target"
)

// The sources of a target.
const (
	srcKernel = iota
	srcAgent
	srcAttach
	srcHold
	srcOOM
	srcPprof
	srcGctrace
	sourceCount
)

var sourceNames = [sourceCount]string{"kernel", "agent", "attach", "exit-hold", "oom-hold", "pprof", "gctrace"}

// The states of a source.
const (
	OK     = "ok"
	Off    = "off"
	Failed = "failed"
)

// life is one process from when it was found to its end.
type life struct {
	target.Process
	w       *Watcher
	slot    *slot
	ctx     context.Context
	cancel  context.CancelFunc
	begun   time.Time
	program program       // that it ran then
	alarm   chan struct{} // it may have ended: somebody saw nothing of it any more
	changed atomic.Bool   // it runs another program
	young   int           // how many lives before it ended young

	// The watcher's mutex guards these.
	due  time.Time // of the next look
	busy bool      // it is not to be looked at: somebody does, or it is not open

	// Who has sent to eye may use what follows.
	eye     chan struct{}
	source  *memguard.Source
	target  *attach.Target // nil where the runtime cannot be read
	whyNot  error          // why there is no target
	seen    *attach.Snapshot
	reading memguard.Sample
	notGo   bool
	opened  time.Time     // when the target was, or was tried to be
	retry   time.Duration // to the next try
	boxes   boxes
	levels  levels

	mu        sync.Mutex // guards what follows; held for moments
	sources   [sourceCount]Source
	agent     joined
	judge     *memguard.Judge
	standing  map[memguard.ID]memguard.Finding // that were told
	sample    memguard.Sample
	ledger    *memguard.Ledger // of the sample; nil before the first look
	ticks     uint64
	guard     uint64 // Seq of the last event of the judge
	kinds     map[memguard.EventKind]uint64
	told      []memguard.Event // by whichever guard, the last ones
	pace      pace
	period    time.Duration // to the next look, by the pace
	outside   time.Time     // when the next look from outside is due while an agent answers
	walked    *attach.Snapshot
	walkParts attach.Parts
	walkAt    time.Time     // when that was
	walkTook  time.Duration // and how long it took
	walking   bool
	failures  int           // looks in a row in which the runtime could not be read
	holding   chan struct{} // closed when the exit is held no longer; nil: it never was
	death     *attach.Death // what was read then
	brink     lastRead      // what was read when the limit was reached
	stream    *stream       // what it prints; nil: that does not come here
	given     given         // its heap profile, where it is asked for
}

func newLife(ctx context.Context, w *Watcher, s *slot, p target.Process) *life {
	l := &life{
		Process: p, w: w, slot: s, begun: time.Now(), busy: true, young: s.young,
		alarm: make(chan struct{}, 1), eye: make(chan struct{}, 1),
		judge: memguard.NewJudge(), standing: map[memguard.ID]memguard.Finding{}, kinds: map[memguard.EventKind]uint64{},
		period: w.cfg.Interval,
	}
	l.ctx, l.cancel = context.WithCancel(ctx)
	l.levels.machine = &w.machine
	for i := range l.sources {
		l.sources[i] = Source{Name: sourceNames[i], State: Off, Why: "not looked for yet", Since: l.begun.Round(0)}
	}
	return l
}

// set notes the state of a source; an event tells when it is another. The caller
// does not hold mu.
func (l *life) set(source int, state, why string) {
	l.mu.Lock()
	s := &l.sources[source]
	was := s.State
	if was != state {
		s.State, s.Since = state, time.Now().Round(0)
	}
	s.Why = bounded(why)
	l.mu.Unlock()
	if was == state || was == Off && state == Off || l.ctx.Err() != nil {
		return
	}
	text := s.Name + " is " + state
	if why != "" {
		text += ": " + why
	}
	l.w.event(l.slot, Event{PID: l.PID, Kind: Sourced, Text: text})
}

// lock takes the eye: nobody else looks through it then. It fails when ctx ends.
func (l *life) lock(ctx context.Context) error {
	select {
	case l.eye <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *life) unlock() { <-l.eye }

// attend opens the process, waits for its end, and tells what is left of it.
func (l *life) attend() {
	defer l.cancel()
	defer l.contain("following it", func() { l.w.leave(l, time.Now(), false) })
	fd, err := openPidfd(l.PID)
	if err == nil {
		defer fd.Close()
	}
	if !l.Alive() { // from here on the descriptor is that process's
		l.bury(fd)
		return
	}
	l.program, _ = programOf(l.PID)
	gone := l.gone(fd)
	if rest := unseen(l.young); rest > 0 {
		for i := range l.sources {
			l.set(i, Off, "its predecessors ended within seconds, "+plural(l.young, "time")+" in a row: it is looked into when it lives for "+rest.String())
		}
		select {
		case <-gone:
			l.bury(fd)
			return
		case <-l.ctx.Done():
			return
		case <-time.After(rest):
		}
	}
	l.open()
	l.w.plan(l, time.Now())
	for {
		select {
		case <-gone:
		case <-l.ctx.Done():
			l.close()
			return
		case <-l.alarm:
			if l.Alive() && !l.changed.Load() && !l.became() {
				continue
			}
		}
		l.bury(fd)
		return
	}
}

// contain turns a panic into an event: a defect of ours must not be the end of
// watching. It is to be deferred.
func (l *life) contain(what string, then func()) {
	if p := recover(); p != nil {
		l.w.event(l.slot, Event{PID: l.PID, Kind: Lost, Text: fmt.Sprintf("%s: panic: %v", what, p)})
		l.w.cfg.Logger.Error("memguard: panic", slog.String("target", l.slot.name), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		then()
	}
}

// became reports whether the process runs another program than at first.
func (l *life) became() bool {
	p, ok := programOf(l.PID)
	if ok && l.program != (program{}) && p != l.program {
		l.changed.Store(true)
	}
	return l.changed.Load()
}

// gone is closed when the process has ended, as its descriptor says, or where
// there is none its files.
func (l *life) gone(fd *os.File) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		if fd != nil && awaitPidfd(fd) == nil {
			close(c)
			return
		}
		tick := time.NewTicker(min(l.w.cfg.Interval, time.Second))
		defer tick.Stop()
		for {
			select {
			case <-l.ctx.Done():
				return
			case <-tick.C:
				if !l.Alive() {
					close(c)
					return
				}
			}
		}
	}()
	return c
}

// openFor bounds what one process may keep others waiting for.
const openFor = 10 * time.Second

// open opens all that can be opened. What cannot be is in the sources.
func (l *life) open() {
	leave, err := enter(l.ctx, l.w.opens, openFor)
	if err != nil {
		return
	}
	defer leave()
	l.levels.begin(l.PID)
	l.openTarget()
	src, err := memguard.Open(l.PID)
	if err != nil {
		l.set(srcKernel, Failed, err.Error())
		nudge(l.alarm)
	} else {
		if !l.notGo {
			src.See(l.see)
		}
		l.source = src
	}
	l.openStream()
	l.w.mu.Lock()
	url := l.w.pprofOf(l.slot.rule)
	l.w.mu.Unlock()
	if url == "" {
		l.set(srcPprof, Off, "its rule has no pprof URL")
	} else {
		l.set(srcPprof, Off, "not needed so far")
	}
}

// openTarget opens the runtime's memory. The caller has the eye, or is alone.
func (l *life) openTarget() {
	l.opened = time.Now()
	t, err := attach.Open(l.PID)
	switch {
	case err == nil:
		l.target, l.whyNot, l.retry = t, nil, 0
		l.set(srcAttach, OK, "")
		l.beginHold()
		l.beginBrink()
		return
	case errors.Is(err, attach.ErrNotGo):
		l.notGo = true
		l.set(srcAttach, Off, "it is not a Go program")
		l.set(srcAgent, Off, "it is not a Go program")
		l.set(srcHold, Off, "it is not a Go program")
		l.set(srcOOM, Off, "it is not a Go program")
	case errors.Is(err, attach.ErrGone):
		l.set(srcAttach, Failed, err.Error())
		nudge(l.alarm)
	default:
		l.set(srcAttach, Failed, err.Error())
		l.set(srcHold, Off, "its memory cannot be read")
		l.set(srcOOM, Off, "its memory cannot be read")
	}
	l.whyNot = err
	l.retry = min(max(2*l.retry, 5*time.Second), 5*time.Minute)
}

// see reads the runtime's figures: it is the Source's eye.
func (l *life) see(r *memguard.Runtime) ([]smaps.Range, error) {
	if l.target == nil {
		return nil, l.whyNot
	}
	s, err := l.target.Snapshot(l.ctx, 0)
	if err != nil {
		return nil, err
	}
	l.seen = s
	*r = s.Runtime()
	return s.Arenas, nil
}

// closeFor bounds the wait for a look that hangs: what it uses stays open then.
const closeFor = 2 * time.Second

// close lets go of the process.
func (l *life) close() {
	l.cancel()
	ctx, done := context.WithTimeout(context.Background(), closeFor)
	defer done()
	select {
	case <-l.holdEnded():
	case <-ctx.Done():
		return
	}
	if l.lock(ctx) != nil {
		return
	}
	// The eye stays taken: nobody looks any more.
	if l.source != nil {
		_ = l.source.Close()
	}
	if l.target != nil {
		_ = l.target.Close()
	}
	l.boxes.close()
	l.levels.close()
	if s := l.prints(); s != nil {
		s.leave()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.agent.close()
}

// status fills in what is known of the process.
func (l *life) status(st *Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.Process
	st.Process, st.Sources = &p, slices.Clone(l.sources[:])
	st.Eye, st.Guard = l.view()
	if l.walked != nil {
		st.Clusters, st.Classes, st.Looked = l.walked.Goroutines.Clusters, l.walked.SizeClasses, l.walked.Time.Round(0)
		if len(st.Clusters) > 20 {
			st.Clusters = st.Clusters[:20]
		}
	}
	if l.stream != nil {
		st.Cycles = l.stream.last()
	}
}

// view is the best that is known: of the service's own guard where it answers. The
// caller holds mu.
func (l *life) view() (eye string, st *agent.Status) {
	if l.agent.answers(time.Now(), l.w.cfg.Interval) {
		return EyeAgent, l.agent.status
	}
	if l.ledger == nil {
		return EyeKernel, nil
	}
	s := memguard.Status{
		Sample: l.sample, Ledger: l.ledger, Findings: l.judge.Findings(), Blind: l.judge.Blind(),
		Undroppable: undroppable(&l.sample.Cgroup), Ticks: l.ticks, Events: l.guard, Kinds: l.kinds,
	}
	if left, ok := l.judge.TimeLeft(); ok {
		s.Left = memguard.Known(left.Seconds())
	}
	if eye = EyeKernel; l.sample.Runtime.Origin == attach.FromAttach {
		eye = EyeAttach
	}
	return eye, agent.NewStatus(&s, time.Since(l.sample.Time))
}
