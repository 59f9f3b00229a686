// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"errors"
	"time"

	"github.com/memguard/memguard-go/sidecar/attach"
)

// everything is what is read of a process that is dying.
const everything = attach.Spans | attach.Goroutines | attach.HeapProfile

// beginHold waits for the process's end to hold it up and read it. The caller has
// the eye, or is alone.
func (l *life) beginHold() {
	if l.w.cfg.Hold < 0 {
		l.set(srcHold, Off, "by configuration")
		return
	}
	select {
	case <-l.holdEnded():
	default:
		return
	}
	t, ended := l.target, make(chan struct{})
	l.mu.Lock()
	l.holding = ended
	l.mu.Unlock()
	// What cannot be held is refused at once.
	holds := time.AfterFunc(500*time.Millisecond, func() { l.set(srcHold, OK, "") })
	go func() {
		defer close(ended)
		defer holds.Stop()
		for range 3 {
			d, err := t.HoldExit(l.ctx, l.w.cfg.Hold, everything)
			switch {
			case d != nil:
				l.mu.Lock()
				l.death = d
				l.mu.Unlock()
				return
			case l.ctx.Err() != nil:
				return
			case !errors.Is(err, attach.ErrGone) || errors.Is(err, attach.ErrHold):
				holds.Stop()
				l.set(srcHold, Failed, err.Error())
				return
			}
			nudge(l.alarm) // it ended too fast, or runs another program
			select {
			case <-l.ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
		l.set(srcHold, Failed, "the thread that would be held has gone")
	}()
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// holdEnded is closed when no end is held, or waited for.
func (l *life) holdEnded() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holding == nil {
		return closed
	}
	return l.holding
}

// holds reports whether the end is waited for to hold it up.
func (l *life) holds() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sources[srcHold].State == OK
}
