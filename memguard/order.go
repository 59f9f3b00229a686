// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/pacer"
)

// Order is an action that somebody asks of a guard: an operator, or the service.
type Order struct {
	Action ActionName    `json:"action"`
	To     int64         `json:"to,omitempty"`     // of a setting: percent, bytes, or a pacer.State
	Reason string        `json:"reason"`           // for the log: an order without one is refused
	By     string        `json:"by,omitempty"`     // who asks
	TTL    time.Duration `json:"ttl_ns,omitempty"` // of a setting: after that the guard decides again; 0 is ten minutes, a day at most
	DryRun bool          `json:"dry_run,omitempty"`
}

const (
	orderTTL    = 10 * time.Minute
	orderMaxTTL = 24 * time.Hour
)

// Errors of [Guard.Do] and [Guard.Undo], in the sense of errors.Is.
var (
	ErrOrder   = errors.New("cannot be carried out") // the order makes no sense, or would do harm
	ErrBusy    = errors.New("under way already")
	ErrNoOrder = errors.New("no such order stands") // it was taken back, or its time is over
)

// standingOrder is a setting that somebody wants instead of the guard's.
type standingOrder struct {
	seq    uint64
	action Action
	undo   func() // of what the hand does not set again at each tick: see hold
}

// orders are those that stand: one of each setting.
type orders [len(settingNames)]*standingOrder

// of is the order of a setting that stands, nil if there is none.
func (o *orders) of(name ActionName) *standingOrder {
	if i := slices.Index(settingNames[:], name); i >= 0 {
		return o[i]
	}
	return nil
}

func (o *orders) put(name ActionName, s *standingOrder) { o[slices.Index(settingNames[:], name)] = s }

// Do carries out an order. A setting is changed when Do returns, and changed back
// after the order's TTL, or by [Guard.Undo] with the Seq of the event; an order of
// the same setting takes its place. What takes long is only begun: an event of
// kind Applied follows. Everything is an event.
func (g *Guard) Do(o Order) (Event, error) {
	defer g.nudge()
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.refuse(&o); err != nil {
		return Event{}, fmt.Errorf("memguard: order %q: %w", o.Action, err)
	}
	h := g.hand
	a := Action{Name: o.Action, To: o.To, Reason: o.Reason, By: cmp.Or(o.By, "unknown"), DryRun: o.DryRun || h.dry}
	setting := a.Name.IsSetting()
	if setting {
		a.From = h.present(a.Name)
		a.Until = time.Now().Add(cmp.Or(o.TTL, orderTTL))
	} else if g.busy[string(a.Name)] && !a.DryRun {
		return Event{}, fmt.Errorf("memguard: order %q: %w", o.Action, ErrBusy)
	}
	e := g.note(Event{Kind: Planned, Action: a})
	switch {
	case a.DryRun:
	case setting:
		o := &standingOrder{action: a}
		h.hold(o)
		h.apply()
		e = g.note(Event{Kind: Applied, Action: a})
		o.seq = e.Seq // the event that the caller gets
	default:
		h.begin(a)
	}
	return e, nil
}

// refuse says why an order cannot be carried out, nil if it can.
func (g *Guard) refuse(o *Order) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrOrder, fmt.Sprintf(format, args...))
	}
	switch {
	case g.err != nil:
		return g.err
	case g.hand == nil:
		return bad("the guard watches another process")
	case o.Reason == "":
		return bad("it has no reason")
	case o.TTL < 0 || o.TTL > orderMaxTTL:
		return bad("a TTL of %v: want up to %v", o.TTL, orderMaxTTL)
	}
	switch o.Action {
	case CollectGarbage, FreeOSMemory:
	case Capture:
		if g.proof.profiles == nil {
			return bad("the guard has no store for evidence")
		}
	case Compact:
		if g.hand.compact == nil {
			return bad("the service has no such hook")
		}
	case SetGCPercent:
		if o.To < -1 || o.To == 0 || o.To > math.MaxInt32 { // at 0 the collector would run all the time
			return bad("a GC percent of %d: want -1 (off) or more than 0", o.To)
		}
		if o.To < 0 && g.hand.applier.Current().MemoryLimit == pacer.NoLimit {
			return bad(noneCollects)
		}
	case SetMemoryLimit:
		must, ok := g.sample.Runtime.mustStay().Get()
		if !ok {
			return bad("a memory limit of %d bytes: how much cannot be freed is not known before the first collection", o.To)
		}
		if o.To < 0 || uint64(o.To) < must {
			return bad("a memory limit of %d bytes: %d cannot be freed", o.To, must)
		}
	case SetBreaker:
		if o.To < 0 || o.To >= int64(len(shedStates)) {
			return bad("a breaker state of %d: want %d (closed), %d (half-open) or %d (open)", o.To, pacer.Closed, pacer.HalfOpen, pacer.Open)
		}
		switch h := g.hand; {
		case h.memory == nil && h.breaker != nil:
			return bad("the guard asks the service's breaker (Config.Breaker) and cannot set it: it needs one in Config.MemoryBreaker")
		case h.memory == nil:
			return bad("the guard has no breaker: start it with one in Config.MemoryBreaker")
		}
	case ShedLoad:
		if o.To < 0 || o.To > 100 {
			return bad("to refuse %d %% of the work: want 0 to 100", o.To)
		}
		if g.hand.limiter == nil {
			return bad("the guard has no limiter: start it with one in Config.Shed, and let the service's work pass it")
		}
	default:
		return bad("no such action: this guard knows %s", orderable)
	}
	if h := g.hand; !h.sets && !h.dry && !o.DryRun && (o.Action == SetGCPercent || o.Action == SetMemoryLimit) {
		return bad("%v", errSecond)
	}
	return nil
}

