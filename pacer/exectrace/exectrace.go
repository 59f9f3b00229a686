// SPDX-License-Identifier: Apache-2.0

// Package exectrace tells the garbage collector's story out of an execution
// trace (runtime/trace, /debug/pprof/trace, a flight recorder's snapshot):
// when it ran and why, what phase held when, who was made to assist, when the
// world stood still, and what the live heap and its goal did meanwhile.
//
// Traces of Go 1.22 and later are read one generation (about a second) at a
// time, and what is kept about them is bounded, so memory does not grow with
// the length of the trace. Older formats, from Go 1.11, are read as far as
// golang.org/x/exp/trace goes, which holds the whole of such a trace in memory.
//
// What a trace does not tell: scavenging by anyone but the background
// scavenger, a heap goal while GOGC=off (the runtime writes 0, even with a
// memory limit), and how much of a stop was spent waiting for Ps to stop.
package exectrace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"golang.org/x/exp/trace"
)

// Options change how Read reads. The zero Options is ready to use.
type Options struct {
	// Progress, if not nil, is called for each generation of the trace and a
	// few times a second within.
	Progress func(Progress)
}

// Progress is how far Read has got.
type Progress struct {
	Bytes  int64         // taken from the reader
	Events uint64        // read
	At     time.Duration // since the first event
}

const progressEvery = 1 << 18 // events: a tenth of a second or less

// BrokenError says where a trace stopped making sense. What came before it is
// in the Report. The trace format is only readable in whole generations, so
// up to a second before the break may be lost with it.
type BrokenError struct {
	Offset     int64         `json:"offset_bytes"`     // taken from the stream when it broke
	Generation int64         `json:"generation_bytes"` // where the part that broke begins, at most
	Events     uint64        `json:"events"`           // read before it broke
	At         time.Duration `json:"at_ns"`            // the last event, since the first
	Reason     string        `json:"reason"`

	err error
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("exectrace: trace broken between byte %d and byte %d, after %d events and %s: %s",
		e.Generation, e.Offset, e.Events, e.At, e.Reason)
}

// Unwrap returns the stream's own error, if that was the cause.
func (e *BrokenError) Unwrap() error { return e.err }

// Read reads one execution trace to its end. If the trace is truncated or
// corrupt, or the stream fails, it returns the Report on what was whole
// together with a *BrokenError, which is also in the Report. The Report is nil
// only if not one event could be read.
func Read(r io.Reader, o Options) (*Report, error) {
	in := &counter{r: r}
	// trace.NewReader takes a bufio.Reader as its own, so what is buffered in
	// it has not been read yet, and offsets are exact.
	br := bufio.NewReaderSize(in, 1<<16)
	head, _ := br.Peek(len("go 1.22 trace")) // internal/trace/version, headerFmt
	format, _, _ := strings.Cut(string(head), " trace")
	s := newStory()
	switch format {
	case "go 1.11", "go 1.19", "go 1.21":
		s.old = true
	}
	b := (&source{in: in, br: br, story: s, progress: o.Progress}).read()
	if b != nil && b.Events == 0 {
		return nil, fmt.Errorf("exectrace: %w", b.cause())
	}
	rep := s.report()
	rep.Format = format
	rep.Bytes = in.n - int64(br.Buffered())
	if b == nil {
		return rep, nil
	}
	rep.Broken = b
	rep.Verdict = fmt.Sprintf("The trace breaks off after %s. %s", round(b.At), rep.Verdict)
	return rep, b
}

// source feeds a story from a stream.
type source struct {
	in       *counter
	br       *bufio.Reader
	story    *story
	progress func(Progress)
	begin    int64 // offset at which this generation begins, at most
	next     int64 // and the next one
}

func (s *source) offset() int64 { return s.in.n - int64(s.br.Buffered()) }

// read reads to the end. The trace reader panics on some corrupt traces, and
// so may the getters of its events, which the story calls.
func (s *source) read() (broken *BrokenError) {
	defer func() {
		if v := recover(); v != nil {
			broken = s.broken(&panicError{v, panicOrigin()})
		}
	}()
	rd, err := trace.NewReader(s.br)
	if err != nil {
		return s.broken(err)
	}
	for {
		ev, err := rd.ReadEvent()
		if err != nil {
			if err == io.EOF && s.in.err == nil {
				return nil // the last event was a sync, and reported
			}
			if err != io.EOF && s.in.eof && s.br.Buffered() == 0 {
				// Before Go 1.26 a generation has no mark at its end, and the
				// reader stumbles over what a cut one lacks.
				err = fmt.Errorf("the last generation cannot be read, the trace may be cut short: %w", err)
			}
			return s.broken(err)
		}
		syncs := s.story.syncs
		if err := s.story.event(ev); err != nil {
			return s.broken(err)
		}
		if s.story.syncs != syncs {
			s.begin, s.next = s.next, s.offset()
			s.report()
		} else if s.story.events%progressEvery == 0 {
			s.report()
		}
	}
}

func (s *source) report() {
	if s.progress != nil {
		s.progress(Progress{Bytes: s.offset(), Events: s.story.events, At: s.story.now})
	}
}

func (s *source) broken(err error) *BrokenError {
	b := &BrokenError{Offset: s.offset(), Generation: s.begin, Events: s.story.events, At: s.story.now, Reason: reason(err)}
	switch {
	case s.in.err != nil: // the reader drops it, or takes it for the end
		b.err, b.Reason = s.in.err, reason(s.in.err)
	case errors.As(err, new(*panicError)):
		b.err = err
	}
	return b
}

// cause is the error behind a trace of which nothing could be read.
func (e *BrokenError) cause() error {
	if e.err != nil {
		return e.err
	}
	return errors.New(e.Reason)
}

// panicError is a panic of the trace reader.
type panicError struct {
	value  any
	origin string // the function that panicked
}

func (e *panicError) Error() string {
	return fmt.Sprintf("trace reader: %v (in %s)", e.value, e.origin)
}

// panicOrigin names the function that panicked, when called by a deferred
// function.
func panicOrigin() string {
	pcs := make([]uintptr, 32)
	fs := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for panicking := false; ; {
		f, more := fs.Next()
		switch {
		case f.Function == "runtime.gopanic":
			panicking = true
		case panicking && !strings.HasPrefix(f.Function, "runtime."):
			return f.Function
		}
		if !more {
			return "?"
		}
	}
}

// reason is an error in one line: the reader's messages may go on with a dump
// of its state.
func reason(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	const most = 300
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + "..."
	}
	return line
}

// counter counts what a stream gave and remembers how it failed.
type counter struct {
	r   io.Reader
	n   int64
	eof bool
	err error
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err == io.EOF {
		c.eof = true
	} else if err != nil {
		c.err = err
	}
	return n, err
}
