// SPDX-License-Identifier: Apache-2.0

// Package programs is small programs that leak goroutines, one for each shape,
// and healthy ones that look alike. Each runs in rounds: a driver calls Round,
// looks at the process, and calls Round again.
package programs

import "sync"

// Program is one program and its true answer.
type Program struct {
	Name string
	// Leaks says whether it leaks. The line that creates what it leaks (of a
	// handler or a timer's function, where it waits) has the comment
	// "creates NAME", unless Creator names a function of the standard library.
	Leaks   bool
	Creator string
	// Shape is the name in the table of shapes.
	Shape string
	// Grows says that nothing in its stack tells a leak from load. Such a program
	// is told to grow, and not to leak, whatever is true.
	Grows bool
	// New returns the function of a round, counted from 0. It starts nothing.
	New func() func(round int)
}

// All returns all programs: those that leak first.
func All() []Program { return append(append([]Program(nil), leaks...), healthy...) }

// Rounds is how many rounds a program runs.
const Rounds = 16

// per is how many leaks there are in a round.
const per = 3

// gate is a place to wait at that can be opened.
type gate struct {
	once sync.Once
	ch   chan struct{}
}

func newGate() *gate { return &gate{ch: make(chan struct{})} }

func (g *gate) open() { g.once.Do(func() { close(g.ch) }) }

func (g *gate) wait() { <-g.ch }