// orderable are the actions that can be ordered.
var orderable = [...]ActionName{SetGCPercent, SetMemoryLimit, SetBreaker, ShedLoad, CollectGarbage, FreeOSMemory, Capture, Compact}

const noneCollects = "without a memory limit nothing would collect any more"

// Undo takes back the standing order with the given Seq: the guard decides again.
func (g *Guard) Undo(seq uint64, by, reason string) (Event, error) {
	defer g.nudge()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hand != nil && g.err == nil {
		for _, name := range settingNames {
			if o := g.hand.orders.of(name); o != nil && o.seq == seq {
				return g.hand.takeBack(name, by, reason), nil
			}
		}
	}
	return Event{}, fmt.Errorf("memguard: order %d: %w", seq, ErrNoOrder)
}

// present is what a setting is now.
func (h *hand) present(name ActionName) int64 {
	switch name {
	case SetBreaker:
		return int64(pacerState(h.memory.State()))
	case ShedLoad:
		return int64(h.limiter.Refusing())
	}
	h.look()
	return name.of(h.wanted)
}

// hold lets an order stand, in the place of another if there is one. Breaker and
// limiter are set here and not at each tick, for what the service does to them
// itself is not to be fought; what they go back to is what the first order found. So
// what stands of the guard's is taken back first.
func (h *hand) hold(o *standingOrder) {
	name := o.action.Name
	if before := h.orders.of(name); before != nil && before.undo != nil {
		before.undo()
	}
	switch name {
	case SetBreaker:
		if h.limiter == nil {
			h.unshed()
		}
		o.undo, h.memoryIs = h.memory.Force(shedStates[o.action.To]), pacer.State(o.action.To)
	case ShedLoad:
		h.unshed()
		o.undo = h.limiter.Refuse(int(o.action.To))
	}
	h.orders.put(name, o)
}

// takeBack ends a standing order.
func (h *hand) takeBack(name ActionName, by, reason string) Event {
	o := h.orders.of(name)
	a := Action{Name: name, From: h.present(name), Reason: reason, By: by, Undoes: o.seq}
	h.orders.put(name, nil)
	if o.undo != nil {
		o.undo() // before it is told: only then it is known what it goes back to
		if a.To = h.present(name); name == SetBreaker {
			h.memoryIs = pacer.State(a.To)
		}
	} else {
		want, _ := h.wants()
		a.To = name.of(want)
	}
	e := h.g.note(Event{Kind: Undone, Action: a})
	h.told = name
	h.apply()
	h.told = ""
	return e
}

// expire ends the orders whose time is over, and one that would do harm by now.
func (h *hand) expire(now time.Time) {
	for _, name := range settingNames {
		if o := h.orders.of(name); o != nil && !now.Before(o.action.Until) {
			h.takeBack(name, "", "the order's time is over")
		}
	}
	if o := h.orders.of(SetGCPercent); o != nil && o.action.To < 0 && h.wanted.MemoryLimit == pacer.NoLimit {
		h.takeBack(SetGCPercent, "", noneCollects)
	}
}

// begin starts an action that takes long, and is not under way.
func (h *hand) begin(a Action) {
	switch a.Name {
	case CollectGarbage:
		h.g.aside(string(a.Name), true, func() func() {
			start := time.Now()
			runtime.GC()
			a.Took = time.Since(start)
			return func() { h.g.note(Event{Kind: Applied, Action: a}) }
		})
	case FreeOSMemory:
		h.release(a)
	case Compact:
		h.callCompact(a)
	case Capture:
		plan := evidence.Plan{Why: a.Reason, Series: time.Now(), Number: 1, Heap: true, Goroutines: true}
		h.g.proof.capture(plan, &h.g.sample)
	}
}

// nudge has the guard tell what was noted.
func (g *Guard) nudge() {
	select {
	case g.news <- struct{}{}:
	default: // it will anyway
	}
}
