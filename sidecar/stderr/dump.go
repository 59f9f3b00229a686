// SPDX-License-Identifier: Apache-2.0

package stderr

import (
	"bytes"
	"fmt"
	"slices"
)

// A Go program that ends prints why, then the stacks of its goroutines: of thousands,
// megabytes. The first line says more than all the others, and is not among the last
// TailSize bytes. So the beginning of the last dump is kept beside them.

const (
	headSize = 16 << 10 // of a dump that are kept: its first line and first goroutine, which has 100 frames at most (runtime/traceback.go)
	lineSize = 96       // of a line that are looked at
	foreign  = 4 << 10  // between two lines of one dump: of others, or one long line
	gapSize  = 64       // room for the line that says what is missing
)

// dump finds the last dump in a stream and keeps its beginning. The zero dump has seen
// nothing.
type dump struct {
	total  uint64 // bytes of the stream
	line   []byte // the beginning of the line that is open, up to lineSize
	judged bool   // it has been looked at

	next  head   // begins as a dump does; no goroutine has followed yet
	last  head   // the last one that was one
	until uint64 // where that went on last
}

// head is the beginning of a dump.
type head struct {
	from uint64 // offset in the stream
	text []byte // up to headSize
	is   bool   // there is one
	full bool   // no more goes into text
	weak bool   // only what the runtime may say before the first line, so far
}

// add takes what was printed next.
func (d *dump) add(p []byte) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n') + 1
		n, looked := end, 0
		if end == 0 {
			n = len(p)
		}
		if !d.judged {
			looked = min(lineSize-len(d.line), n)
			d.line = append(d.line, p[:looked]...)
			if looked == end || len(d.line) == lineSize {
				d.judge(d.total + uint64(looked) - uint64(len(d.line)))
				d.keep(d.line)
				d.judged = true
			}
		}
		d.keep(p[looked:n])
		d.total += uint64(n)
		if end > 0 {
			d.line, d.judged = d.line[:0], false
		}
		p = p[n:]
	}
}

func (d *dump) keep(b []byte) { d.next.keep(b); d.last.keep(b) }

func (h *head) keep(b []byte) {
	if !h.is || h.full {
		return
	}
	h.text = append(h.text, b[:min(len(b), headSize-len(h.text))]...)
	h.full = len(h.text) == headSize
}

// begin makes h the beginning of another dump.
func (h *head) begin(from uint64, weak bool) {
	*h = head{from: from, text: h.text[:0], is: true, weak: weak}
}

// judge looks at the line that begins at that offset. What a dump begins with is in
// runtime/panic.go (printpanics, fatalthrow) and signal_unix.go (sighandler).
func (d *dump) judge(at uint64) {
	goesOn := d.last.is && at <= d.until+foreign
	switch l := d.line; {
	case bytes.HasPrefix(l, []byte("panic: ")), bytes.HasPrefix(l, []byte("fatal error: ")), signalled(l):
		if !d.next.weak {
			d.next.begin(at, false)
		}
		d.next.weak = false
	case bytes.HasPrefix(l, []byte("runtime: ")): // such as "runtime: out of memory: cannot allocate"
		if !d.next.is || !d.next.weak && at > d.next.from+foreign {
			d.next.begin(at, true)
		}
	case bytes.HasPrefix(l, []byte("goroutine ")) && bytes.IndexByte(l, '[') > 0:
		switch {
		case d.next.is && !d.next.weak && at <= d.next.from+TailSize:
			d.last, d.next = d.next, head{text: d.last.text[:0]}
		case !goesOn: // one without a first line, such as debug.Stack
			d.last.begin(at, false)
		}
		d.until = at + uint64(len(l))
	case len(l) > 0 && l[0] == '\t':
		if goesOn {
			d.until = at + uint64(len(l))
		}
	default:
		if d.next.weak {
			d.next = head{text: d.next.text[:0]}
		}
	}
}

// signalled reports whether a line begins as "SIGQUIT: quit" does.
func signalled(l []byte) bool {
	if !bytes.HasPrefix(l, []byte("SIG")) {
		return false
	}
	i := bytes.Index(l, []byte(": "))
	return i > 3 && !slices.ContainsFunc(l[:i], func(c byte) bool { return (c < 'A' || c > 'Z') && (c < '0' || c > '9') })
}

// resume goes on with a dump whose beginning was kept, and of which so many bytes are
// missing.
func (d *dump) resume(text []byte, missing uint64) {
	d.last = head{text: text, is: true, full: true}
	d.total += uint64(len(text)) + missing
	d.until = d.total
}

// reaches returns the last dump if it begins before the last n bytes of the stream and
// goes on in them.
func (d *dump) reaches(n int) (h *head, ok bool) {
	from := d.total - uint64(n)
	return &d.last, d.last.is && d.last.from < from && d.until > from
}

// before puts the beginning of the last dump before the last bytes of the stream, and a
// line between them that says how many are missing. It is never longer than what was
// printed since the dump began: so who knows how much is of a successor, and cuts off the
// rest, has the dump whole or not at all.
func (d *dump) before(tail []byte) []byte {
	h, ok := d.reaches(len(tail))
	if !ok {
		return tail
	}
	size := d.total - h.from // of the dump so far
	lacks := size - uint64(len(tail))
	if lacks <= uint64(len(h.text)) {
		return append(slices.Clone(h.text[:lacks]), tail...)
	}
	// Whole goroutines, where there are: half a stack is another one for who reads it.
	text := h.text[:min(uint64(len(h.text)), lacks-min(lacks, gapSize))]
	if i := bytes.LastIndex(text, []byte("\n\n")); i >= len(text)/2 {
		text = text[:i+1]
	} else if i := bytes.LastIndexByte(text, '\n'); i >= len(text)/2 {
		text = text[:i+1]
	}
	if i := bytes.Index(tail, []byte("\n\n")); i >= 0 && i < foreign {
		tail = tail[i+2:]
	}
	gap := fmt.Sprintf("\n[memguard: %d bytes are missing here]\n\n", size-uint64(len(text))-uint64(len(tail)))
	return slices.Concat(text, []byte(gap), tail)
}
