// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"strconv"
)

// Value is a number that the kernel gave, or unknown. The zero Value is
// unknown, so a file that could not be read never looks like a zero.
type Value struct {
	n  uint64
	ok bool
}

// ValueOf returns the known value n.
func ValueOf(n uint64) Value { return Value{n, true} }

// Value returns the number, and whether it is known.
func (v Value) Value() (n uint64, ok bool) { return v.n, v.ok }

// String returns the number in decimal, or "unknown".
func (v Value) String() string {
	if !v.ok {
		return "unknown"
	}
	return strconv.FormatUint(v.n, 10)
}

// Limit is a boundary in bytes. It has three states: unknown, which is the
// zero Limit; known to be absent (Unlimited); or a number of bytes.
type Limit struct {
	n     uint64
	state limitState
}

type limitState uint8

const (
	limitUnknown limitState = iota
	limitNone
	limitBytes
)

// unlimitedFrom is the lowest number that a limit file shows for "no limit".
// Version 1 prints PAGE_COUNTER_MAX (include/linux/page_counter.h): LONG_MAX
// rounded down to a whole page, which depends on the page size; no machine has
// 4 EiB.
const unlimitedFrom = 1 << 62

// LimitOf returns the limit of n bytes. The huge numbers by which version 1
// says "no limit" (9223372036854771712 with pages of 4 KiB) give Unlimited.
func LimitOf(n uint64) Limit {
	if n >= unlimitedFrom {
		return Unlimited()
	}
	return Limit{n, limitBytes}
}

// Unlimited returns the limit that is known not to exist.
func Unlimited() Limit { return Limit{state: limitNone} }

// Value returns the limit in bytes. It is not ok when there is none and when
// it is unknown: both leave nothing to compare with. Known tells them apart.
func (l Limit) Value() (n uint64, ok bool) { return l.n, l.state == limitBytes }

// Unlimited reports whether it is known that there is no limit.
func (l Limit) Unlimited() bool { return l.state == limitNone }

// Known reports whether the limit could be read: a number of bytes or none.
func (l Limit) Known() bool { return l.state != limitUnknown }

// String returns the limit as the kernel writes it: bytes in decimal or "max";
// or "unknown".
func (l Limit) String() string {
	switch l.state {
	case limitBytes:
		return strconv.FormatUint(l.n, 10)
	case limitNone:
		return "max"
	}
	return "unknown"
}

// tighter returns the limit that binds of two that both hold. A number wins
// over an unknown limit, which can only lower it; "none" does not.
func (l Limit) tighter(m Limit) Limit {
	switch {
	case l.state == limitBytes && m.state == limitBytes:
		return Limit{min(l.n, m.n), limitBytes}
	case l.state == limitBytes:
		return l
	case m.state == limitBytes:
		return m
	case l.state == limitNone && m.state == limitNone:
		return l
	}
	return Limit{}
}

// parseUint reads the decimal number of a whole file or field; one newline at
// the end is allowed. The number must fit 64 bits.
func parseUint(b []byte) (uint64, bool) {
	b = bytes.TrimSuffix(b, newline)
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := uint64(c - '0')
		if n > (1<<64-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// parseLimit reads the contents of a limit file: bytes, or "max" in version 2.
func parseLimit(b []byte) (Limit, bool) {
	if string(bytes.TrimSuffix(b, newline)) == "max" {
		return Unlimited(), true
	}
	n, ok := parseUint(b)
	if !ok {
		return Limit{}, false
	}
	return LimitOf(n), true
}

// cutLine returns the first line of b without its newline, and the rest.
func cutLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, newline)
	return line, rest
}

// cutKey splits the line "key number".
func cutKey(line []byte) (key []byte, n uint64, ok bool) {
	key, num, found := bytes.Cut(line, space)
	if !found || len(key) == 0 {
		return nil, 0, false
	}
	n, ok = parseUint(num)
	return key, n, ok
}

var (
	newline = []byte("\n")
	space   = []byte(" ")
)
