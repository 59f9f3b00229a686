// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Record is a *[Cycle], *[Scavenge], *[Notice] or *[SyntaxError].
type Record interface {
	record()
}

// Opt is a number that a line may not hold: the releases print different
// columns. The zero Opt is unknown. It marshals to JSON as the number or null.
type Opt[T int | int64 | uint64 | float64] struct {
	v  T
	ok bool
}

// Some returns the known value v.
func Some[T int | int64 | uint64 | float64](v T) Opt[T] { return Opt[T]{v, true} }

// Get returns the value and whether it is known.
func (o Opt[T]) Get() (v T, ok bool) { return o.v, o.ok }

// MarshalJSON implements [json.Marshaler].
func (o Opt[T]) MarshalJSON() ([]byte, error) {
	if !o.ok {
		return []byte("null"), nil
	}
	return json.Marshal(o.v)
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

// Unbounded is the lowest goal that means "no goal": with GOGC=off and no
// memory limit the runtime prints the largest number it has, which is
// 1<<64 bytes up to Go 1.18 and about 8.9e18 since (97 % of the largest
// memory limit).
const Unbounded = 1 << 60

// LeakCheck is the [Cycle.Note] of a cycle that the goroutine leak profile
// runs (Go 1.26 and later).
const LeakCheck = "(checking for goroutine leaks)"

// Cycle is one garbage collection. It holds no memory of the Reader's, so
// copying it is an assignment.
//
// Sizes are in bytes, rounded down by the runtime to whole MiB. Clock and CPU
// times have two significant digits and a resolution of 1 µs below 10 ms, and
// of 1 ms above.
type Cycle struct {
	Line       int           // in the stream, from 1
	N          uint32        // the cycle's number, from 1 at program start
	At         time.Duration // when it started, since program start; resolution 1 ms
	CPUPercent int           // CPU time spent on GC since program start, in % of what GOMAXPROCS allows, rounded down
	Note       string        // text between "%" and ":", for instance LeakCheck; usually empty

	SweepTerm time.Duration // first stop-the-world: sweep termination, with the time to stop
	Mark      time.Duration // concurrent mark
	MarkTerm  time.Duration // second stop-the-world: mark termination

	SweepTermCPU time.Duration // SweepTerm times the Ps that were stopped
	AssistCPU    time.Duration // mark work done by allocating goroutines
	MarkCPU      time.Duration // dedicated and fractional mark workers
	IdleCPU      time.Duration // mark workers on Ps with nothing else to do
	MarkTermCPU  time.Duration

	HeapStart uint64 // heap when the cycle started
	HeapEnd   uint64 // heap when mark ended
	HeapLive  uint64 // what was marked: the live heap
	HeapGoal  uint64 // the size that this cycle should have ended at; see Unbounded

	Stacks  Opt[uint64] // scannable stacks; since Go 1.18
	Globals Opt[uint64] // scannable globals; since Go 1.18

	Procs  int    // GOMAXPROCS
	Forced bool   // runtime.GC, debug.FreeOSMemory or the leak profile asked for it
	Suffix string // text behind "P" and "(forced)" that no release up to Go 1.27 prints
}

func (*Cycle) record() {}

// GoalUnbounded reports whether nothing but a call would have started this
// cycle: GOGC=off without a memory limit.
func (c *Cycle) GoalUnbounded() bool { return c.HeapGoal >= Unbounded }

// GCCPU returns the CPU time that the cycle took from the program: all of it
// except that of idle workers, which is how the runtime counts, too.
func (c *Cycle) GCCPU() time.Duration {
	return c.SweepTermCPU + c.AssistCPU + c.MarkCPU + c.MarkTermCPU
}

// AppendText appends the line as the runtime prints it, without a newline. It
// implements encoding.TextAppender; the error is always nil.
func (c *Cycle) AppendText(b []byte) ([]byte, error) {
	b = append(b, "gc "...)
	b = strconv.AppendUint(b, uint64(c.N), 10)
	b = append(b, " @"...)
	b = appendDiv(b, uint64(c.At/time.Millisecond), 3)
	b = append(b, "s "...)
	b = strconv.AppendInt(b, int64(c.CPUPercent), 10)
	b = append(b, '%')
	if c.Note != "" {
		b = append(b, ' ')
		b = append(b, c.Note...)
	}
	b = append(b, ": "...)
	b = appendMS(b, c.SweepTerm)
	b = append(b, '+')
	b = appendMS(b, c.Mark)
	b = append(b, '+')
	b = appendMS(b, c.MarkTerm)
	b = append(b, " ms clock, "...)
	b = appendMS(b, c.SweepTermCPU)
	b = append(b, '+')
	b = appendMS(b, c.AssistCPU)
	b = append(b, '/')
	b = appendMS(b, c.MarkCPU)
	b = append(b, '/')
	b = appendMS(b, c.IdleCPU)
	b = append(b, '+')
	b = appendMS(b, c.MarkTermCPU)
	b = append(b, " ms cpu, "...)
	b = strconv.AppendUint(b, c.HeapStart/mib, 10)
	b = append(b, "->"...)
	b = strconv.AppendUint(b, c.HeapEnd/mib, 10)
	b = append(b, "->"...)
	b = strconv.AppendUint(b, c.HeapLive/mib, 10)
	b = append(b, " MB, "...)
	b = strconv.AppendUint(b, c.HeapGoal/mib, 10)
	b = append(b, " MB goal, "...)
	if stacks, ok := c.Stacks.Get(); ok {
		globals, _ := c.Globals.Get()
		b = strconv.AppendUint(b, stacks/mib, 10)
		b = append(b, " MB stacks, "...)
		b = strconv.AppendUint(b, globals/mib, 10)
		b = append(b, " MB globals, "...)
	}
	b = strconv.AppendInt(b, int64(c.Procs), 10)
	b = append(b, " P"...)
	if c.Forced {
		b = append(b, " (forced)"...)
	}
	return append(b, c.Suffix...), nil
}

// String returns the line as the runtime prints it.
func (c *Cycle) String() string {
	b, _ := c.AppendText(nil)
	return string(b)
}

// Form is the shape of a scavenger line, which tells the releases apart.
type Form int

// The forms, oldest first.
const (
	ScvgReleased Form = iota // "scvgN: N MB released", Go 1.9-1.13
	ScvgHeap                 // "scvgN: inuse: N, ...", Go 1.9-1.13
	ScavTotal                // "scav [GENERATION] N KiB work, N KiB total, N% util", Go 1.14-1.20
	ScavNow                  // "scav N KiB work (bg), N KiB work (eager), N KiB now, N% util", Go 1.21-1.27
)

// Scavenge is one line about memory returned to the operating system. Like a
// Cycle it is copied by assignment. Sizes are in bytes, rounded down by the
// runtime to whole MiB in the Scvg forms and to whole KiB in the Scav forms.
type Scavenge struct {
	Line int
	Form Form

	Work     Opt[uint64] // returned since the line before; in ScavNow by the background scavenger alone
	Eager    Opt[uint64] // ScavNow: returned since the line before by allocations that met the memory limit, or by FreeOSMemory
	Released Opt[uint64] // returned and not taken back, now; the columns "total", "now" and "released"
	Util     Opt[int]    // Scav forms: heap in spans, in % of the heap that is not returned

	InUse    Opt[uint64] // ScvgHeap: heap in spans
	Idle     Opt[uint64] // ScvgHeap: heap in no span, returned or not
	Sys      Opt[uint64] // ScvgHeap: heap address space
	Consumed Opt[uint64] // ScvgHeap: Sys less Released

	Seq        Opt[int64]  // the N of scvgN, -1 for a forced one; Go 1.9-1.12
	Generation Opt[uint64] // the scavenger's generation; Go 1.15-1.18
	Forced     bool        // debug.FreeOSMemory asked for it
	Reset      bool        // the scavenger's controller was reset; since Go 1.18
	Suffix     string      // text at the end that no release up to Go 1.27 prints
}

func (*Scavenge) record() {}

// Returned is what the line says was returned since the line before it,
// unknown in the ScvgHeap form.
func (s *Scavenge) Returned() Opt[uint64] {
	work, ok := s.Work.Get()
	if !ok {
		return Opt[uint64]{}
	}
	eager, _ := s.Eager.Get() // the other forms have no such column: Work is all
	return Some(work + eager)
}

// AppendText appends the line as the runtime prints it, without a newline. It
// implements encoding.TextAppender; the error is always nil.
func (s *Scavenge) AppendText(b []byte) ([]byte, error) {
	column := func(before string, v Opt[uint64], unit uint64, after string) {
		b = append(b, before...)
		b = strconv.AppendUint(b, v.v/unit, 10)
		b = append(b, after...)
	}
	switch s.Form {
	case ScvgReleased, ScvgHeap:
		seq, numbered := s.Seq.Get()
		if s.Forced && !numbered {
			b = append(b, "forced "...)
		}
		b = append(b, "scvg"...)
		if numbered {
			b = strconv.AppendInt(b, seq, 10)
		}
		if s.Form == ScvgReleased {
			column(": ", s.Work, mib, " MB released")
		} else {
			column(": inuse: ", s.InUse, mib, "")
			column(", idle: ", s.Idle, mib, "")
			column(", sys: ", s.Sys, mib, "")
			column(", released: ", s.Released, mib, "")
			column(", consumed: ", s.Consumed, mib, " (MB)")
		}
		return append(b, s.Suffix...), nil
	case ScavTotal:
		b = append(b, "scav "...)
		if _, ok := s.Generation.Get(); ok {
			column("", s.Generation, 1, " ")
		}
		column("", s.Work, kib, " KiB work, ")
		column("", s.Released, kib, " KiB total, ")
	case ScavNow:
		column("scav ", s.Work, kib, " KiB work (bg), ")
		column("", s.Eager, kib, " KiB work (eager), ")
		column("", s.Released, kib, " KiB now, ")
	}
	b = strconv.AppendInt(b, int64(s.Util.v), 10)
	b = append(b, "% util"...)
	if s.Forced {
		b = append(b, " (forced)"...)
	}
	if s.Reset {
		b = append(b, " [controller reset]"...)
	}
	return append(b, s.Suffix...), nil
}

// String returns the line as the runtime prints it.
func (s *Scavenge) String() string {
	b, _ := s.AppendText(nil)
	return string(b)
}

// NoticeKind tells what a Notice announces.
type NoticeKind int

// The lines that carry no number this package uses.
const (
	PeriodicGC NoticeKind = iota // "GC forced": two minutes without a cycle; the next cycle is that one
	ScanStats                    // "scan: ...", gctrace=2
	PacerTrace                   // "pacer: ...", gcpacertrace=1
)

// Notice is a line of the runtime's that is known and carries no number this
// package uses.
type Notice struct {
	Line int
	Kind NoticeKind
}

func (*Notice) record() {}

// SyntaxError is a line that begins like one of the runtime's and does not
// parse, most often because another writer's output tore it. It is a record,
// and an error for those who want one.
type SyntaxError struct {
	Line int    `json:"line"`
	Text string `json:"text"` // the line, cut off after maxText bytes
}

// maxText bounds the text that is kept of a line that did not parse.
const maxText = 256

func (*SyntaxError) record() {}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("gctrace: line %d: not a whole trace line: %q", e.Line, e.Text)
}

// appendDiv appends val divided by 10^dec, as itoaDiv in runtime/mgc.go does.
func appendDiv(b []byte, val uint64, dec int) []byte {
	if dec == 0 {
		return strconv.AppendUint(b, val, 10)
	}
	unit := pow10[dec]
	b = strconv.AppendUint(b, val/unit, 10)
	b = append(b, '.')
	for rest := val % unit; dec > 0; dec-- {
		unit /= 10
		b = append(b, byte('0'+rest/unit))
		rest %= unit
	}
	return b
}

// appendMS appends a time in milliseconds, as fmtNSAsMS in runtime/mgc.go
// does: whole from 10 ms on, else two digits and at most three decimals.
func appendMS(b []byte, d time.Duration) []byte {
	if d >= 10*time.Millisecond {
		return strconv.AppendUint(b, uint64(d/time.Millisecond), 10)
	}
	us := uint64(max(d, 0) / time.Microsecond)
	if us == 0 {
		return append(b, '0')
	}
	dec := 3
	for us >= 100 {
		us /= 10
		dec--
	}
	return appendDiv(b, us, dec)
}

var pow10 = [...]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}
