// SPDX-License-Identifier: Apache-2.0

package exectrace

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/exp/trace"
)

const (
	maxPayers = 4096 // goroutines, and stacks, kept apart while reading
	topPayers = 50   // of them listed
	maxFrames = 64   // per stack; the runtime records 128 at most

	maxStrings = 1 << 16
)

// tally sums what each payer paid. When maxPayers is reached the half that
// paid least is folded into one, so memory is bounded and the sum exact; a
// payer folded away and seen again starts from zero.
type tally[K comparable] struct {
	payers map[K]*payer
	limit  int // maxPayers, or more if so many are at it at once
	other  Payer
}

type payer struct {
	Payer
	busy   int  // assists under way, which keep it from being folded
	folded bool // no longer in the tally

	// The assist under way, if this is a goroutine and busy is 1.
	stack *payer
	begin time.Duration
	proc  trace.ProcID  // where it began
	off   bool          // it left that P since, and may be back on one
	until time.Duration // spent holds its time on a P up to here
	spent time.Duration
}

func (t *tally[K]) get(k K, create func() Payer) *payer {
	if p := t.payers[k]; p != nil {
		return p
	}
	if t.payers == nil {
		t.payers, t.limit = make(map[K]*payer), maxPayers
	}
	if len(t.payers) >= t.limit {
		t.fold()
	}
	p := &payer{Payer: create()}
	t.payers[k] = p
	return p
}

// active returns the payer if it is at it now.
func (t *tally[K]) active(k K) *payer {
	if p := t.payers[k]; p != nil && p.busy > 0 {
		return p
	}
	return nil
}

func (t *tally[K]) fold() {
	walls := make([]time.Duration, 0, len(t.payers))
	for _, p := range t.payers {
		walls = append(walls, p.Wall)
	}
	slices.Sort(walls)
	median := walls[len(walls)/2]
	for k, p := range t.payers {
		if p.busy == 0 && p.Wall <= median {
			t.other.add(p.Payer)
			p.folded = true
			delete(t.payers, k)
		}
	}
	t.limit = max(maxPayers, 2*len(t.payers))
}

// add folds q into p, which stands for many.
func (p *Payer) add(q Payer) {
	p.Count += q.Count
	p.Wall += q.Wall
	p.CPU += q.CPU
	p.Other += max(q.Other, 1)
}

// top returns the payers that lost most wall time, and the rest as one.
func (t *tally[K]) top() []Payer {
	all := make([]Payer, 0, len(t.payers))
	for _, p := range t.payers {
		all = append(all, p.Payer)
	}
	slices.SortFunc(all, func(a, b Payer) int {
		return cmp.Or(cmp.Compare(b.Wall, a.Wall), cmp.Compare(b.Count, a.Count),
			cmp.Compare(a.Name, b.Name), cmp.Compare(a.Goroutine, b.Goroutine))
	})
	other := t.other
	if len(all) > topPayers {
		for _, p := range all[topPayers:] {
			other.add(p)
		}
		all = all[:topPayers]
	}
	if other.Other > 0 {
		other.Name = "(all others)"
		all = append(all, other)
	}
	return all
}

// assistBegin starts an assist and returns its goroutine, or nil if that was
// in one already.
func (s *story) assistBegin(g trace.GoID, proc trace.ProcID, stack trace.Stack, begin time.Duration) *payer {
	a := s.byG.get(g, func() Payer {
		name := root(stack)
		if name == "" {
			name = "(not told: it was assisting when the trace began)"
		}
		return Payer{Goroutine: int64(g), Name: s.intern(name)}
	})
	if a.busy > 0 {
		return nil
	}
	a.stack, a.begin, a.proc, a.off, a.until, a.spent = s.payerOf(stack), begin, proc, false, begin, 0
	a.busy++
	a.stack.busy++
	s.assists++
	s.phase()
	return a
}

// payerOf returns the payer for a stack, through the cache of this generation.
func (s *story) payerOf(stack trace.Stack) *payer {
	if p := s.stacks[stack]; p != nil && !p.folded {
		return p
	}
	// Stacks that differ in no line are one, whatever their ids and PCs.
	key := s.key[:0]
	for f := range stack.Frames() {
		key = append(key, f.Func...)
		key = append(key, ':')
		key = strconv.AppendUint(key, f.Line, 10)
		key = append(key, '\n')
	}
	s.key = key
	p := s.byStack.payers[string(key)] // does not allocate
	if p == nil {
		p = s.byStack.get(string(key), func() Payer {
			fs := s.frames(stack)
			if len(fs) == 0 {
				return Payer{Name: "(no stack)"}
			}
			return Payer{Name: outside(fs), Stack: fs}
		})
	}
	s.stacks[stack] = p
	return p
}

// spend adds the time that an assisting goroutine held the P that it is on.
func (s *story) spend(a *payer, p *proc) {
	d := s.now - max(a.until, p.since)
	a.until = s.now
	a.spent += d
	s.charge(assisting, d)
}

func (s *story) assistEnd(a *payer) {
	s.assists--
	wall := s.now - a.begin
	s.rep.Assists.Count++
	s.rep.Assists.Wall += wall
	s.rep.Assists.CPU += a.spent
	for _, p := range []*payer{a, a.stack} {
		p.busy--
		p.Count++
		p.Wall += wall
		p.CPU += a.spent
	}
}

// frames copies a stack out of the trace reader's tables, which live only as
// long as the generation of events that they belong to.
func (s *story) frames(stack trace.Stack) []Frame {
	var fs []Frame
	for f := range stack.Frames() {
		if len(fs) == maxFrames {
			break
		}
		fs = append(fs, Frame{s.intern(f.Func), s.intern(f.File), f.Line})
	}
	return fs
}

// intern returns a copy of a string that does not keep the memory of a whole
// generation, the same one for the same string.
func (s *story) intern(v string) string {
	if c, ok := s.strings[v]; ok {
		return c
	}
	if len(s.strings) >= maxStrings {
		clear(s.strings)
	}
	c := strings.Clone(v)
	s.strings[c] = c
	return c
}

// outside returns the first function on a stack that is not the runtime's, or
// the first one of all.
func outside(fs []Frame) string {
	for _, f := range fs {
		if !strings.HasPrefix(f.Func, "runtime.") && !strings.HasPrefix(f.Func, "runtime/") {
			return f.Func
		}
	}
	if len(fs) > 0 {
		return fs[0].Func
	}
	return ""
}

// root returns the function that a goroutine began in, by the last frame of
// its stack, or "".
func root(s trace.Stack) (name string) {
	for f := range s.Frames() {
		name = f.Func
	}
	return name
}
