// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// maxLine bounds a line. The longest that the runtime prints is below 300
// bytes; the rest is room for what a log collector puts in front.
const maxLine = 64 << 10

// Reader reads records from a stream. It is not safe for concurrent use.
type Reader struct {
	src io.Reader
	err error // why src ended; io.EOF included

	// buf[start:end] is read and not yet scanned. It holds a line and its end
	// at least; lineSlack bytes behind end may be loaded, not believed.
	buf        []byte
	start, end int
	discarding bool // the line that buf goes on with is over maxLine

	lines, skipped int
	note, tail     string // the last texts where a later release may add one

	rec    Record
	cycle  Cycle
	scav   Scavenge
	notice Notice
}

// NewReader returns a Reader of what r returns. It keeps at most 128 KiB.
func NewReader(r io.Reader) *Reader {
	return &Reader{src: r, buf: make([]byte, 2*maxLine+lineSlack)}
}

// Record returns the record that the last Scan found. It is valid until the
// next Scan; a copy of what it points to is valid for ever.
func (r *Reader) Record() Record { return r.rec }

// Err returns the error that ended the stream, nil at its regular end. What is
// wrong with a line is a [SyntaxError] record and never here.
func (r *Reader) Err() error {
	if r.err == io.EOF {
		return nil
	}
	return r.err
}

// Lines returns how many lines have been read, those that were passed over and
// empty ones included.
func (r *Reader) Lines() int { return r.lines }

// Skipped returns how many of Lines were passed over because they are not the
// runtime's. Lines is always Skipped plus the records so far.
func (r *Reader) Skipped() int { return r.skipped }

// Scan goes on to the next record. It returns false at the end of the stream
// and on a read error, which Err tells apart.
//
// Scan returns a record as soon as its line is complete, without reading
// ahead, so it can follow a live stream.
func (r *Reader) Scan() bool {
	for {
		rest := r.buf[r.start:r.end]
		n := bytes.IndexByte(rest, '\n')
		if r.discarding { // the rest of a line that was too long
			if n >= 0 {
				r.start += n + 1
				r.discarding = false
				continue
			}
			r.start = r.end
			rest = nil
		}
		switch {
		case n >= 0:
			r.start += n + 1
		case len(rest) > maxLine:
			n = len(rest)
			r.discarding = true
		case r.err == nil:
			r.fill()
			continue
		case len(rest) == 0:
			r.rec = nil
			return false
		default: // the last line, without an end
			n = len(rest)
			r.start = r.end
			r.buf[r.end] = '\n'
		}
		r.lines++
		if r.parse(rest[:len(rest)+lineSlack], n) {
			return true
		}
		r.skipped++
	}
}

// fill reads more behind buf[start:end], which it moves to the front first.
func (r *Reader) fill() {
	r.end = copy(r.buf, r.buf[r.start:r.end])
	r.start = 0
	for range 100 {
		n, err := r.src.Read(r.buf[r.end : len(r.buf)-lineSlack])
		r.end += n
		if err != nil && err != io.EOF {
			err = fmt.Errorf("gctrace: read: %w", err)
		}
		r.err = err
		if n > 0 || err != nil {
			return
		}
	}
	r.err = fmt.Errorf("gctrace: read: %w", io.ErrNoProgress)
}

// parse sets rec to what the line b[:end] is. It returns false if the line is
// not the runtime's.
func (r *Reader) parse(b []byte, end int) bool {
	if end > maxLine {
		if ours(b) {
			return r.torn(b[:end])
		}
		return false
	}
	for end > 0 && (b[end-1] == '\r' || b[end-1] == ' ' || b[end-1] == '\t') {
		end--
	}
	switch b[0] {
	case 'g':
		if string(b[:3]) == "gc " && isDigit(b[3]) {
			return r.gcLine(b, 0, end)
		}
	case 's':
		switch {
		case string(b[:5]) == "scav " && isDigit(b[5]):
			return r.scavLine(b, 0, end)
		case string(b[:4]) == "scvg" && scvgMark(b[4]):
			return r.scvgLine(b, 0, end)
		case string(b[:12]) == "scan: total " || string(b[:12]) == "scan: class ":
			return r.noticeLine(ScanStats)
		}
	case 'f':
		if string(b[:12]) == "forced scvg:" {
			return r.scvgLine(b, 0, end)
		}
	case 'G':
		if string(b[:end]) == "GC forced" {
			return r.noticeLine(PeriodicGC)
		}
	case 'p':
		if end > 7 && string(b[:7]) == "pacer: " && pacerLine(b[7:end]) {
			return r.noticeLine(PacerTrace)
		}
	}
	return r.behindPrefix(b, end)
}

// ours reports whether b begins like a line with numbers of the runtime's.
func ours(b []byte) bool {
	return string(b[:3]) == "gc " && isDigit(b[3]) ||
		string(b[:5]) == "scav " && isDigit(b[5]) ||
		string(b[:4]) == "scvg" && scvgMark(b[4]) ||
		string(b[:12]) == "forced scvg:"
}

