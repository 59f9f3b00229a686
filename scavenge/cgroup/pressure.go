// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"time"
)

// PSI is the pressure stall information for memory
// (Documentation/accounting/psi.rst). The zero PSI knows nothing.
type PSI struct {
	// Host says that the figures are those of the whole machine: version 1
	// has none per group, and neither has the root of version 2.
	Host bool

	some, full     Pressure
	someOK, fullOK bool
}

// Some returns the time in which at least one task waited for memory, and
// whether it is known.
func (p *PSI) Some() (Pressure, bool) { return p.some, p.someOK }

// Full returns the time in which all tasks that were not idle waited for
// memory, and whether it is known.
func (p *PSI) Full() (Pressure, bool) { return p.full, p.fullOK }

// Pressure is the share of time lost, in percent (0 to 100) over the last 10,
// 60 and 300 seconds, and the time lost since the group was made.
type Pressure struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration // resolution 1 µs
}

// parsePSI fills p from a pressure file. It returns the number of lines that
// do not have the form of the first two, and leaves p unknown there.
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=0
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=0
func parsePSI(text []byte, p *PSI) (bad int) {
	for rest := text; len(rest) > 0; {
		var line []byte
		line, rest = cutLine(rest)
		kind, fields, _ := bytes.Cut(line, space)
		v, ok := parsePressure(fields)
		switch {
		case ok && string(kind) == "some":
			p.some, p.someOK = v, true
		case ok && string(kind) == "full":
			p.full, p.fullOK = v, true
		default:
			bad++
		}
	}
	return bad
}

// parsePressure reads "avg10=... avg60=... avg300=... total=...". All four
// must be there; other fields are passed over.
func parsePressure(fields []byte) (p Pressure, ok bool) {
	var seen uint8
	for len(fields) > 0 {
		var field []byte
		field, fields, _ = bytes.Cut(fields, space)
		key, val, _ := bytes.Cut(field, equals)
		switch string(key) {
		case "avg10":
			p.Avg10, ok = parsePercent(val)
			seen |= 1
		case "avg60":
			p.Avg60, ok = parsePercent(val)
			seen |= 2
		case "avg300":
			p.Avg300, ok = parsePercent(val)
			seen |= 4
		case "total":
			var n uint64
			n, ok = parseUint(val)
			ok = ok && n <= uint64(maxDuration/time.Microsecond)
			p.Total = time.Duration(n) * time.Microsecond
			seen |= 8
		default:
			ok = true
		}
		if !ok {
			return Pressure{}, false
		}
	}
	if seen != 15 {
		return Pressure{}, false
	}
	return p, true
}

const maxDuration = time.Duration(1<<63 - 1)

// parsePercent reads the kernel's fixed form: digits, a point, two digits.
func parsePercent(b []byte) (float64, bool) {
	whole, frac, found := bytes.Cut(b, point)
	w, ok := parseUint(whole)
	if !ok || !found || w > 100 || len(frac) != 2 {
		return 0, false
	}
	f, ok := parseUint(frac)
	return float64(w*100+f) / 100, ok
}

var (
	equals = []byte("=")
	point  = []byte(".")
)
