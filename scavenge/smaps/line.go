// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"bytes"
	"encoding/binary"
	"math"
)

// The lines, as fs/proc/task_mmu.c prints them on a 64-bit kernel:
//
//	55cd2a19f000-55cd2a24c000 r-xp 00000000 fe:00 9979393                    /usr/bin/x
//	1            2            3    4        5     6                          7
//	Rss:                  12 kB
//	THPeligible:           0
//	ProtectionKey:         0
//	VmFlags: rd ex mr mw me
//
// 1-2 address range, 3 permissions, 4 offset, 5 device, 6 inode (decimal; the rest is
// hexadecimal), 7 path, at column 73 or one blank behind the inode if that is further.
// A byte count is padded to 28 bytes: 16 for the name, 8 for the number, " kB\n".
const pathColumn = 73

// nibble maps a lower-case hexadecimal digit to its value and all else to 0xff.
var nibble = func() (t [256]uint8) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = uint8(i)
	}
	return t
}()

// hex reads at most 16 hexadecimal digits at b[i:] that end in the byte stop and
// returns the index behind it, or 0.
func hex(b []byte, i int, stop byte) (v uint64, next int) {
	for j := i; j < len(b); j++ {
		d := nibble[b[j]]
		if d == 0xff {
			if b[j] == stop && j > i && j-i <= 16 {
				return v, j + 1
			}
			return 0, 0
		}
		v = v<<4 | uint64(d)
	}
	return 0, 0
}

// decimal reads the digits at the start of b. ok is false without a digit or above 2^64-1.
func decimal(b []byte) (v uint64, n int, ok bool) {
	for n < len(b) && b[n]-'0' <= 9 {
		d := uint64(b[n] - '0')
		if v > (math.MaxUint64-d)/10 {
			return 0, n, false
		}
		v = v*10 + d
		n++
	}
	return v, n, n > 0
}

// permLetter maps a letter of the permission column to its Perms, and '-' and 'p' to bits beyond them.
var permLetter = [256]uint8{
	'r': uint8(PermRead), 'w': uint8(PermWrite), 'x': uint8(PermExec), 's': uint8(PermShared), '-': 0x10, 'p': 0x20,
}

// permissions reads a column such as "rw-p".
func permissions(b []byte) (p Perms, ok bool) {
	r, w, x, s := permLetter[b[0]], permLetter[b[1]], permLetter[b[2]], permLetter[b[3]]
	ok = r&(0x10|uint8(PermRead)) != 0 && w&(0x10|uint8(PermWrite)) != 0 &&
		x&(0x10|uint8(PermExec)) != 0 && s&(0x20|uint8(PermShared)) != 0
	return Perms((r | w | x | s) & 0x0f), ok
}

// header parses the first line of a mapping into m and forgets all that m held. It
// returns false, with m in no particular state, if the line is none.
func (r *Reader) header(b []byte, m *Mapping) bool {
	if len(b) < 2 || nibble[b[0]] == 0xff {
		return false
	}
	start, i := hex(b, 0, '-')
	if i == 0 {
		return false
	}
	end, i := hex(b, i, ' ')
	if i == 0 || end <= start || i+5 > len(b) {
		return false
	}
	perms, ok := permissions(b[i : i+4])
	if !ok || b[i+4] != ' ' {
		return false
	}
	i += 5
	m.Start, m.End, m.Perms = start, end, perms
	m.Offset, m.Inode, m.DevMajor, m.DevMinor = 0, 0, 0, 0
	m.Kind, m.VmFlags, m.Extra, m.known = Unknown, "", nil, 0
	m.thpEligible, m.thpKnown, m.pkey, m.pkeyKnown = false, false, 0, false
	if rest := b[i:]; string(rest) == "00000000 00:00 0 " { // most mappings: no file, no name
		m.Path = ""
		return true
	}
	offset, i := hex(b, i, ' ')
	if i == 0 {
		return false
	}
	major, i := hex(b, i, ':')
	if i == 0 || major > math.MaxUint32 {
		return false
	}
	minor, i := hex(b, i, ' ')
	if i == 0 || minor > math.MaxUint32 {
		return false
	}
	inode, n, ok := decimal(b[i:])
	i += n
	if !ok || i < len(b) && b[i] != ' ' {
		return false
	}
	m.Offset, m.Inode, m.DevMajor, m.DevMinor = offset, inode, uint32(major), uint32(minor)
	m.Path = r.path(b, i)
	return true
}

