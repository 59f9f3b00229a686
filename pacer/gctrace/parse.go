// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"bytes"
	"math"
	"math/bits"
	"time"
)

// The parsers below take a slice b that goes on for at least lineSlack bytes
// behind the line, so that the place of a separator can be compared without
// asking whether it is still there, and the position end of the line's end.
// b[end] is never a digit, so no number runs over it, and no separator holds a
// byte that ends a line.
//
// They are written out rather than driven by a table, and take a number's
// digits one by one without a loop, for speed: BenchmarkRegexp. Finding all
// numbers of a line first, and loading eight digits at once, were both slower.
const lineSlack = 32

// No time is longer than maxTime (36 years), and no size but a goal larger
// than maxSize, so that a few of them can be added up. A runtime whose clock
// or counter went backwards prints numbers near 1<<64.
const (
	maxTime = math.MaxInt64 / 8
	maxSize = math.MaxInt64 / 8
)

// maxExtra bounds the text that is accepted where a later release may add some.
const maxExtra = 128

// parseCycle reads the gc line b[i:end] into c; i is behind "gc ". It reports
// whether the line is whole, and leaves c in an undefined state if not.
func (r *Reader) parseCycle(c *Cycle, b []byte, i, end int) (ok bool) {
	n, j := integer(b, i)
	if j == i || n > math.MaxUint32 || string(b[j:j+2]) != " @" {
		return false
	}
	c.N = uint32(n)
	i = j + 2
	if c.At, j = seconds(b, i); j == i || string(b[j:j+2]) != "s " {
		return false
	}
	i = j + 2
	if n, j = integer(b, i); j == i || n > math.MaxInt32 || b[j] != '%' {
		return false
	}
	c.CPUPercent = int(n)
	i = j + 1
	c.Note = ""
	if b[i] != ':' {
		length := bytes.Index(b[i:min(end, i+maxExtra)], []byte(": "))
		if length < 2 || b[i] != ' ' {
			return false
		}
		c.Note = r.intern(&r.note, b[i+1:i+length])
		i += length
	}
	if string(b[i:i+2]) != ": " {
		return false
	}
	i += 2

	if c.SweepTerm, j = milliseconds(b, i); j == i || b[j] != '+' {
		return false
	}
	i = j + 1
	if c.Mark, j = milliseconds(b, i); j == i || b[j] != '+' {
		return false
	}
	i = j + 1
	if c.MarkTerm, j = milliseconds(b, i); j == i || string(b[j:j+11]) != " ms clock, " {
		return false
	}
	i = j + 11
	if c.SweepTermCPU, j = milliseconds(b, i); j == i || b[j] != '+' {
		return false
	}
	i = j + 1
	if c.AssistCPU, j = milliseconds(b, i); j == i || b[j] != '/' {
		return false
	}
	i = j + 1
	if c.MarkCPU, j = milliseconds(b, i); j == i || b[j] != '/' {
		return false
	}
	i = j + 1
	if c.IdleCPU, j = milliseconds(b, i); j == i || b[j] != '+' {
		return false
	}
	i = j + 1
	if c.MarkTermCPU, j = milliseconds(b, i); j == i || string(b[j:j+9]) != " ms cpu, " {
		return false
	}
	i = j + 9

	if n, j = integer(b, i); j == i || n > maxSize/mib || string(b[j:j+2]) != "->" {
		return false
	}
	c.HeapStart = n * mib
	i = j + 2
	if n, j = integer(b, i); j == i || n > maxSize/mib || string(b[j:j+2]) != "->" {
		return false
	}
	c.HeapEnd = n * mib
	i = j + 2
	if n, j = integer(b, i); j == i || n > maxSize/mib || string(b[j:j+5]) != " MB, " {
		return false
	}
	c.HeapLive = n * mib
	i = j + 5
	if n, j = integer(b, i); j == i || n > math.MaxUint64/mib || string(b[j:j+10]) != " MB goal, " {
		return false
	}
	c.HeapGoal = n * mib
	i = j + 10

	c.Stacks, c.Globals = Opt[uint64]{}, Opt[uint64]{}
	n, j = integer(b, i)
	if string(b[j:j+12]) == " MB stacks, " {
		globals, k := integer(b, j+12)
		if j == i || k == j+12 || n > maxSize/mib || globals > maxSize/mib || string(b[k:k+13]) != " MB globals, " {
			return false
		}
		c.Stacks, c.Globals = Some(n*mib), Some(globals*mib)
		i = k + 13
		n, j = integer(b, i)
	}
	if j == i || n > math.MaxInt32 || string(b[j:j+2]) != " P" {
		return false
	}
	c.Procs = int(n)
	i = j + 2

	c.Forced, c.Suffix = false, ""
	if i == end {
		return true
	}
	i, c.Forced = skip(b, i, " (forced)")
	c.Suffix, ok = r.suffix(b[i:end])
	return ok
}

