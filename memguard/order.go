// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/pacer"
)

// Order is an action that somebody asks of a guard: an operator, or the service.
type Order struct {
	Action ActionName    `json:"action"`
	To     int64         `json:"to,omitempty"`     // of a setting: percent or bytes
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
}

// orders are those that stand: one of each setting.
type orders struct{ percent, limit *standingOrder }

func (o *orders) of(name ActionName) **standingOrder {
	if name == SetGCPercent {
		return &o.percent
	}
	return &o.limit
}

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
	setting := a.Name == SetGCPercent || a.Name == SetMemoryLimit
	if setting {
		h.look()
		a.From = a.Name.of(h.wanted)
		a.Until = time.Now().Add(cmp.Or(o.TTL, orderTTL))
	} else if g.busy[string(a.Name)] && !a.DryRun {
		return Event{}, fmt.Errorf("memguard: order %q: %w", o.Action, ErrBusy)
	}
	e := g.note(Event{Kind: Planned, Action: a})
	switch {
	case a.DryRun:
	case setting:
		o := &standingOrder{action: a}
		*h.orders.of(a.Name) = o
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
	default:
		return bad("no such action")
	}
	if h := g.hand; !h.sets && !h.dry && !o.DryRun && (o.Action == SetGCPercent || o.Action == SetMemoryLimit) {
		return bad("%v", errSecond)
	}
	return nil
}

const noneCollects = "without a memory limit nothing would collect any more"

// Undo takes back the standing order with the given Seq: the guard decides again.
func (g *Guard) Undo(seq uint64, by, reason string) (Event, error) {
	defer g.nudge()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hand != nil && g.err == nil {
		for _, name := range []ActionName{SetGCPercent, SetMemoryLimit} {
			if o := *g.hand.orders.of(name); o != nil && o.seq == seq {
				return g.hand.takeBack(name, by, reason), nil
			}
		}
	}
	return Event{}, fmt.Errorf("memguard: order %d: %w", seq, ErrNoOrder)
}

// takeBack ends a standing order.
func (h *hand) takeBack(name ActionName, by, reason string) Event {
	at := h.orders.of(name)
	o := *at
	h.look()
	from := name.of(h.wanted)
	*at = nil
	want, _ := h.wants()
	e := h.g.note(Event{Kind: Undone, Action: Action{
		Name: name, From: from, To: name.of(want), Reason: reason, By: by, Undoes: o.seq,
	}})
	h.told = name
	h.apply()
	h.told = ""
	return e
}

// expire ends the orders whose time is over, and one that would do harm by now.
func (h *hand) expire(now time.Time) {
	for _, name := range [...]ActionName{SetGCPercent, SetMemoryLimit} {
		if o := *h.orders.of(name); o != nil && !now.Before(o.action.Until) {
			h.takeBack(name, "", "the order's time is over")
		}
	}
	if o := h.orders.percent; o != nil && o.action.To < 0 && h.wanted.MemoryLimit == pacer.NoLimit {
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
