// SPDX-License-Identifier: Apache-2.0

package goexe

import (
	"bytes"
	"errors"
	"math"
	"sort"
)

// Table is a function table as Go 1.20 and later write it (runtime/symtab.go;
// cmd/link/internal/ld/pcln.go):
//
//	header | function names | cu -> file | file names | pc-value tables | functab + functions
//
// Function entries are offsets from the start of the text.
type Table struct {
	b         []byte
	count     int
	quantum   uint64 // of pc deltas: instruction alignment
	funcNames uint64 // offset of the names, from the header
	names     []byte
	cus       []byte
	files     []byte
	pctab     []byte
	functab   []byte // count pairs of entry and offset, and the end of the text
}

// Limits of one function, beyond which a table is not believed.
const (
	maxSteps  = 1 << 20 // of a pc-value table
	maxInline = 64      // depth; the runtime has no limit, compilers stop far earlier
	maxName   = 4096
)

var errTable = errors.New("goexe: broken function table")

// NewTable reads the header of a function table.
func NewTable(b []byte) (*Table, error) {
	if len(b) < 72 || le.Uint32(b) != 0xfffffff1 || b[4] != 0 || b[5] != 0 || b[7] != 8 || b[6] == 0 || b[6] > 4 {
		return nil, errTable
	}
	word := func(i int) uint64 { return le.Uint64(b[8+8*i:]) }
	t := &Table{b: b, quantum: uint64(b[6]), funcNames: word(3)}
	n := word(0)
	if n == 0 || n > uint64(len(b))/8 {
		return nil, errTable
	}
	t.count = int(n)
	// Each part ends where the next begins.
	offs := []uint64{word(3), word(4), word(5), word(6), word(7), uint64(len(b))}
	for i := range 5 {
		if offs[i] > offs[i+1] || offs[i] < 64 {
			return nil, errTable
		}
	}
	t.names, t.cus, t.files, t.pctab = b[offs[0]:offs[1]], b[offs[1]:offs[2]], b[offs[2]:offs[3]], b[offs[3]:offs[4]]
	t.functab = b[offs[4]:]
	if uint64(len(t.functab)) < 8*n+4 {
		return nil, errTable
	}
	return t, nil
}

// Count is the number of functions.
func (t *Table) Count() int { return t.count }

// TextSize is where the text ends, as an offset.
func (t *Table) TextSize() uint64 { return uint64(t.entry(t.count)) }

// entry is the start of function i, as an offset from the text.
func (t *Table) entry(i int) uint32 { return le.Uint32(t.functab[8*i:]) }

// Func is one function.
type Func struct {
	t     *Table
	b     []byte // the _func structure and what follows it
	Entry uint32 // offset from the text
	End   uint32
}

// At returns function i.
func (t *Table) At(i int) (Func, bool) {
	off := uint64(le.Uint32(t.functab[8*i+4:]))
	if off+44 > uint64(len(t.functab)) {
		return Func{}, false
	}
	f := Func{t: t, b: t.functab[off:], Entry: t.entry(i), End: t.entry(i + 1)}
	return f, f.End > f.Entry
}

// Find returns the function that has the offset pc.
func (t *Table) Find(pc uint64) (Func, bool) {
	if pc >= t.TextSize() || pc > math.MaxUint32 {
		return Func{}, false
	}
	i := sort.Search(t.count, func(i int) bool { return uint64(t.entry(i)) > pc }) - 1
	if i < 0 {
		return Func{}, false
	}
	f, ok := t.At(i)
	return f, ok && uint64(f.Entry) <= pc && pc < uint64(f.End)
}

// Name returns the function's name.
func (f Func) Name() string { return f.t.str(f.t.names, uint64(le.Uint32(f.b[4:]))) }

// name returns the name's bytes without a copy.
func (f Func) name() []byte { return cstring(f.t.names, uint64(le.Uint32(f.b[4:]))) }

func (t *Table) str(tab []byte, off uint64) string { return string(cstring(tab, off)) }

func cstring(tab []byte, off uint64) []byte {
	if off >= uint64(len(tab)) {
		return nil
	}
	b := tab[off:min(off+maxName, uint64(len(tab)))]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return nil
}

// Named calls yield for every function whose name is wanted.
func (t *Table) Named(want map[string]bool, yield func(Func)) {
	for i := range t.count {
		if f, ok := t.At(i); ok && want[string(f.name())] {
			yield(f)
		}
	}
}

// The flags of a function (internal/abi/symtab.go).
const (
	flagTopFrame = 1 << 0 // nothing calls it
	flagSPWrite  = 1 << 1 // its frame cannot be told
)

// Top reports whether a stack ends here.
func (f Func) Top() bool { return f.b[41]&flagTopFrame != 0 }

