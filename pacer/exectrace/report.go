// SPDX-License-Identifier: Apache-2.0

package exectrace

import (
	"encoding/json"
	"fmt"
	"time"
)

// Opt is a number that a trace may not tell. The zero Opt is unknown, and
// unknown is null in JSON, never zero.
type Opt[T ~int64 | ~uint64 | ~float64] struct {
	v  T
	ok bool
}

// Some returns a known value.
func Some[T ~int64 | ~uint64 | ~float64](v T) Opt[T] { return Opt[T]{v, true} }

// Value returns the number and whether it is known.
func (o Opt[T]) Value() (v T, ok bool) { return o.v, o.ok }

// raise makes o at least v, if v is known.
func (o *Opt[T]) raise(v Opt[T]) {
	if v.ok && (!o.ok || v.v > o.v) {
		*o = v
	}
}

// MarshalJSON writes the number, or null when it is unknown.
func (o Opt[T]) MarshalJSON() ([]byte, error) {
	if !o.ok {
		return []byte("null"), nil
	}
	return json.Marshal(o.v)
}

// Phase is what the collector is doing at one instant. The runtime has three
// phases (_GCoff, _GCmark, _GCmarktermination in runtime/mgc.go) and no name
// for the rest; these five are what a trace can tell apart. Exactly one holds
// at a time: marking hides sweeping, and sweeping hides scavenging.
type Phase uint8

const (
	Idle       Phase = iota // nothing below is under way
	Mark                    // between GCBegin and GCEnd, nobody assists
	MarkAssist              // the same, with at least one goroutine in a mark assist
	Sweep                   // from GCEnd until the background sweeper parks, or any P sweeping
	Scavenge                // the background scavenger runs
	numPhases
)

// NumPhases is how many phases there are, for arrays by phase.
const NumPhases = int(numPhases)

var phaseNames = [NumPhases]string{"idle", "mark", "mark with assists", "sweep", "scavenge"}

