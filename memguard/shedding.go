// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"errors"
	"time"

	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
	"github.com/memguard/memguard-go/scavenge"
)

// In a spiral collecting helps no longer, and less must be allocated. Under the
// kernel's limit the limiter sees to that by itself: refusing more than it does had
// live-near-limit-75 and -85 of the lab do less, and live no better. But the limit that
// the collector runs into may be one of the user's own, far below the kernel's, of which
// the limiter knows nothing. How much must be refused then nobody knows. So it is a
// share that rises while the collector takes more than its budget, and falls
// otherwise: slowly, or the load would be back at once.
const (
	shedEvery = time.Second
	shedRise  = 10 // percent of the work
	shedFall  = 5
	shedMost  = 90 // the rest is what shows whether it can be served
)

// shedding is what the guard does about load that is too much.
type shedding struct {
	on     bool      // that load should be refused is an event
	kind   EventKind // of it
	nobody bool      // that there is nobody who could was told

	percent int       // of the work that is refused for a spiral; with a breaker alone 1 while one stands
	undo    func()    // takes that back; nil while nothing is refused
	at      time.Time // of the last change
}

var errNobody = errors.New("nobody can: the guard has neither a limiter (Config.Shed) nor a breaker (Config.MemoryBreaker), and the service's Event must")

// shed has load refused where that should be, and says when it begins and ends. Who has
// neither limiter nor breaker can act on the event.
func (h *hand) shed(s *Sample) {
	d := &h.shedding
	spiral := h.decision.Spiral && h.governor.OnSpiral == pacer.Shed
	h.refuse(s.Time, spiral)
	why := ""
	switch {
	case spiral:
		why = h.decision.Reason
	case h.plan.Grade == scavenge.Shed:
		why = h.plan.Reason.String()
	case d.undo != nil:
		return // the share falls
	}
	if d.on == (why != "") {
		return
	}
	d.on = why != ""
	a := Action{Name: ShedLoad, To: 1, Reason: why, DryRun: h.dry}
	if !d.on {
		a.From, a.To, a.Reason = 1, 0, "there is room again"
	} else if d.kind = Planned; !h.dry && (h.limiter != nil || d.undo != nil) {
		d.kind = Applied
	}
	h.g.note(Event{Time: s.Time, Kind: d.kind, Action: a})
	if h.limiter == nil && h.memory == nil && !h.dry && !d.nobody {
		d.nobody = true
		h.g.note(Event{Time: s.Time, Kind: Lost, Blind: Blind{string(ShedLoad), errNobody.Error()}})
	}
}

// refuse has the limiter refuse the share of the work that is due now, unless it sees
// for itself what the collector runs into. A memory breaker without a limiter is
// half-open as long as a spiral stands; where it is open by the level of memory, that
// holds. While somebody's order stands for the one or the other, the guard leaves it
// alone; while the spiral cannot be seen, the share falls.
func (h *hand) refuse(now time.Time, spiral bool) {
	d := &h.shedding
	if since := now.Sub(d.at); h.dry || h.limiter == nil && h.memory == nil || since < shedEvery && since >= 0 {
		return
	}
	to, name := max(d.percent-shedFall, 0), ShedLoad
	if spiral && h.known && h.decision.GCShare > h.governor.Budget && !h.follows() {
		to = min(d.percent+shedRise, shedMost)
	}
	if h.limiter == nil {
		if name, to = SetBreaker, 0; spiral && h.known {
			to = 1
		}
	}
	if h.orders.of(name) != nil {
		to = 0
	}
	if to == d.percent && (to == 0 || name == ShedLoad) {
		return
	}
	h.unshed() // before the next, and not after it, which would put back what was before this one
	d.percent, d.at = to, now
	switch {
	case to == 0:
	case name == ShedLoad:
		d.undo = h.limiter.Refuse(to)
	case h.memory.State() == shed.Closed: // open by the level, it shows now that it was taken back
		d.undo = h.memory.Force(shed.HalfOpen)
	}
}

// follows reports whether the Go memory limit is what the cgroup leaves: neither the
// user's own nor an order's.
func (h *hand) follows() bool {
	return h.decision.MemoryLimit < h.governor.Baseline.MemoryLimit && h.orders.of(SetMemoryLimit) == nil
}

// unshed takes back what the guard has refused for a spiral.
func (h *hand) unshed() {
	d := &h.shedding
	if d.undo != nil {
		d.undo()
	}
	d.undo, d.percent = nil, 0
}
