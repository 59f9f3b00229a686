// SPDX-License-Identifier: Apache-2.0

package stderr

import "strings"

// The runtime writes a line about a collection in some forty write(2) calls: one for
// each argument of print (runtime/print.go, gwrite). What other goroutines write in
// between lands inside it, so that both lines are torn for whoever reads bytes. In a
// pipe in packet mode (pipe2(2), O_DIRECT) each read returns what one write wrote.
// Seen like this the pieces of a line can be picked out from between the others, and
// nothing of the service's is torn.
//
// The pieces are numbers and the text between them, in this order
// (runtime/mgc.go, gcMarkTermination):

// between is the text behind the first, second, ... number of a line. Where releases
// differ, alternatives stand side by side. A piece may be any part of the text.
var between = [...][]string{
	{" @"}, {"s "},
	{"%: ", "% (checking for goroutine leaks): "}, // since Go 1.26
	{"+"}, {"+"}, {" ms clock, "},
	{"+"}, {"/"}, {"/"}, {"+"}, {" ms cpu, "},
	{"->"}, {"->"}, {" MB, "}, {" MB goal, "},
	{" MB stacks, ", " P\n", " P (forced)\n"}, // no stacks and globals before Go 1.18
	{" MB globals, "},
	{" P\n", " P (forced)\n"},
}

const (
	opening = "gc "
	maxHeld = 256 << 10 // bytes
)

// splitter takes the lines about collections out of packets.
type splitter struct {
	keep  bool              // leave the lines where they are, and only read them
	pass  func(b []byte)    // gets what is the service's, in order
	cycle func(line []byte) // gets a whole line, with its end
	torn  uint64

	line    []byte // that is open; empty: none
	numbers int    // whole numbers in it
	text    string // since the last of them

	// Somebody else may write "gc ", too. Until "gc N @" is complete, all that comes
	// is held back: for a few microseconds, if it is the runtime.
	unsure bool
	held   []byte // all of it, in order
	others []byte // what of it is not the line's
}

// packet takes what one write wrote.
func (s *splitter) packet(p []byte) {
	if len(p) == 0 {
		return
	}
	if s.keep {
		s.pass(p)
	}
	switch {
	case len(s.line) == 0 && string(p) == opening:
		s.line, s.numbers, s.text = append(s.line, p...), 0, ""
		s.unsure = !s.keep
		if s.unsure {
			s.held = append(s.held, p...)
		}
	case len(s.line) == 0 && string(p) == "GC forced\n" && !s.keep: // println in runtime/proc.go, forcegchelper
	case string(p) == opening: // of another process: whose are the next pieces?
		s.give()
		s.other(p)
	case len(s.line) == 0:
		s.other(p)
	default:
		whole, ok := s.piece(p)
		if !ok {
			s.other(p)
			return
		}
		s.line = append(s.line, p...)
		switch {
		case whole:
			s.cycle(s.line)
			s.line = s.line[:0]
		case !s.unsure:
		case s.numbers == 1 && s.text == between[0][0]:
			if len(s.others) > 0 {
				s.pass(s.others)
			}
			s.unsure, s.held, s.others = false, s.held[:0], s.others[:0]
		default:
			s.held = append(s.held, p...)
		}
	}
}

// other takes what is not the open line's.
func (s *splitter) other(p []byte) {
	if s.unsure && len(s.held)+len(p) > maxHeld {
		s.give()
	}
	switch {
	case s.keep:
	case s.unsure:
		s.held = append(s.held, p...)
		s.others = append(s.others, p...)
	default:
		s.pass(p)
	}
}

// give passes on the open line as it came: it was none, two in one, or the stream
// has ended in the middle of it.
func (s *splitter) give() {
	if len(s.line) == 0 {
		return
	}
	switch {
	case s.keep:
	case s.unsure:
		s.pass(s.held)
	default:
		s.pass(s.line)
	}
	if !s.unsure {
		s.torn++
	}
	s.unsure, s.line, s.held, s.others = false, s.line[:0], s.held[:0], s.others[:0]
}

// piece reports whether p continues the open line, and whether it ends it.
func (s *splitter) piece(p []byte) (whole, ok bool) {
	if isNumber(p) {
		if s.numbers == len(between) || s.numbers > 0 && !s.stands(s.text, true) {
			return false, false
		}
		s.numbers++
		s.text = ""
		return false, true
	}
	if s.numbers == 0 || !s.stands(s.text+string(p), false) {
		return false, false
	}
	s.text += string(p)
	return s.text[len(s.text)-1] == '\n', true
}

// stands reports whether the text may stand behind the last number: all of what
// stands there, or the beginning of it.
func (s *splitter) stands(text string, all bool) bool {
	for _, want := range between[s.numbers-1] {
		if text == want || !all && strings.HasPrefix(want, text) {
			return true
		}
	}
	return false
}

// isNumber reports whether p is a number as the runtime prints it: 12, or 0.015.
func isNumber(p []byte) bool {
	if len(p) > 24 {
		return false
	}
	dot := false
	for i, c := range p {
		if c == '.' && i > 0 && i < len(p)-1 && !dot {
			dot = true
		} else if c < '0' || c > '9' {
			return false
		}
	}
	return len(p) > 0
}