func scvgMark(c byte) bool { return c == ':' || c == '-' || isDigit(c) }

func pacerLine(rest []byte) bool {
	n := 0
	for n < len(rest) && isDigit(rest[n]) {
		n++
	}
	return n > 0 && bytes.HasPrefix(rest[n:], []byte("% CPU (")) ||
		bytes.HasPrefix(rest, []byte("assist ratio=")) ||
		bytes.HasPrefix(rest, []byte("sweep done at heap size ")) ||
		bytes.HasPrefix(rest, []byte("H_m_prev=")) // up to Go 1.17
}

// behindPrefix looks for a line of the runtime's behind the text that a log
// collector, or a writer that left its line open, put in front.
func (r *Reader) behindPrefix(b []byte, end int) bool {
	if i := findCycle(b[:end]); i >= 0 {
		if fragment(b[:i]) {
			return r.torn(b[:end])
		}
		return r.gcLine(b, i, end)
	}
	if end < len("scvg: 0 MB released") {
		return false
	}
	switch line := b[:end]; b[end-1] {
	case 'l', ')', ']':
		if i := bytes.LastIndex(line, []byte("scav ")); i >= 0 && isDigit(b[i+5]) &&
			(bytes.HasSuffix(line, []byte("% util")) || bytes.Contains(line[i:], []byte("% util "))) {
			if fragment(b[:i]) {
				return r.torn(line)
			}
			return r.scavLine(b, i, end)
		}
		if bytes.HasSuffix(line, []byte(" (MB)")) {
			return r.scvgBehindPrefix(b, end)
		}
	case 'd':
		if bytes.HasSuffix(line, []byte(" MB released")) {
			return r.scvgBehindPrefix(b, end)
		}
	}
	return false
}

func (r *Reader) scvgBehindPrefix(b []byte, end int) bool {
	i := bytes.LastIndex(b[:end], []byte("scvg"))
	if i < 0 || !scvgMark(b[i+4]) {
		return false
	}
	const forced = "forced "
	if bytes.HasSuffix(b[:i], []byte(forced)) {
		i -= len(forced)
	}
	if fragment(b[:i]) {
		return r.torn(b[:end])
	}
	return r.scvgLine(b, i, end)
}

// findCycle returns the position of the first "gc N @N" in line, or -1. An @
// is rare in other text, so that is what it searches.
func findCycle(line []byte) int {
	for from := 0; ; {
		at := bytes.IndexByte(line[from:], '@')
		if at < 0 {
			return -1
		}
		at += from
		from = at + 1
		if at+1 == len(line) || !isDigit(line[at+1]) || at == 0 || line[at-1] != ' ' {
			continue
		}
		i := at - 1
		for i > 0 && isDigit(line[i-1]) {
			i--
		}
		if i < at-1 && i >= 3 && string(line[i-3:i]) == "gc " {
			return i - 3
		}
	}
}

// fragment reports whether prefix is a piece of a trace line. Then two
// processes write to the stream, and a number in the line behind it may be
// made of one's digits and the other's.
func fragment(prefix []byte) bool {
	for _, piece := range []string{" ms clock", " ms cpu", " MB", " KiB", "->", "scav ", "scvg"} {
		if bytes.Contains(prefix, []byte(piece)) {
			return true
		}
	}
	for rest := prefix; ; {
		i := bytes.Index(rest, []byte("gc "))
		if i < 0 {
			return false
		}
		word := i > 0 && (rest[i-1]|0x20-'a' < 26 || isDigit(rest[i-1]))
		rest = rest[i+3:]
		if !word && (len(rest) == 0 || isDigit(rest[0])) {
			return true
		}
	}
}

func (r *Reader) gcLine(b []byte, i, end int) bool {
	if !r.parseCycle(&r.cycle, b, i+len("gc "), end) {
		return r.torn(b[:end])
	}
	r.cycle.Line = r.lines
	r.rec = &r.cycle
	return true
}

func (r *Reader) scavLine(b []byte, i, end int) bool {
	if !r.parseScav(&r.scav, b, i+len("scav "), end) {
		return r.torn(b[:end])
	}
	r.scav.Line = r.lines
	r.rec = &r.scav
	return true
}

func (r *Reader) scvgLine(b []byte, i, end int) bool {
	i, forced := skip(b, i, "forced ")
	if !r.parseScvg(&r.scav, b, i+len("scvg"), end, forced) {
		return r.torn(b[:end])
	}
	r.scav.Line = r.lines
	r.rec = &r.scav
	return true
}

func (r *Reader) noticeLine(kind NoticeKind) bool {
	r.notice = Notice{Line: r.lines, Kind: kind}
	r.rec = &r.notice
	return true
}

// torn makes the line a SyntaxError. It is always true.
func (r *Reader) torn(line []byte) bool {
	text := strings.ToValidUTF8(string(line[:min(len(line), maxText)]), "\uFFFD")
	r.rec = &SyntaxError{Line: r.lines, Text: text}
	return true
}