// path returns the path of a header line b whose inode ends at i.
func (r *Reader) path(b []byte, i int) string {
	if i+1 >= len(b) {
		return ""
	}
	p := bytes.TrimLeft(b[i:], " ")
	if at := max(pathColumn, i+1); len(b)-len(p) > at && len(p) > 0 {
		p = b[at:] // the blanks behind the column are the name's own
	}
	if bytes.Contains(p, []byte(`\012`)) {
		p = bytes.ReplaceAll(p, []byte(`\012`), []byte("\n"))
	}
	return r.intern(p)
}

// field parses a line below a header into m. It returns false if the line is none;
// a field with a bad value is one, and is reported.
func (r *Reader) field(b []byte, m *Mapping) bool {
	if flags, ok := bytes.CutPrefix(b, []byte("VmFlags:")); ok {
		flags = bytes.TrimSpace(flags)
		if len(flags) == 0 || m.VmFlags != "" { // there is no mapping without any flag
			r.syntaxError(b, "bad VmFlags")
			return true
		}
		m.VmFlags = VmFlags(r.intern(flags))
		return true
	}
	colon := bytes.IndexByte(b, ':')
	if colon <= 0 || !isName(b[:colon]) {
		r.syntaxError(b, "neither a mapping nor a field")
		return false
	}
	name, value := b[:colon], bytes.TrimSpace(b[colon+1:])
	switch string(name) {
	case "THPeligible":
		v, n, ok := decimal(value)
		if !ok || n != len(value) || m.thpKnown {
			r.syntaxError(b, "bad THPeligible")
			return true
		}
		m.thpEligible, m.thpKnown = v != 0, true
		return true
	case "ProtectionKey":
		v, n, ok := decimal(value)
		if !ok || n != len(value) || v > math.MaxUint32 || m.pkeyKnown {
			r.syntaxError(b, "bad ProtectionKey")
			return true
		}
		m.pkey, m.pkeyKnown = uint32(v), true
		return true
	}
	k, known := fieldByName(name)
	if !known {
		if len(m.Extra) >= maxExtra {
			r.syntaxError(b, "too many unknown fields")
			return true
		}
		m.Extra = append(m.Extra, ExtraField{string(name), string(value)})
		return true
	}
	kb, n, ok := decimal(value)
	switch {
	case !ok || string(value[n:]) != " kB":
		r.syntaxError(b, "not a number of kB")
	case kb > math.MaxUint64>>10:
		r.syntaxError(b, "more than 2^64 bytes")
	case !m.set(k, kb<<10):
		r.syntaxError(b, "field seen twice")
	default:
		r.seen.learn(b, k, kb<<10, m.known)
	}
	return true
}

func isName(b []byte) bool {
	for _, c := range b {
		if c|0x20-'a' > 'z'-'a' && c-'0' > 9 && c != '_' {
			return false
		}
	}
	return true
}

// layout is the run of padded byte counts below a header. The kernel prints the same
// one for every mapping of a file, so the first mapping, read line by line, teaches it
// for the others.
type layout struct {
	n      int                       // lines
	stop   bool                      // learn no further lines
	field  [numFields]Field          // of each line
	text   [numFields * lineLen]byte // the lines as last seen
	same   int                       // from text[same:] on, the last two mappings had the same
	fields Fields                    // their values
}

