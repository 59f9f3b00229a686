// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"cmp"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/memguard/sizeclass"
	"github.com/memguard/memguard-go/pacer"
	"github.com/memguard/memguard-go/scavenge"
)

// hand is the part of a guard that acts on its own process. The controllers only
// plan; the hand does what they say, and in a dry run only says so.
type hand struct {
	g   *Guard
	dry bool

	sets   bool // it changes settings: not in a dry run, and not beside another guard
	second bool // there was another one, and that was told

	reading  pacer.Reading
	resident uint64 // of what the runtime has mapped
	known    bool   // reading is of this tick
	breaker  pacer.StateFunc
	asked    chan struct{} // the breaker is to be asked
	once     sync.Once     // for the goroutine that does
	state    atomic.Uint32 // its last answer
	deaf     atomic.Bool   // it has panicked, and is asked no more
	governor pacer.Governor
	applier  *pacer.Applier
	decision pacer.Decision
	wanted   pacer.Setting // last applied; if it sets nothing, planned
	toldAt   time.Time     // when a change of the memory limit was last told
	told     ActionName    // the change of this setting is an event already
	settled  bool          // the GC percent was chosen once
	higher   rise          // of it
	clamped  clamp         // that stands; zero while nothing is clamped
	clampAt  time.Time     // when one was last told
	changes  uint64
	clamps   uint64
	seenTo   uint64 // cycles that it has seen to: see firstCycles

	releaser scavenge.Releaser
	outcome  *scavenge.Outcome // that the releaser has not heard of
	heap     scavenge.Heap
	group    scavenge.Cgroup
	class    scavenge.Class
	classes  sizeclass.Tracker
	classAt  time.Time
	plan     scavenge.Plan

	limiter  *shed.Limiter
	unlook   func() // it looks at the usage no more; nil if it does not
	shedding shedding
	memory   *shed.Breaker
	memoryIs pacer.State // the state that was told last
	spun     spun
	exiting  bool

	compact   func()
	compacted compaction
	orders    orders
}

// gcBudget is the collector's share of the CPU where Config.GCBudget says nothing.
const gcBudget = 0.25

func newHand(cfg *Config, g *Guard) *hand {
	table := cfg.Table
	if cfg.Breaker == nil && cfg.MemoryBreaker == nil {
		table = nil
	} else if table == nil {
		table = pacer.DefaultTable()
	}
	budget := cfg.GCBudget
	if !(budget > 0 && budget < 1) {
		budget = gcBudget
	}
	applier := pacer.NewApplier()
	h := &hand{
		applier: applier, wanted: applier.Baseline(),
		g: g, dry: cfg.DryRun, breaker: cfg.Breaker, asked: make(chan struct{}, 1), limiter: cfg.Shed, memory: cfg.MemoryBreaker, compact: cfg.Compact,
		governor: pacer.Governor{Table: table, Budget: budget, OnSpiral: cfg.OnSpiral},
		releaser: scavenge.Releaser{ClassObjects: cmp.Or(cfg.ClassObjects, sizeclassObjects)},
	}
	if h.limiter != nil && !h.dry {
		heard.begin(h.limiter)
		h.unlook = h.limiter.SetLook(g.lookForWork)
	}
	if h.memory != nil && !h.dry {
		heard.begin(h.memory)
	}
	return h
}

// acting is the guard that changes the process's settings. Of two, each would
// take what the other sets for the user's wish, and neither would find back.
var acting atomic.Pointer[Guard]

// claim makes the guard the one that changes settings, if there is none.
func (h *hand) claim() {
	switch {
	case h.dry || h.sets:
	case acting.CompareAndSwap(nil, h.g):
		h.sets, h.applier = true, pacer.NewApplier()
		h.wanted = h.applier.Baseline()
	case !h.second:
		h.second = true
		h.g.note(Event{Kind: Lost, Blind: Blind{"settings", errSecond.Error()}})
	}
}

var errSecond = errors.New("another guard of this process changes them: this one only plans")

