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
// after the order's TTL, or by [Guard.Undo] with the Seq of the event. What takes
// long is only begun: an event of kind Applied follows. Everything is an event.
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
		a.From = h.setting(a.Name)
		a.Until = time.Now().Add(cmp.Or(o.TTL, orderTTL))
	}
	e := g.note(Event{Kind: Planned, Action: a})
	switch {
	case a.DryRun:
	case setting:
		*h.orders.of(a.Name) = &standingOrder{e.Seq, a}
		h.apply()
		return g.note(Event{Kind: Applied, Action: a}), nil
	default:
		if !h.begin(a) {
			return e, fmt.Errorf("memguard: order %q: %w", o.Action, ErrBusy)
		}
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
		if o.To < -1 || o.To > math.MaxInt32 {
			return bad("a GC percent of %d: want -1 (off) or more", o.To)
		}
		if limit, ok := bounded(g.sample.Runtime.MemoryLimit); o.To < 0 && (!ok || limit == 0) {
			return bad("without a memory limit nothing would collect any more")
		}
	case SetMemoryLimit:
		if must := g.hand.reading.Must(); o.To < 0 || uint64(o.To) < must {
			return bad("a memory limit of %d bytes: %d cannot be freed", o.To, must)
		}
	default:
		return bad("no such action")
	}
	return nil
}

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
	*at = nil
	from := h.setting(name)
	h.apply()
	return h.g.note(Event{Kind: Undone, Action: Action{
		Name: name, From: from, To: h.setting(name), Reason: reason, By: by, Undoes: o.seq,
	}})
}

// expire ends the orders whose time is over.
func (h *hand) expire(now time.Time) {
	for _, name := range [...]ActionName{SetGCPercent, SetMemoryLimit} {
		if o := *h.orders.of(name); o != nil && !now.Before(o.action.Until) {
			h.takeBack(name, "", "the order's time is over")
		}
	}
}

// begin starts an action that takes long.
func (h *hand) begin(a Action) bool {
	switch a.Name {
	case CollectGarbage:
		return h.g.aside(string(a.Name), true, func() func() {
			start := time.Now()
			runtime.GC()
			a.Took = time.Since(start)
			return func() { h.g.note(Event{Kind: Applied, Action: a}) }
		})
	case FreeOSMemory:
		return h.release(a)
	case Compact:
		return h.callCompact(a)
	}
	p := &h.g.proof
	return p.capture(evidence.Plan{Why: a.Reason, Series: time.Now(), Number: 1, Heap: true, Goroutines: true}, &h.g.sample)
}

// nudge has the guard tell what was noted.
func (g *Guard) nudge() {
	select {
	case g.wake <- struct{}{}:
	default: // it will anyway
	}
}