// SPWrite reports whether the function's caller cannot be told.
func (f Func) SPWrite() bool { return f.b[41]&flagSPWrite != 0 }

// StartLine is the line of the func keyword.
func (f Func) StartLine() int { return int(int32(le.Uint32(f.b[36:]))) }

// FrameSize is the distance of the stack pointer at pc from where it was when
// the function was entered.
func (f Func) FrameSize(pc uint64) (uint64, bool) {
	v, ok := f.value(le.Uint32(f.b[16:]), pc)
	return uint64(v), ok && v >= 0
}

// value looks pc up in the pc-value table at off (runtime/symtab.go, pcvalue):
// pairs of a signed value delta and a pc delta, as varints.
func (f Func) value(off uint32, pc uint64) (int32, bool) {
	if off == 0 || uint64(off) >= uint64(len(f.t.pctab)) {
		return -1, false
	}
	b := f.t.pctab[off:]
	at, v := uint64(f.Entry), int32(-1)
	for step := range maxSteps {
		delta, n := uvarint32(b)
		if n == 0 || delta == 0 && step > 0 {
			return -1, false
		}
		b = b[n:]
		if delta&1 != 0 {
			delta = ^(delta >> 1)
		} else {
			delta >>= 1
		}
		v += int32(delta)
		d, n := uvarint32(b)
		if n == 0 {
			return -1, false
		}
		b = b[n:]
		if at += uint64(d) * f.t.quantum; pc < at {
			return v, true
		}
	}
	return -1, false
}

func uvarint32(b []byte) (uint32, int) {
	var v uint32
	for i := 0; i < len(b) && i < 5; i++ {
		v |= uint32(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

// Frame is one line of a stack.
type Frame struct {
	Func      string
	File      string
	Line      int
	StartLine int
	Inlined   bool // into the next frame
}

// Numbers of the tables that go with a function (internal/abi/symtab.go).
const (
	pcdataInlTreeIndex = 2
	funcdataInlTree    = 3
)

// pcdata looks up table number i of the function.
func (f Func) pcdata(i uint32, pc uint64) (int32, bool) {
	n := le.Uint32(f.b[28:])
	if i >= n || 44+4*uint64(i)+4 > uint64(len(f.b)) {
		return -1, false
	}
	return f.value(le.Uint32(f.b[44+4*i:]), pc)
}

// inlTree is the offset of the inline tree from the module's gofunc.
func (f Func) inlTree() (uint32, bool) {
	npcdata := uint64(le.Uint32(f.b[28:]))
	at := 44 + 4*npcdata + 4*funcdataInlTree
	if f.b[43] <= funcdataInlTree || npcdata > 64 || at+4 > uint64(len(f.b)) {
		return 0, false
	}
	off := le.Uint32(f.b[at:])
	return off, off != math.MaxUint32
}

// Frames returns the lines that pc stands for: the innermost inlined call first,
// the function itself last. gofunc reads the module's read-only function data
// at an offset; where it fails, inlined calls are shown as their caller.
func (f Func) Frames(pc uint64, gofunc func(off uint64, b []byte) error) []Frame {
	var out []Frame
	tree, hasTree := f.inlTree()
	at := pc
	for hasTree && gofunc != nil && len(out) < maxInline {
		i, ok := f.pcdata(pcdataInlTreeIndex, at)
		if !ok || i < 0 {
			break
		}
		// runtime/symtabinl.go, inlinedCall: funcID, pad, nameOff, parentPc, startLine.
		var call [16]byte
		if gofunc(uint64(tree)+16*uint64(i), call[:]) != nil {
			break
		}
		fr := f.line(at)
		fr.Func = f.t.str(f.t.names, uint64(le.Uint32(call[4:])))
		fr.StartLine = int(int32(le.Uint32(call[12:])))
		fr.Inlined = true
		parent := uint64(f.Entry) + uint64(le.Uint32(call[8:]))
		if fr.Func == "" || parent >= uint64(f.End) || parent == at {
			break
		}
		out = append(out, fr)
		at = parent
	}
	fr := f.line(at)
	fr.Func, fr.StartLine = f.Name(), f.StartLine()
	return append(out, fr)
}

// line returns file and line at pc.
func (f Func) line(pc uint64) Frame {
	var fr Frame
	if n, ok := f.value(le.Uint32(f.b[24:]), pc); ok {
		fr.Line = int(n)
	}
	if n, ok := f.value(le.Uint32(f.b[20:]), pc); ok && n >= 0 {
		cu := 4 * (uint64(le.Uint32(f.b[32:])) + uint64(n))
		if cu+4 <= uint64(len(f.t.cus)) {
			if off := le.Uint32(f.t.cus[cu:]); off != math.MaxUint32 {
				fr.File = f.t.str(f.t.files, uint64(off))
			}
		}
	}
	return fr
}