// paces reports whether the memory limit is the guard's.
func (h *hand) paces(s *Sample) bool {
	_, limited := bounded(s.Cgroup.Limit)
	return h.sets && limited
}

// step plans and acts on one sample.
func (h *hand) step(s *Sample) {
	h.claim()
	h.fill(s)
	h.expire(s.Time)
	h.observe()
	h.feed()
	h.give(s)
	h.pace()
	h.shed(s)
	h.firstCycles()
	h.unfragment(s)
	h.exit()
}

// fill takes from a sample what the controllers decide on. What is unknown is not
// made up: without it they keep what they last decided.
func (h *hand) fill(s *Sample) {
	r, c := &s.Runtime, &s.Cgroup
	h.known = false
	limit, ok := c.Limit.Get()
	used, ok2 := c.undroppable().Get()
	mapped, ok3 := r.mapped().Get()
	anon, ok4 := s.Process.anon().Get()
	_, ok5 := plus(r.Objects, r.Unused, r.Free, r.Stacks, r.Metadata, r.OSStacks, r.Cycles, r.Allocated).Get()
	goal, ok6 := r.Goal.Get() // beyond all with GOGC=off
	if !ok || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 {
		return
	}
	if high, ok := bounded(c.High); ok {
		limit = min(limit, high) // above it the kernel makes everything wait
	}
	h.known, h.resident = true, min(mapped, anon)
	var untouched, out uint64 // where swap is not known, what is not resident may be either
	if swap, ok := s.swapped().Get(); ok {
		out = min(swap, mapped-h.resident)
		untouched = mapped - h.resident - out
	}
	h.reading = pacer.Reading{
		Time: s.Time, Limit: limit, Usage: used, Mapped: mapped, Live: r.Live.v,
		Objects: r.Objects.v, Unused: r.Unused.v, Free: r.Free.v, Stacks: r.stacksStay() + r.OSStacks.v,
		Metadata: r.Metadata.v, Goal: goal, Untouched: untouched, Swapped: out,
		Cycles: r.Cycles.v, Allocated: r.Allocated.v, GCCPU: r.GCCPU.v, CPU: r.CPU.v,
	}
	h.heap = scavenge.Heap{
		Mapped: mapped, Objects: r.Objects.v, Free: r.Free.v, Stacks: r.Stacks.v, Goal: goal,
		Allocated: r.Allocated.v, Goroutines: r.Goroutines.v, Cycles: r.Cycles.v, Live: r.Live.v, StackScan: r.StackScan.v,
	}
	h.group = scavenge.Cgroup{Limit: limit, Usage: used, Own: anon}
}

// limiterMargin is the part of the limit that the limiter leaves free at least. The
// governor's own margin shrinks with the room, or it would collect without a break
// where what lives is near the end; there only refusing helps.
const limiterMargin = 25

// feed tells the limiter how much room there is.
func (h *hand) feed() {
	if h.limiter == nil || h.dry || !h.known {
		return // in a dry run the limiter hears of no limit, and admits everything
	}
	r := &h.reading
	if r.Limit == Unlimited {
		h.limiter.Update(shed.Memory{})
		return
	}
	h.limiter.Update(shed.Memory{
		Limit: r.Limit, Usage: r.Usage, Must: r.Must(), Other: h.notGos(),
		Free: r.Free, Margin: max(h.decision.Margin, r.Limit/limiterMargin), Cycles: r.Cycles,
		Allocated: r.Allocated,
	})
}

const endReason = "the guard ends"

// unheard has limiter and breaker forget what nobody will tell them any more.
func (h *hand) unheard() {
	if h.memory != nil && !h.dry {
		heard.end(h.memory, h.memory.Reset)
	}
	if h.limiter != nil && !h.dry {
		h.unlook()
		heard.end(h.limiter, func() { h.limiter.Update(shed.Memory{}) })
	}
}