func (p Phase) String() string {
	if p < numPhases {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase %d", uint8(p))
}

// MarshalText writes the phase's name.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// PhaseTimes is a length of time for each phase, in nanoseconds in JSON.
type PhaseTimes [NumPhases]time.Duration

// Sum is the time of all phases together.
func (t PhaseTimes) Sum() (sum time.Duration) {
	for _, d := range t {
		sum += d
	}
	return sum
}

// MarshalJSON writes an object with the phases that took any time.
func (t PhaseTimes) MarshalJSON() ([]byte, error) {
	m := make(map[string]time.Duration, NumPhases)
	for p, d := range t {
		if d != 0 {
			m[Phase(p).String()] = d
		}
	}
	return json.Marshal(m)
}

// Report is what one execution trace says about garbage collection. All times
// of events are offsets from the first event of the trace, and every duration
// is in nanoseconds in JSON. Totals are exact; the lists are bounded (see the
// limits in this package's constants) and say what they left out.
type Report struct {
	Format string        `json:"format"`  // the trace format's version, "go 1.26"; 1.27 still writes 1.26's
	Events uint64        `json:"events"`  // events read
	Bytes  int64         `json:"bytes"`   // bytes of trace read
	Span   time.Duration `json:"span_ns"` // first event to last event
	Procs  Opt[uint64]   `json:"procs"`   // GOMAXPROCS at the end

	Verdict string `json:"verdict"` // all of it in a sentence or two

	Broken *BrokenError `json:"broken"` // where and why reading stopped early; nil when the trace is whole

	Phases      PhaseTimes   `json:"phases_ns"` // adds up to Span
	Timeline    []Segment    `json:"timeline"`  // contiguous, in order, covers Span
	Transitions []Transition `json:"transitions"`
	Heap        Curve        `json:"heap"`

	Cycles        []Cycle `json:"cycles"`         // the first 8192
	CycleCount    uint64  `json:"cycle_count"`    // all of them, partial ones too
	CyclesDropped uint64  `json:"cycles_dropped"` // not listed in Cycles
	Peak          Peak    `json:"peak"`

	Pauses        []Pause  `json:"pauses"`         // by time; the longest 2048
	PausesDropped uint64   `json:"pauses_dropped"` // shorter ones not listed, but counted in Reasons
	Reasons       []Reason `json:"reasons"`        // every stop-the-world by reason, longest total first

	Assists Assists `json:"assists"`
	CPU     CPU     `json:"cpu"`

	// ScavengerWait is how long, at least, the background scavenger waited for
	// a P when it was ready to run.
	ScavengerWait time.Duration `json:"scavenger_wait_ns"`

	// Unknown counts what this package does not know, by name: event kinds,
	// ranges, labels, metrics and experimental events.
	Unknown map[string]uint64 `json:"unknown"`

	Findings []Finding `json:"findings"`
}

// Segment is a stretch of the timeline. Past 4096 segments neighbours are
// merged: Phase is then the one that held longest, and Time has the split.
type Segment struct {
	Start  time.Duration `json:"start_ns"`
	End    time.Duration `json:"end_ns"`
	Phase  Phase         `json:"phase"`
	Merged int           `json:"merged"` // how many segments this one stands for
	Time   PhaseTimes    `json:"time_ns"`
	Heap   Opt[uint64]   `json:"heap_bytes"` // live heap when it began: /memory/classes/heap/objects:bytes
	Goal   Opt[uint64]   `json:"goal_bytes"` // heap goal when it began: /gc/heap/goal:bytes; unknown when the runtime says 0 (GOGC=off)
}

// Transition counts one change of phase.
type Transition struct {
	From  Phase  `json:"from"`
	To    Phase  `json:"to"`
	Count uint64 `json:"count"`
}

// Curve is the live heap and its goal over time, in steps of Width. A step in
// which neither was reported has no point.
type Curve struct {
	Width  time.Duration `json:"width_ns"`
	Points []Point       `json:"points"`
}

// Point is one step of a Curve: the range of the live heap within it, and the
// last goal. Units are bytes.
type Point struct {
	At   time.Duration `json:"at_ns"`
	Min  Opt[uint64]   `json:"min_bytes"`
	Max  Opt[uint64]   `json:"max_bytes"`
	Last Opt[uint64]   `json:"last_bytes"`
	Goal Opt[uint64]   `json:"goal_bytes"`
}

// Cycle is one GC cycle. What lies outside the trace is unknown.
type Cycle struct {
	N     int                `json:"n"`        // order in the trace, from 1
	Start Opt[time.Duration] `json:"start_ns"` // GCBegin, just before the world stops for sweep termination
	End   Opt[time.Duration] `json:"end_ns"`   // GCEnd, still inside the mark-termination stop

	// Trigger is "heap" (an allocation passed the trigger), "forced"
	// (runtime.GC or debug.FreeOSMemory), "periodic" (the two-minute cycle),
	// or "unknown"; from the stack of GCBegin. By is the first function
	// outside the runtime on that stack.
	Trigger string `json:"trigger"`
	By      string `json:"by,omitempty"`

	// The three clock figures of a gctrace line. The stop that ends a cycle
	// lasts longer than MarkTermination: the world starts again only after
	// the sweeper was set up and every mcache flushed (runtime/mgc.go,
	// gcMarkTermination). MarkStop is the whole of it.
	SweepTermination Opt[time.Duration] `json:"sweep_termination_ns"`
	Mark             Opt[time.Duration] `json:"mark_ns"`
	MarkTermination  Opt[time.Duration] `json:"mark_termination_ns"`
	MarkStop         Opt[time.Duration] `json:"mark_stop_ns"`
	Restarts         int                `json:"restarts"` // mark terminations called off because work was left (golang/go#27993)

	HeapStart Opt[uint64] `json:"heap_start_bytes"`
	HeapEnd   Opt[uint64] `json:"heap_end_bytes"` // when the world stopped for mark termination
	Marked    Opt[uint64] `json:"marked_bytes"`   // found live
	Goal      Opt[uint64] `json:"goal_bytes"`     // the goal before this cycle began, which it was to meet

	Workers Workers            `json:"workers"`
	Sweep   Opt[time.Duration] `json:"sweep_ns"` // GCEnd until the background sweeper parked
	// SweepCut says that the next cycle began before the sweeper had parked.
	SweepCut bool `json:"sweep_cut"`
}

// Overshoot is the heap at the end of marking over the goal that it was to
// stay under: 1.2 is 20 % over.
func (c *Cycle) Overshoot() (ratio float64, ok bool) {
	goal, ok1 := c.Goal.Value()
	end, ok2 := c.HeapEnd.Value()
	if !ok1 || !ok2 || goal == 0 {
		return 0, false
	}
	return float64(end) / float64(goal), true
}

// Whole reports whether the trace holds the cycle from begin to end.
func (c *Cycle) Whole() bool { return c.Mark.ok && c.MarkTermination.ok && c.SweepTermination.ok }

// Peak is the worst of all cycles, listed or not.
type Peak struct {
	Mark             Opt[time.Duration] `json:"mark_ns"`
	SweepTermination Opt[time.Duration] `json:"sweep_termination_ns"`
	MarkTermination  Opt[time.Duration] `json:"mark_termination_ns"` // the whole stop
	Overshoot        Opt[float64]       `json:"overshoot"`           // unknown when no cycle had a goal
	OvershootCycle   int                `json:"overshoot_cycle"`     // its number
	CyclesPerSecond  Opt[float64]       `json:"cycles_per_second"`   // over the fastest 25 cycles in a row; unknown with fewer
	SlowMark         uint64             `json:"slow_mark"`           // mark terminations over 500 µs
	SlowSweep        uint64             `json:"slow_sweep"`          // sweep terminations over 500 µs
	Overshoots       uint64             `json:"overshoots"`          // cycles over their goal by more than 20 % and 16 MiB
	SweepsCut        uint64             `json:"sweeps_cut"`
}

// Pause is one stop-the-world.
type Pause struct {
	Start     time.Duration `json:"start_ns"`
	Length    time.Duration `json:"length_ns"` // from asking the world to stop until it ran again
	Reason    string        `json:"reason"`
	Goroutine int64         `json:"goroutine"` // who stopped it
}

// Reason sums the stops of one reason; the runtime's list is stwReasonStrings
// in runtime/proc.go, and any other name is kept as it is.
type Reason struct {
	Name  string        `json:"name"`
	Count uint64        `json:"count"`
	Total time.Duration `json:"total_ns"`
	Max   time.Duration `json:"max_ns"`
	Cut   uint64        `json:"cut"` // begun but not ended when the trace ended; in no other figure
}

// Workers is GC CPU time by who did the marking: time that a labelled worker
// or an assisting goroutine held a P. A P that the kernel took away counts as
// held, as in the runtime's own figures.
type Workers struct {
	Dedicated  time.Duration `json:"dedicated_ns"`
	Fractional time.Duration `json:"fractional_ns"`
	Idle       time.Duration `json:"idle_ns"` // on Ps that had nothing else to do
	Assist     time.Duration `json:"assist_ns"`
}

// CPU is where the time of the Ps went.
type CPU struct {
	Workers
	Available Opt[time.Duration] `json:"available_ns"` // GOMAXPROCS over time, since it was first reported
	Stopped   time.Duration      `json:"stopped_ns"`   // wall time with the world stopped for GC
	Sweeper   time.Duration      `json:"sweeper_ns"`   // background sweeper
	Sweeping  time.Duration      `json:"sweeping_ns"`  // goroutines made to sweep before they could allocate
	Scavenger time.Duration      `json:"scavenger_ns"` // background scavenger; scavenging by others leaves no event
}

// Share is the marking that was paid for over what was available: idle
// workers are free, and so are not in it.
func (c *CPU) Share() (share float64, ok bool) {
	available, ok := c.Available.Value()
	if !ok || available <= 0 {
		return 0, false
	}
	return float64(c.Dedicated+c.Fractional+c.Assist) / float64(available), true
}

// Assists is who paid for marking with their own time.
type Assists struct {
	Count uint64        `json:"count"`
	Wall  time.Duration `json:"wall_ns"` // time goroutines were held up, waiting for credit included
	CPU   time.Duration `json:"cpu_ns"`  // the part that they spent marking

	Goroutines []Payer `json:"goroutines"` // the 50 that lost most wall time, then the rest as one
	Stacks     []Payer `json:"stacks"`
}

// Payer is one goroutine or one stack that was made to assist. The rest, in
// one Payer, has Other set to how many it sums (each may be counted more than
// once if it came back after it was folded in).
type Payer struct {
	Goroutine int64         `json:"goroutine,omitempty"`
	Name      string        `json:"name"` // the goroutine's first function, or the stack's first one outside the runtime
	Stack     []Frame       `json:"stack,omitempty"`
	Count     uint64        `json:"count"`
	Wall      time.Duration `json:"wall_ns"`
	CPU       time.Duration `json:"cpu_ns"`
	Other     uint64        `json:"other,omitempty"`
}

// Frame is one call on a stack, the callee first.
type Frame struct {
	Func string `json:"func"`
	File string `json:"file"`
	Line uint64 `json:"line"`
}
