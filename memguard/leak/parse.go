// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"

	"github.com/google/pprof/profile"
)

// maxProfile bounds what is read of a profile, unpacked. That of a program with
// a million goroutines in a thousand places has under 1 MiB.
const maxProfile = 64 << 20

// Errors of [Parse], to be tested with errors.Is.
var (
	// ErrNoGoroutines is of input without a single goroutine that can be read.
	ErrNoGoroutines = errors.New("no goroutines")
	// ErrTooLarge is of a profile of more than 64 MiB unpacked.
	ErrTooLarge = errors.New("profile too large")
)

// Parse reads goroutines from a pprof goroutine or goroutineleak profile
// (debug=0, gzipped or not), its text (debug=1), or a dump as of debug=2, a panic
// or SIGQUIT, by Go 1.18 to 1.27, with other text around it. What it cannot read
// of a dump it counts in Torn, and keeps the rest. The error says why there is
// no snapshot at all.
func Parse(r io.Reader) (*Snapshot, error) {
	s, err := parse(bufio.NewReaderSize(r, 64<<10), true)
	if err != nil {
		return nil, fmt.Errorf("leak: parse: %w", err)
	}
	s.done()
	return s, nil
}

func parse(r *bufio.Reader, packed bool) (*Snapshot, error) {
	head, err := r.Peek(4 << 10)
	switch {
	case len(head) == 0 && err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case len(head) == 0:
		return nil, fmt.Errorf("empty input: %w", ErrNoGoroutines)
	case packed && bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		zip, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return parse(bufio.NewReaderSize(zip, 64<<10), false)
	case profileHead(head), bytes.IndexByte(head, 0) >= 0 && !bytes.Contains(head, []byte("goroutine ")):
		return parseProfile(r)
	case textHead(head):
		return parseText(r)
	}
	return parseDump(r)
}

// profileHead reports whether a message begins as profiles do: with a sample type, or
// with the period's as runtime/pprof writes it, which are messages whose own first
// field is a number (profile.proto). No text has a backspace there. The kilobytes that
// follow may be without a NUL.
func profileHead(head []byte) bool { return len(head) > 2 && head[0]&7 == 2 && head[2] == 1<<3 }

func textHead(head []byte) bool {
	i := bytes.Index(head, []byte(" profile: total "))
	return i >= 0 && bytes.HasSuffix(bytes.TrimSuffix(head[:i], []byte("leak")), []byte("goroutine"))
}

func parseDump(r *bufio.Reader) (*Snapshot, error) {
	s := &Snapshot{Format: Dump}
	d := dumpReader{src: r}
	for {
		g, ok := d.read()
		if !ok {
			break
		}
		s.put(&g)
	}
	s.Torn, s.First = d.torn, d.first
	if s.Goroutines > 0 {
		return s, nil // an error of the reader is one of a torn dump
	}
	if d.err != nil && !errors.Is(d.err, io.EOF) {
		return nil, d.err
	}
	return nil, fmt.Errorf("%d lines: %w", d.line, ErrNoGoroutines)
}

func parseProfile(r io.Reader) (*Snapshot, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxProfile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxProfile {
		return nil, ErrTooLarge
	}
	p, err := profile.ParseUncompressed(b)
	if err != nil {
		return nil, err
	}
	if err := p.CheckValid(); err != nil {
		return nil, err
	}
	value, proved := -1, false
	for i, t := range p.SampleType {
		if t.Type == "goroutine" || t.Type == "goroutineleak" {
			value, proved = i, t.Type == "goroutineleak"
		}
	}
	if value < 0 {
		var types []string
		for _, t := range p.SampleType {
			types = append(types, t.Type)
		}
		return nil, fmt.Errorf("a profile of %q: %w", types, ErrNoGoroutines)
	}
	s := &Snapshot{Format: Profile}
	for i, sample := range p.Sample {
		n := sample.Value[value]
		if n <= 0 || n > maxCount {
			s.tear(i, fmt.Sprint(n), "count out of range")
			continue
		}
		g := goroutine{count: int(n), cut: len(sample.Location) >= maxFrames}
		if proved {
			g.proved = g.count
		}
		for _, l := range sample.Location {
			for _, line := range l.Line {
				f := Frame{Line: int(line.Line)}
				if f.Line < 0 {
					f.Line = 0
				}
				if line.Function != nil {
					f.Func, f.File = shorten(line.Function.Name), shorten(line.Function.Filename)
				}
				g.stack = append(g.stack, named(f, l.Address))
			}
			if len(l.Line) == 0 {
				g.stack = append(g.stack, named(Frame{}, l.Address))
			}
			if len(g.stack) >= 2*maxFrames {
				g.cut = true
				break
			}
		}
		g.state = infer(g.stack)
		g.created = createdAs(sample.Label)
		for k, vs := range sample.Label {
			if g.created.Func != "" && attachLabels[k] {
				continue
			}
			for _, v := range vs {
				g.labels = append(g.labels, Label{Key: shorten(k), Value: shorten(v)})
			}
		}
		sort.Slice(g.labels, func(i, j int) bool {
			a, b := &g.labels[i], &g.labels[j]
			return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value)) < 0
		})
		s.put(&g)
	}
	return s, nil
}

