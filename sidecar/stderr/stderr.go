// SPDX-License-Identifier: Apache-2.0

// Package stderr takes what a service prints on standard error: it keeps the last
// of it, and reads what the Go runtime prints about its collections.
//
// [Open] reads where somebody else sends the stream to. [Pump] is the stream's own
// reader: memguard exec puts it between a service and the real standard error.
//
// # Where to send a stream
//
// To a file, or through memguard exec. A pipe kills and freezes: a Go program that
// writes to standard error after its reader has gone dies of SIGPIPE (os/file_unix.go,
// epipecheck), and one whose reader stands still stops at its next collection,
// because the runtime prints about it while it holds up the next. A FIFO that the
// sidecar reads is such a pipe: the service dies with the sidecar.
package stderr

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/memguard/memguard-go/pacer/gctrace"
)

// TailSize is how much is kept of what was printed last, in bytes, beside the beginning
// of a dump.
const TailSize = 64 << 10

// maxCycles is how many collections a Stream keeps.
const maxCycles = 1024

// Stream is what a service prints. Its methods may be called from several
// goroutines; everything in it is untrusted text.
type Stream struct {
	input func(ctx context.Context) (io.ReadCloser, error)
	life  *life // of memguard exec; nil: none

	mu     sync.Mutex
	tail   ring
	dump   dump
	cycles []gctrace.Cycle // the last, as a ring: that with number n stands at (n-1) % maxCycles
	counts Counts
}

// Counts is how much was read: by a Stream since it was opened, by a [Pump] of the
// service's whole life.
type Counts struct {
	Bytes   uint64 `json:"bytes"`
	Cycles  uint64 `json:"cycles"`
	Torn    uint64 `json:"torn"`    // lines of the collector that could not be read
	Dropped uint64 `json:"dropped"` // bytes that a Pump could not record or pass on; a Stream has none
}

// Exit is how a process ended.
type Exit struct {
	PID    int       `json:"pid"` // as memguard exec saw it, which may live in another pid namespace
	Start  uint64    `json:"start_ticks"`
	Code   int       `json:"code"`   // if it left by itself
	Signal int       `json:"signal"` // that ended it; 0 if it left by itself
	Time   time.Time `json:"time"`
	Counts Counts    `json:"counts"` // of its whole life
}

// Run reads until ctx ends, which is no error, or the stream does, which a file
// never does. It never waits for anything but the stream. A Stream runs once.
func (s *Stream) Run(ctx context.Context) error {
	in, err := s.input(ctx)
	if err != nil {
		return fmt.Errorf("stderr: %w", err)
	}
	defer in.Close()
	r := gctrace.NewReader(&tee{in, s})
	for r.Scan() {
		s.add(r.Record())
	}
	if err := r.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("stderr: %w", err)
	}
	return nil
}

// tee shows the Stream what is read.
type tee struct {
	io.Reader
	s *Stream
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if n > 0 {
		t.s.mu.Lock()
		t.s.counts.Bytes += uint64(n)
		t.s.tail.add(p[:n])
		t.s.dump.add(p[:n])
		t.s.mu.Unlock()
	}
	return n, err
}

func (s *Stream) add(rec gctrace.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch rec := rec.(type) {
	case *gctrace.Cycle:
		if len(s.cycles) < maxCycles {
			s.cycles = append(s.cycles, *rec)
		} else {
			s.cycles[s.counts.Cycles%maxCycles] = *rec
		}
		s.counts.Cycles++
	case *gctrace.SyntaxError:
		s.counts.Torn++
	}
}

// Tail is the last that was printed, TailSize bytes of it. If a dump of goroutines
// began before them and goes on in them, its first 16 KiB stand before, and between
// them a line of ours that says how many bytes are missing there. All of it is never
// more than was printed since the dump began.
func (s *Stream) Tail() []byte {
	if s.life != nil {
		return s.life.tail()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dump.before(s.tail.bytes())
}

// Cycles returns the collections behind the first after ones, and how many there
// were in all: what to ask with the next time. The last 1,024 are kept, so fewer
// than next - after come back if some were dropped.
func (s *Stream) Cycles(after uint64) (cycles []gctrace.Cycle, next uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = s.counts.Cycles
	if after > next { // not a number of ours
		after = 0
	}
	if next > maxCycles {
		after = max(after, next-maxCycles)
	}
	for n := after; n < next; n++ {
		cycles = append(cycles, s.cycles[n%maxCycles])
	}
	return cycles, next
}

// Counts says how much was read so far.
func (s *Stream) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// Exit is how the process ended, if memguard exec ran it and it has.
func (s *Stream) Exit() (Exit, bool) {
	if s.life == nil {
		return Exit{}, false
	}
	return s.life.exit()
}

// ring keeps the last bytes.
type ring struct {
	buf []byte // grows to TailSize
	at  int    // where the next byte goes once it is full
}

func (r *ring) add(p []byte) {
	if len(p) >= TailSize {
		r.buf, r.at = append(r.buf[:0], p[len(p)-TailSize:]...), 0
		return
	}
	if n := min(TailSize-len(r.buf), len(p)); n > 0 {
		r.buf = append(r.buf, p[:n]...)
		p = p[n:]
	}
	for len(p) > 0 {
		n := copy(r.buf[r.at:], p)
		r.at = (r.at + n) % TailSize
		p = p[n:]
	}
}

func (r *ring) bytes() []byte {
	return append(append(make([]byte, 0, len(r.buf)), r.buf[r.at:]...), r.buf[:r.at]...)
}