// parseScav reads the scav line b[i:end] into s; i is behind "scav ".
func (r *Reader) parseScav(s *Scavenge, b []byte, i, end int) (ok bool) {
	*s = Scavenge{Form: ScavTotal}
	if n, j := integer(b, i); j > i && b[j] == ' ' && isDigit(b[j+1]) {
		s.Generation = Some(n)
		i = j + 1
	}
	if i, s.Work = column(b, i, "", kib, " KiB work"); !s.Work.ok {
		return false
	}
	if b[i] == ',' {
		i, s.Released = column(b, i, ", ", kib, " KiB total, ")
	} else {
		if s.Generation.ok {
			return false // no release prints both
		}
		s.Form = ScavNow
		if i, s.Eager = column(b, i, " (bg), ", kib, " KiB work (eager), "); !s.Eager.ok {
			return false
		}
		i, s.Released = column(b, i, "", kib, " KiB now, ")
	}
	util, j := integer(b, i)
	if !s.Released.ok || j == i || util > math.MaxInt32 {
		return false
	}
	s.Util = Some(int(util))
	if i, ok = skip(b, j, "% util"); !ok {
		return false
	}
	i, s.Forced = skip(b, i, " (forced)")
	i, s.Reset = skip(b, i, " [controller reset]")
	s.Suffix, ok = r.suffix(b[i:end])
	return ok
}

// parseScvg reads the line b[i:end] of Go 1.13 or older into s; i is behind
// "scvg", and forced tells whether "forced " stood before that.
func (r *Reader) parseScvg(s *Scavenge, b []byte, i, end int, forced bool) (ok bool) {
	*s = Scavenge{Forced: forced}
	if j, ok := skip(b, i, "-1"); ok && !forced {
		s.Seq, s.Forced = Some(int64(-1)), true
		i = j
	} else if n, j := integer(b, i); j > i && n <= math.MaxInt32 && !forced {
		s.Seq = Some(int64(n))
		i = j
	}
	if i, ok = skip(b, i, ": "); !ok {
		return false
	}
	if isDigit(b[i]) {
		s.Form = ScvgReleased
		if i, s.Work = column(b, i, "", mib, " MB released"); !s.Work.ok {
			return false
		}
	} else {
		s.Form = ScvgHeap
		i, s.InUse = column(b, i, "inuse: ", mib, ", ")
		i, s.Idle = column(b, i, "idle: ", mib, ", ")
		i, s.Sys = column(b, i, "sys: ", mib, ", ")
		i, s.Released = column(b, i, "released: ", mib, ", ")
		i, s.Consumed = column(b, i, "consumed: ", mib, " (MB)")
		if !s.InUse.ok || !s.Idle.ok || !s.Sys.ok || !s.Released.ok || !s.Consumed.ok {
			return false
		}
	}
	s.Suffix, ok = r.suffix(b[i:end])
	return ok
}

// column reads a size in multiples of unit between two texts. If it is not
// there, the size is unknown and next is i.
func column(b []byte, i int, before string, unit uint64, after string) (next int, size Opt[uint64]) {
	j, ok := skip(b, i, before)
	if !ok {
		return i, size
	}
	n, k := integer(b, j)
	if k == j || n > maxSize/unit {
		return i, size
	}
	if next, ok = skip(b, k, after); !ok {
		return i, size
	}
	return next, Some(n * unit)
}

// suffix accepts what stands behind the last known column: nothing, or short
// text that is set off from it, as a later release would set it off. Text
// glued to the column is another writer's.
func (r *Reader) suffix(rest []byte) (text string, ok bool) {
	if len(rest) == 0 {
		return "", true
	}
	if len(rest) > maxExtra || rest[0] != ' ' && rest[0] != ',' {
		return "", false
	}
	return r.intern(&r.tail, rest), true
}

