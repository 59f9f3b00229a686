// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	bufSize = 64 << 10 // the longest line: PATH_MAX (4096) bytes, each as \ooo at worst, is 16 KiB

	maxErrors = 16      // syntax errors kept; the rest is counted
	maxText   = 160     // bytes of a bad line kept
	maxExtra  = 64      // unknown lines kept per mapping
	maxIntern = 1 << 20 // bytes of paths kept
)

// SyntaxError is a line that is not smaps. It is a record, not the end: reading
// goes on behind it.
type SyntaxError struct {
	Line int    // from 1
	Text string // the line, or its beginning
	Msg  string // what is wrong with it
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("smaps: line %d: %s: %q", e.Line, e.Msg, e.Text)
}

// Reader reads mappings from the text of smaps, smaps_rollup or maps. It holds
// one buffer of 64 KiB and does not allocate once it has seen the paths of a process.
//
// A line that cannot be read is a SyntaxError and spoils no other: a field with a
// bad value stays unknown. After a line that is no field at all the Reader cannot know
// whose fields follow, so it drops them up to the next header and counts each.
type Reader struct {
	src      io.Reader
	buf      []byte
	pos, end int
	srcErr   error // sticky: why there is no more input
	err      error // for Err

	m    [2]Mapping // one that the caller holds, one whose header was read ahead
	cur  int
	next bool // m[1-cur] has its header

	lines int
	nerr  int
	errs  []*SyntaxError

	strings  map[string]string
	interned int        // bytes in strings
	recent   [64]string // some of strings, by a cheap hash

	lay  layout
	seen layout // of the mapping that is being read line by line
	slow bool   // tests: never take the fast path
	last int    // Parse: mappings of the process before
}

// NewReader returns a Reader of src.
func NewReader(src io.Reader) *Reader {
	r := &Reader{buf: make([]byte, bufSize), strings: make(map[string]string)}
	r.Reset(src)
	return r
}

// Reset makes r read src from the start. The buffer and the known paths stay.
func (r *Reader) Reset(src io.Reader) {
	r.src, r.srcErr, r.err = src, nil, nil
	r.pos, r.end = 0, 0
	r.next, r.lines, r.nerr, r.errs = false, 0, 0, nil
}

// Err returns the error that ended the input, nil at its proper end. It is never a
// *SyntaxError.
func (r *Reader) Err() error { return r.err }

// SyntaxErrors returns the bad lines so far: the first ones, and how many there were.
func (r *Reader) SyntaxErrors() (first []*SyntaxError, total int) { return r.errs, r.nerr }

// Mapping returns the mapping that Scan read. It is overwritten by the next Scan;
// a copy of the value is safe to keep.
func (r *Reader) Mapping() *Mapping { return &r.m[r.cur] }

// Scan reads the next mapping. It returns false at the end of the input, or when
// reading fails (see Err).
func (r *Reader) Scan() bool {
	for !r.next {
		line, ok := r.line()
		if !ok {
			if r.srcErr != io.EOF {
				r.err = fmt.Errorf("smaps: read: %w", r.srcErr)
			}
			return false
		}
		if line == nil {
			continue
		}
		if r.next = r.header(line, &r.m[1-r.cur]); !r.next {
			r.syntaxError(line, "outside a mapping")
		}
	}
	r.cur, r.next = 1-r.cur, false
	m := &r.m[r.cur]
	fast := r.fastFields(m)
	r.seen.reset()
	r.seen.stop = fast // it does not see the lines that were read fast
	for {
		line, ok := r.line()
		if !ok {
			break // the end is reported by the next Scan
		}
		if line == nil {
			break // it may have been a header
		}
		if r.header(line, &r.m[1-r.cur]) {
			r.next = true
			break
		}
		if !r.field(line, m) {
			break
		}
	}
	switch {
	case fast && m.known != r.lay.fields.known: // there are more: learn anew
		r.lay.reset()
	case r.seen.n > 0:
		r.lay = r.seen
	}
	return true
}

// fill makes room and reads once. It returns false when nothing more will come.
func (r *Reader) fill() bool {
	if r.srcErr != nil {
		return false
	}
	if r.pos > 0 {
		r.end = copy(r.buf, r.buf[r.pos:r.end])
		r.pos = 0
	}
	for range 100 {
		n, err := r.src.Read(r.buf[r.end:])
		if n < 0 || n > len(r.buf)-r.end {
			n, err = 0, errors.New("smaps: reader returned an impossible count")
		}
		r.end += n
		r.srcErr = err
		if n > 0 {
			return true
		}
		if err != nil {
			return false
		}
	}
	r.srcErr = io.ErrNoProgress
	return false
}

// line returns the next whole line without its newline. A line without an end is a
// SyntaxError, and so is one that does not fit the buffer, which is returned as nil.
func (r *Reader) line() (line []byte, ok bool) {
	from := r.pos // searched up to here
	for {
		if i := bytes.IndexByte(r.buf[from:r.end], '\n'); i >= 0 {
			line = r.buf[r.pos : from+i]
			r.pos = from + i + 1
			r.lines++
			return line, true
		}
		if r.end-r.pos == len(r.buf) {
			r.skipLine()
			return nil, true
		}
		searched := r.end - r.pos
		if !r.fill() {
			if r.pos < r.end {
				r.lines++
				r.syntaxError(r.buf[r.pos:r.end], "no newline: torn")
				r.pos = r.end
			}
			return nil, false
		}
		from = r.pos + searched
	}
}

// skipLine drops a line that does not fit the buffer.
func (r *Reader) skipLine() {
	r.lines++
	r.syntaxError(r.buf[r.pos:r.end], "line too long")
	for {
		r.pos = r.end
		if !r.fill() {
			return
		}
		if i := bytes.IndexByte(r.buf[:r.end], '\n'); i >= 0 {
			r.pos = i + 1
			return
		}
	}
}

func (r *Reader) syntaxError(line []byte, msg string) {
	r.nerr++
	if len(r.errs) < maxErrors {
		text := string(line[:min(len(line), maxText)])
		r.errs = append(r.errs, &SyntaxError{Line: r.lines, Text: text, Msg: msg})
	}
}

// intern returns b as a string, the same one for the same bytes.
func (r *Reader) intern(b []byte) string {
	var recent *string
	if len(b) >= 8 { // in front of the map, which hashes every byte
		h := binary.LittleEndian.Uint64(b) ^ binary.LittleEndian.Uint64(b[len(b)-8:])<<1
		recent = &r.recent[h*0x9e3779b97f4a7c15>>58]
		if *recent == string(b) {
			return *recent
		}
	}
	s, ok := r.strings[string(b)]
	if !ok {
		if r.interned > maxIntern {
			clear(r.strings)
			r.interned = 0
		}
		s = string(b)
		r.strings[s] = s
		r.interned += len(s)
	}
	if recent != nil {
		*recent = s
	}
	return s
}
