// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"time"

	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/internal/brink"
)

// lastRead is what was read when the limit was reached. The life's mutex guards it.
type lastRead struct {
	begun    bool // it is waited for
	snapshot *attach.Snapshot
	set      bool          // kills are held, should there be one
	held     time.Duration // for which the kernel's kill was held then
	warned   time.Time     // when the kernel last told of it
	took     time.Duration // to read it then
	reading  chan struct{} // closed when nobody reads; nil: nobody did
}

// beginBrink waits for the limit of the process's cgroup to be reached. The caller has
// the eye, or is alone.
func (l *life) beginBrink() {
	l.mu.Lock()
	begun := l.brink.begun
	l.brink.begun = true
	l.mu.Unlock()
	if begun {
		return
	}
	if l.levels.version == 2 {
		const none = "cgroup version 2 has no means to hold a kill"
		l.set(srcOOM, Off, none+": when its memory.events tell that the limit is reached, the process is read at once")
		l.w.all.Go(func() {
			if err := brink.Warn(l.ctx, l.PID, l.warned); err != nil && l.ctx.Err() == nil {
				l.set(srcOOM, Off, none+", and its memory.events cannot be heard: "+err.Error())
			}
		})
		return
	}
	if !l.w.cfg.OOMHold {
		l.set(srcOOM, Off, "by configuration")
		return
	}
	l.w.all.Go(func() {
		// What is in the way may go: a limit that is set later, a group below it, another
		// process of the group that had it, a keeper that was slow to start.
		for wait := holdAgain; l.exitNotHeld(); wait = min(2*wait, holdAgainMost) {
			begin := time.Now()
			err := l.holdKills()
			if err == nil || l.ctx.Err() != nil {
				return
			}
			l.set(srcOOM, Failed, err.Error())
			if time.Since(begin) > holdAgainMost { // it went well
				wait = holdAgain
			}
			select {
			case <-l.ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	})
}

// How long until it is tried again to hold kills.
const (
	holdAgain     = time.Second
	holdAgainMost = time.Minute
)

// holdsKilled reports whether the end is held with the memory still there after the
// kernel's kill.
func (l *life) holdsKilled() bool { return !l.w.reaps && l.holds() }

// exitNotHeld waits until it is known that the exit cannot be held, or not in time.
// While it is, that is better, and both would hold the service up for twice the bound.
// It is false when the life ends before.
func (l *life) exitNotHeld() bool {
	for l.w.cfg.Hold >= 0 && !l.w.reaps {
		l.mu.Lock()
		state := l.sources[srcHold].State
		l.mu.Unlock()
		if state == Failed {
			break
		}
		if state == OK {
			l.set(srcOOM, Off, "not needed: the exit is held")
		}
		select {
		case <-l.ctx.Done():
			return false
		case <-time.After(time.Second):
		}
	}
	return true
}

// holdKills holds the kernel's kills in the process's cgroup until the life ends.
func (l *life) holdKills() error {
	bound := l.w.cfg.Hold
	if bound < 0 {
		bound = attach.DefaultHold
	}
	h, err := brink.NewHold(l.PID, &l.w.keeper, bound)
	if err != nil {
		return err
	}
	h.State = func(ok, set bool, text string) {
		l.mu.Lock()
		l.brink.set = set
		l.mu.Unlock()
		state := OK
		if !ok {
			state = Failed
		}
		l.set(srcOOM, state, text)
	}
	h.Held = func(took time.Duration, why string) {
		l.mu.Lock()
		l.brink.held = took
		l.mu.Unlock()
		l.w.event(l.slot, Event{PID: l.PID, Kind: Sourced, Text: fmt.Sprintf("the kernel's kill was held for %s: %s", took.Round(time.Millisecond), why)})
	}
	return h.Run(l.ctx, func(ctx context.Context) {
		if !l.holdsKilled() { // it may be, after all
			l.readNow(ctx, brink.OOMControl)
		}
	})
}

// warned reads the process when the kernel tells that the limit is reached. A group
// that lives at its limit is told of all the time: reading takes its share then, as
// walks near the limit do, but the first time is not made to wait.
func (l *life) warned(ctx context.Context) {
	l.mu.Lock()
	b := &l.brink
	early := time.Since(b.warned) < max(walkNear, walkShareNear*b.took)
	l.mu.Unlock()
	if early || l.holdsKilled() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, walkFor)
	defer cancel()
	begin := time.Now()
	l.readNow(ctx, brink.MemoryEvents)
	l.mu.Lock()
	defer l.mu.Unlock()
	b.warned, b.took = time.Now(), time.Since(begin)
}

// readNow reads all of the runtime, until ctx ends.
func (l *life) readNow(ctx context.Context, way string) {
	over := make(chan struct{})
	l.mu.Lock()
	l.brink.reading = over
	l.mu.Unlock()
	go func() { // one that was made to take for ever keeps the eye, as any look does
		defer close(over)
		if l.lock(ctx) != nil {
			return
		}
		defer l.unlock()
		if l.target == nil {
			return
		}
		s, _ := l.target.Snapshot(ctx, everything)
		if s == nil {
			return
		}
		s.How.Way = way
		l.mu.Lock()
		defer l.mu.Unlock()
		if old := l.brink.snapshot; old == nil || complete(s) || !complete(old) {
			l.brink.snapshot = s
		}
	}()
	select {
	case <-over:
	case <-ctx.Done():
	}
}

// readEnded waits a moment for who still reads.
func (l *life) readEnded() {
	l.mu.Lock()
	reading := l.brink.reading
	l.mu.Unlock()
	if reading == nil {
		return
	}
	select {
	case <-reading:
	case <-time.After(time.Second):
	case <-l.ctx.Done():
	}
}

// complete reports whether the parts that take long are in a snapshot.
func complete(s *attach.Snapshot) bool { return s.Goroutines.Clusters != nil }

// afterBrink is how long a process that was read at the limit may take to die of it. A
// walk in that time is of one that is being taken apart.
const afterBrink = 2 * time.Second

// lastRead is the last that was read of all of the runtime before the end, and for
// how long the kernel's kill was held for it. The caller holds mu.
func (l *life) lastRead() (*attach.Snapshot, time.Duration) {
	b, walked := &l.brink, l.walked
	switch {
	case b.snapshot == nil, walked != nil && (walked.Time.Sub(b.snapshot.Time) > afterBrink || !complete(b.snapshot)):
		return poll(walked), 0
	case b.snapshot.How.Way != brink.OOMControl:
		return b.snapshot, 0
	}
	return b.snapshot, b.held
}