const (
	lineLen = 28
	number  = 16 // index of the 8 bytes of the number, behind the name
)

func (l *layout) reset() { l.n, l.stop, l.same, l.fields.known = 0, false, 0, 0 }

// learn adds line b, without its newline, which set field k to n bytes; known is what is set by now. A
// line that is not padded as the kernel does it ends the layout.
func (l *layout) learn(b []byte, k Field, n uint64, known uint32) {
	if l.stop || len(b) != lineLen-1 || known != l.fields.known|1<<k || string(b[24:]) != " kB" ||
		len(bytes.TrimRight(b[:16], " ")) != len(k.String())+1 {
		l.stop = true
		return
	}
	line := l.text[l.n*lineLen:]
	copy(line, b)
	line[lineLen-1] = '\n'
	l.field[l.n] = k
	l.fields.set(k, n)
	l.n++
}

// fastFields reads the lines of the learnt layout, and the THPeligible behind them. It is all or
// nothing: at any difference it returns false and has consumed nothing.
//
// Most lines are those of the mapping before: the same page size, or 0. The last ones are compared with
// those all at once, as long as that goes well, the others as words, and a number is converted if it differs.
func (r *Reader) fastFields(m *Mapping) bool {
	l := &r.lay
	need := l.n * lineLen
	if need == 0 || r.slow {
		return false
	}
	for r.end-r.pos < need {
		if !r.fill() {
			return false
		}
	}
	b, text := r.buf[r.pos:r.end], l.text[:need]
	todo := l.same // in front of it lines are judged singly
	if string(b[todo:need]) != string(text[todo:]) {
		todo = need
	}
	same := 0
	for i := 0; i < todo; i += lineLen {
		s, t := (*[lineLen]byte)(b[i:]), (*[lineLen]byte)(text[i:])
		if (load(s, 0)^load(t, 0))|(load(s, 8)^load(t, 8))|(load(s, 20)^load(t, 20))>>32 != 0 {
			return false
		}
		w := load(s, number)
		if w == load(t, number) {
			continue
		}
		kb, ok := decimal8(w)
		if !ok {
			return false
		}
		k := l.field[i/lineLen]
		binary.LittleEndian.PutUint64(t[number:], w)
		l.fields.n[k] = kb << 10
		same = i + lineLen
	}
	l.same = same
	m.Fields = l.fields
	r.pos += need
	r.lines += l.n

	const eligible = "THPeligible:           "
	if b = b[need:]; len(b) > len(eligible)+1 && string(b[:len(eligible)]) == eligible && b[len(eligible)+1] == '\n' {
		if c := b[len(eligible)]; c == '0' || c == '1' {
			m.thpEligible, m.thpKnown = c == '1', true
			r.pos += len(eligible) + 2
			r.lines++
		}
	}
	return true
}

func load(line *[lineLen]byte, i int) uint64 { return binary.LittleEndian.Uint64(line[i:]) }

// decimal8 reads a decimal number of 8 characters, padded with blanks on the left. Loaded
// little-endian, its last digit is the top byte; all 8 are judged and converted at once, in one register.
func decimal8(w uint64) (n uint64, ok bool) {
	const (
		ones  = 0x0101010101010101
		pairs = 0x000000ff000000ff
	)
	t := w ^ ones*' '          // a blank is 0x00 now, a digit 0x10-0x19
	digit := t & (ones * 0x10) // 0x10 where there is a digit
	low := digit - digit>>4    // 0x0f there
	bad := t&^(digit|low) |    // neither blank nor digit
		(t+ones*0x06)&(ones*0x20) | // above 9: 0x1a-0x1f carry
		(digit<<8|0x10<<56)&^digit // a blank behind a digit, or at the end
	t &= low
	t = t*10 + t>>8 // pairs of digits, then fours, then all
	n = ((t&pairs)*(100+1000000<<32) + (t>>16&pairs)*(1+10000<<32)) >> 32
	return n, bad == 0
}