// attachLabels are those of a profile that was read from outside, by package
// attach (WriteGoroutines): unlike the runtime's own it says where goroutines were
// created.
var attachLabels = map[string]bool{"state": true, "reason": true, "created_by": true, "created_at": true}

// createdAs is the go statement in the labels of package attach, empty if they
// have none.
func createdAs(labels map[string][]string) Frame {
	by, at := labels["created_by"], labels["created_at"]
	if len(by) != 1 || len(at) != 1 {
		return Frame{}
	}
	file, line, ok := fileLine("\t" + at[0])
	if !ok {
		return Frame{}
	}
	return Frame{shorten(by[0]), file, line}
}

// maxCount is more goroutines than fit into memory; it keeps sums from overflow.
const maxCount = 1 << 31

func named(f Frame, address uint64) Frame {
	if f.Func == "" {
		f.Func = fmt.Sprintf("%#x", address)
	}
	return f
}

func (s *Snapshot) tear(line int, text, why string) {
	s.Torn++
	if s.First == nil {
		s.First = &SyntaxError{line, strings.ToValidUTF8(text[:min(len(text), 80)], "?"), why}
	}
}

// parseText reads what runtime/pprof's printCountProfile prints for debug=1:
//
//	goroutine profile: total 3
//	2 @ 0x43e4ce 0x44e925
//	# labels: {"route":"/x"}
//	#	0x4a1b2c	main.work+0x2c	/src/main.go:12
func parseText(r *bufio.Reader) (*Snapshot, error) {
	s := &Snapshot{Format: TextProfile}
	d := dumpReader{src: r}
	g, proved := goroutine{}, false
	flush := func() {
		if g.count > 0 {
			if g.state = infer(g.stack); len(g.stack) == 0 {
				g.cut = true
				s.tear(d.line, d.text, "a goroutine without its stack")
			}
			if proved {
				g.proved = g.count
			}
			s.put(&g)
		}
		g = goroutine{}
	}
	for d.next() {
		line := strings.TrimSpace(d.text)
		labels, is := strings.CutPrefix(line, "# labels: {")
		switch {
		case line == "":
			flush()
		case strings.Contains(line, " profile: total "):
			proved = strings.HasPrefix(line, "goroutineleak")
		case is:
			g.labels = parseLabels(strings.TrimSuffix(labels, "}"))
		case strings.HasPrefix(line, "#"):
			f, ok := textFrame(line[1:])
			if !ok || g.count == 0 {
				s.tear(d.line, d.text, "not a frame")
				g.cut = true
			} else if len(g.stack) < 2*maxFrames {
				g.stack = append(g.stack, f)
			}
		default:
			flush()
			count, _, is := strings.Cut(line, " @")
			n, err := strconv.ParseInt(count, 10, 64)
			if !is || err != nil || n <= 0 || n > maxCount {
				s.tear(d.line, d.text, "not a count of goroutines")
				continue
			}
			g.count = int(n)
		}
	}
	flush()
	if s.Goroutines == 0 && s.Torn > 0 {
		return nil, fmt.Errorf("%w: %w", s.First, ErrNoGoroutines)
	}
	if s.Goroutines == 0 && d.err != nil && !errors.Is(d.err, io.EOF) {
		return nil, d.err
	}
	return s, nil
}

// textFrame reads `	0x4a1b2c	main.work+0x2c	/src/main.go:12`, the columns of
// which are padded with tabs.
func textFrame(line string) (Frame, bool) {
	cols := strings.FieldsFunc(line, func(r rune) bool { return r == '\t' })
	if len(cols) == 0 || !strings.HasPrefix(cols[0], "0x") {
		return Frame{}, false
	}
	if len(cols) == 1 { // no symbol: a program counter outside of Go
		return Frame{Func: shorten(cols[0])}, true
	}
	name := cols[1]
	if i := strings.LastIndex(name, "+0x"); i > 0 {
		name = name[:i]
	}
	f := Frame{Func: shorten(strings.TrimSpace(name))}
	if len(cols) < 3 || f.Func == "" {
		return f, false
	}
	var ok bool
	f.File, f.Line, ok = fileLine("\t" + cols[2])
	return f, ok
}