// intern returns b as a string that is shared with the last line's.
func (r *Reader) intern(last *string, b []byte) string {
	if string(b) != *last {
		*last = string(b)
	}
	return *last
}

// skip returns the position behind text if b has it at i, else i. Reading on
// past the end of the line is harmless: no text holds a byte that ends one.
func skip(b []byte, i int, text string) (int, bool) {
	if len(b)-i >= len(text) && string(b[i:i+len(text)]) == text {
		return i + len(text), true
	}
	return i, false
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// integer reads the decimal integer at b[i:] and returns the position behind
// it, which is i if there is none or it does not fit into 64 bits.
func integer(b []byte, i int) (v uint64, next int) {
	p := (*[6]byte)(b[i:])
	d := p[0] - '0'
	if d > 9 {
		return 0, i
	}
	v = uint64(d)
	if d = p[1] - '0'; d > 9 {
		return v, i + 1
	}
	v = v*10 + uint64(d)
	if d = p[2] - '0'; d > 9 {
		return v, i + 2
	}
	v = v*10 + uint64(d)
	if d = p[3] - '0'; d > 9 {
		return v, i + 3
	}
	v = v*10 + uint64(d)
	if d = p[4] - '0'; d > 9 {
		return v, i + 4
	}
	v = v*10 + uint64(d)
	if p[5]-'0' > 9 {
		return v, i + 5
	}
	return longInteger(b, i)
}

func longInteger(b []byte, i int) (v uint64, next int) {
	next = i
	for ; isDigit(b[next]); next++ {
		hi, lo := bits.Mul64(v, 10)
		sum, carry := bits.Add64(lo, uint64(b[next]-'0'), 0)
		if hi != 0 || carry != 0 {
			return 0, i
		}
		v = sum
	}
	return v, next
}

// milliseconds reads the time at b[i:], in milliseconds with or without a fraction,
// and returns the position behind it, which is i if there is none.
func milliseconds(b []byte, i int) (d time.Duration, next int) {
	p := (*[6]byte)(b[i:])
	first := p[0] - '0'
	if first > 9 {
		return 0, i
	}
	if p[1] != '.' {
		v, next := integer(b, i) // 10 ms or longer
		if next-i > 7 || b[next] == '.' {
			return longDecimal(b, i, 6)
		}
		return time.Duration(v) * time.Millisecond, next
	}
	digit := p[2] - '0'
	if digit > 9 {
		return 0, i
	}
	v := uint64(first)*10 + uint64(digit)
	if digit = p[3] - '0'; digit > 9 {
		return time.Duration(v) * 100 * time.Microsecond, i + 3
	}
	v = v*10 + uint64(digit)
	if digit = p[4] - '0'; digit > 9 {
		return time.Duration(v) * 10 * time.Microsecond, i + 4
	}
	v = v*10 + uint64(digit)
	if p[5]-'0' > 9 {
		return time.Duration(v) * time.Microsecond, i + 5
	}
	return longDecimal(b, i, 6)
}

// seconds does the same for a time in seconds, which has three decimals.
func seconds(b []byte, i int) (d time.Duration, next int) {
	v, j := integer(b, i)
	p := (*[5]byte)(b[j:])
	d1, d2, d3 := p[1]-'0', p[2]-'0', p[3]-'0'
	if j == i || j-i > 7 || p[0] != '.' || d1 > 9 || d2 > 9 || d3 > 9 || p[4]-'0' <= 9 {
		return longDecimal(b, i, 9)
	}
	v = v*1000 + uint64(d1)*100 + uint64(d2)*10 + uint64(d3)
	return time.Duration(v) * time.Millisecond, j + 4
}

func longDecimal(b []byte, i int, exp uint) (d time.Duration, next int) {
	v, next := longInteger(b, i)
	unit := pow10[exp]
	if next == i || v > maxTime/unit {
		return 0, i
	}
	v *= unit
	if b[next] == '.' {
		if !isDigit(b[next+1]) {
			return 0, i
		}
		for next++; isDigit(b[next]); next++ {
			if unit /= 10; unit == 0 {
				return 0, i
			}
			v += uint64(b[next]-'0') * unit
		}
	}
	return time.Duration(v), next
}
