// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/memguard/memguard-go/pacer/gctrace"
	"github.com/memguard/memguard-go/sidecar/stderr"
	"github.com/memguard/memguard-go/sidecar/target"
)

// Cycle is a collection as the process printed it (GODEBUG=gctrace=1). Sizes are
// bytes, which the runtime rounds down to MiB.
type Cycle struct {
	N          uint32        `json:"n"`           // from 1 at the program's start
	At         time.Duration `json:"at_ns"`       // since then
	CPUPercent int           `json:"cpu_percent"` // spent on collecting since then
	Pauses     time.Duration `json:"pauses_ns"`   // both of them
	Start      uint64        `json:"heap_start"`
	Live       uint64        `json:"heap_live"`
	Goal       uint64        `json:"heap_goal"`
	Forced     bool          `json:"forced"`
}

// stream is what a process prints, where it passes through us.
type stream struct {
	*stderr.Stream
	where  string // of a rule, whose processes share it; empty: of one life
	cancel context.CancelFunc

	mu  sync.Mutex
	err error // that ended it
}

// start reads it from now on.
func (s *stream) start(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	s.cancel = cancel
	go func() {
		err := s.Run(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
	}()
}

// leave is called when a life ends.
func (s *stream) leave() {
	if s.where == "" {
		s.cancel()
	}
}

// state is that of the source.
func (s *stream) state() (state, why string) {
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	switch c := s.Counts(); {
	case err != nil:
		return Failed, err.Error()
	case c.Cycles > 0:
		return OK, ""
	case c.Bytes > 0:
		return Off, "nothing that it prints is about collections: GODEBUG=gctrace=1 has it print them"
	}
	return Off, "nothing was printed so far"
}

// last are the last collections.
func (s *stream) last() []Cycle {
	const most = 20
	cycles, next := s.Cycles(max(s.Counts().Cycles, most) - most)
	if next == 0 {
		return nil
	}
	out := make([]Cycle, 0, most)
	for i := range cycles[max(len(cycles)-most, 0):] {
		out = append(out, cycleOf(&cycles[i]))
	}
	return out
}

func cycleOf(c *gctrace.Cycle) Cycle {
	return Cycle{c.N, c.At, c.CPUPercent, c.SweepTerm + c.MarkTerm, c.HeapStart, c.HeapLive, c.HeapGoal, c.Forced}
}

// exit is how the process ended, if memguard exec told.
func (s *stream) exit() (stderr.Exit, bool) {
	if s.where != "" {
		return stderr.Exit{}, false
	}
	return s.Exit()
}

// What a process printed last reaches us after its end is seen: memguard exec writes
// it down every tenth of a second, and files are looked at every fifth.
const (
	settleStill = 300 * time.Millisecond
	settleMost  = 2 * time.Second
)

// settle waits until what the process printed before its end is here.
func (s *stream) settle() {
	last, since := s.Counts().Bytes, time.Now()
	for end := since.Add(settleMost); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s.where == "" {
			if _, told := s.exit(); told { // the last that memguard exec writes
				return
			}
			continue
		}
		if n := s.Counts().Bytes; n != last {
			last, since = n, time.Now()
		} else if time.Since(since) >= settleStill {
			return
		}
	}
}

// heard is how much of a stream was printed by lives of a target that ended before.
type heard struct {
	mu     sync.Mutex
	stream *stream
	bytes  uint64
}

// since is the last that was printed since it was called last: what a predecessor
// died of must not be told of its successor.
func (h *heard) since(s *stream) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.where == "" {
		return s.Tail() // of one life alone
	}
	if h.stream != s {
		h.stream, h.bytes = s, 0
	}
	all := s.Counts().Bytes // before the tail: what comes between is shown twice, and not lost
	tail := s.Tail()
	fresh := min(all-h.bytes, uint64(len(tail)))
	h.bytes = all
	return tail[uint64(len(tail))-fresh:]
}

// setStreams opens what the rules name and is not open, and closes what they name
// no longer. The caller holds mu.
func (w *Watcher) setStreams(rules []target.Rule) error {
	streams := map[string]*stream{}
	for i := range rules {
		r := &rules[i]
		if r.Stderr == "" {
			continue
		}
		if old := w.streams[r.Name]; old != nil && old.where == r.Stderr {
			streams[r.Name] = old
			continue
		}
		s, err := stderr.Open(r.Stderr)
		if err != nil {
			return fmt.Errorf("rule %q: %w", r.Name, err)
		}
		streams[r.Name] = &stream{Stream: s, where: r.Stderr}
	}
	for name, s := range streams {
		if w.streams[name] != s && w.running {
			s.start(w.ctx)
		}
	}
	for name, s := range w.streams {
		if streams[name] != s && s.cancel != nil {
			s.cancel()
		}
	}
	w.streams = streams
	return nil
}

// printed is what the process that has ended printed. One that ended before it was
// looked into left it with memguard exec all the same.
func (l *life) printed() *stream {
	if s := l.prints(); s != nil {
		return s
	}
	if dir := l.w.cfg.ExecState; dir != "" {
		if s, err := stderr.OpenExec(dir, l.PID, l.Start); err == nil {
			return &stream{Stream: s}
		}
	}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.streams[l.slot.rule]
}

// openStream finds where what the process prints comes through.
func (l *life) openStream() {
	var found *stream
	if dir := l.w.cfg.ExecState; dir != "" {
		s, err := stderr.OpenExec(dir, l.PID, l.Start)
		switch {
		case err == nil:
			found = &stream{Stream: s}
			found.start(context.WithoutCancel(l.ctx)) // how it ended is told after it has
		case !errors.Is(err, fs.ErrNotExist):
			l.w.cfg.Logger.Warn("memguard: what the process prints cannot be read", slog.String("target", l.slot.name), slog.Int("pid", l.PID), slog.Any("error", err))
		}
	}
	if found == nil {
		l.w.mu.Lock()
		found = l.w.streams[l.slot.rule]
		l.w.mu.Unlock()
	}
	l.mu.Lock()
	l.stream = found
	l.mu.Unlock()
	if found == nil {
		l.set(srcGctrace, Off, "its standard error does not come through here: its rule has no stderr, and memguard exec did not start it")
	}
}

// prints is what the process prints; nil if it does not come here.
func (l *life) prints() *stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream
}