// undo puts every setting back.
func (h *hand) undo() {
	defer h.unheard() // whatever an order's undo does
	for _, o := range h.orders {
		if o != nil && o.undo != nil {
			a := Action{Name: o.action.Name, From: h.present(o.action.Name), Reason: endReason, Undoes: o.seq}
			o.undo()
			a.To = h.present(a.Name)
			h.g.note(Event{Kind: Undone, Action: a})
		}
	}
	if h.shedding.undo != nil {
		h.unshed()
		h.g.note(Event{Kind: Undone, Action: Action{Name: ShedLoad, From: 1, Reason: endReason}})
	}
	if !h.sets {
		return
	}
	h.look()
	base := h.applier.Baseline()
	for _, s := range []struct {
		name     ActionName
		from, to int64
	}{
		{SetGCPercent, int64(h.wanted.GCPercent), int64(base.GCPercent)},
		{SetMemoryLimit, h.wanted.MemoryLimit, base.MemoryLimit},
	} {
		if s.from != s.to {
			h.g.note(Event{Kind: Undone, Action: Action{Name: s.name, From: s.from, To: s.to, Reason: endReason}})
		}
	}
	h.applier.Close()
	acting.CompareAndSwap(h.g, nil)
}

// give asks the releaser whether memory should go back to the operating system.
func (h *hand) give(s *Sample) {
	in := scavenge.Reading{Time: s.Time, Releasing: h.g.busy[string(FreeOSMemory)], Outcome: h.outcome}
	if h.known {
		in.Heap = &h.heap
		if h.group.Limit != Unlimited {
			in.Cgroup = &h.group
		}
	}
	if c := s.Runtime.Classes; c != nil {
		if s.Runtime.ClassesAt != h.classAt {
			h.classAt = s.Runtime.ClassesAt
			h.class = largest(h.classes.Step(s.Time, c))
		}
		in.Class = &h.class
	}
	h.outcome = nil
	h.plan = h.releaser.Step(&in)
	if h.plan.Changed && h.plan.Grade == scavenge.Log {
		h.g.note(Event{Time: s.Time, Kind: Planned, Action: Action{Name: Log, Reason: h.plan.Reason.String(), DryRun: h.dry}})
	}
	if !h.plan.Release {
		return
	}
	a := Action{Name: FreeOSMemory, Reason: h.plan.Reason.String(), DryRun: !h.sets}
	h.g.note(Event{Time: s.Time, Kind: Planned, Action: a})
	if h.sets {
		h.release(a)
	}
}

// largest is the growing class with the most objects, as the releaser wants it.
func largest(growing []sizeclass.Growth) (c scavenge.Class) {
	for i := range growing {
		if g := &growing[i]; g.Objects > c.Objects {
			c = scavenge.Class{Size: g.Size, Objects: g.Objects, Bytes: g.Bytes}
		}
	}
	return c
}

// release gives memory back, in a goroutine of its own.
func (h *hand) release(a Action) {
	h.g.aside(string(FreeOSMemory), true, func() func() {
		out, err := scavenge.Release()
		return func() {
			if err != nil {
				h.g.note(Event{Kind: Lost, Blind: Blind{string(FreeOSMemory), err.Error()}})
				return
			}
			h.outcome = &out
			a.Took = out.Took
			if n, ok := out.Gained(); ok {
				a.Gained = Known(n)
			}
			h.g.note(Event{Kind: Applied, Action: a})
		}
	})
}

// status says what the hand does.
func (h *hand) status(st *Status) {
	st.Acts, st.DryRun = true, !h.sets
	st.Coupled = h.governor.Table != nil && !h.deaf.Load()
	st.Breaker = h.reading.State
	if h.memory != nil {
		st.MemoryBreaker = h.memory.State()
	}
	for _, o := range h.orders {
		if o != nil {
			st.Orders = append(st.Orders, Standing{Seq: o.seq, Action: o.action})
		}
	}
	if h.known {
		st.Must = Known(h.reading.Must())
	}
	st.Decision, st.Baseline, st.Wanted = h.decision, h.applier.Baseline(), h.wanted
	st.Grade, st.Releases = h.plan.Grade, h.releaser.Account()
	st.Changes, st.Clamps = h.changes, h.clamps
	if h.limiter != nil {
		snap := h.limiter.Snapshot()
		st.Shed = &snap
	}
}
