// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"time"

	"github.com/memguard/memguard-go/pacer"
)

// pace has the governor choose the GC percent and the memory limit.
func (h *hand) pace() {
	if !h.known {
		return
	}
	h.governor.Baseline = h.applier.Baseline() // somebody may have changed it
	h.decision = h.governor.Step(&h.reading)
	h.clamp()
	h.apply()
}

// clamp is a proposal of the breaker's that is not given.
type clamp struct {
	stands   bool
	proposed int
	why      string
	told     bool
}

// clamp counts each clamp, and tells it if it stands when one may be told again: a
// breaker may flap at each tick.
func (h *hand) clamp() {
	d, now := &h.decision, h.reading.Time
	if !d.Clamped {
		h.clamped = clamp{}
		return
	}
	if c := &h.clamped; !c.stands || d.Proposed != c.proposed || d.Reason != c.why {
		*c = clamp{stands: true, proposed: d.Proposed, why: d.Reason}
		h.clamps++
	}
	if since := now.Sub(h.clampAt); !h.clamped.told && (since >= steadyFor || since < 0) {
		h.clamped.told, h.clampAt = true, now
		h.g.note(Event{Time: now, Kind: Clamped, Action: Action{
			Name: SetGCPercent, From: int64(d.Proposed), To: int64(d.GCPercent), Reason: d.Reason, DryRun: !h.sets,
		}})
	}
}

// toldEvery bounds the events of a memory limit that follows its cgroup: each
// change is in the black box.
const toldEvery = time.Second

// apply sets what the governor, the releaser and standing orders want.
func (h *hand) apply() {
	h.look()
	want, why := h.wants()
	want.GCPercent = h.steady(want.GCPercent)
	h.set(SetGCPercent, int64(h.wanted.GCPercent), int64(want.GCPercent), why)
	h.set(SetMemoryLimit, h.wanted.MemoryLimit, want.MemoryLimit, h.decision.LimitReason)
	h.wanted = want
	if h.sets {
		h.applier.Apply(want) // if somebody changed a setting just now, the next tick knows
	}
}

// look takes notice of a setting that somebody else has changed: that is not a
// change of the guard's.
func (h *hand) look() {
	if h.sets {
		h.wanted = h.applier.Current()
	}
}

// wants is what should be set, and why this GC percent.
func (h *hand) wants() (want pacer.Setting, why string) {
	want, why = h.decision.Setting, h.decision.Reason
	if h.decision == (pacer.Decision{}) {
		want = h.applier.Baseline() // it has not decided yet
	}
	// No lower than half of the user's own: that one knows what a collection costs.
	// Off has no half; then it is the runtime's default.
	least := h.applier.Baseline().GCPercent / 2
	if least <= 0 {
		least = defaultPercent
	}
	if p := max(h.plan.GCPercent, least); h.plan.GCPercent > 0 && over(want.GCPercent, p) {
		want.GCPercent, why = p, h.plan.Reason.String()
	}
	if o := h.orders.of(SetGCPercent); o != nil {
		want.GCPercent = int(o.action.To)
	}
	if o := h.orders.of(SetMemoryLimit); o != nil {
		want.MemoryLimit = o.action.To
	}
	return want, why
}

// steadyFor is how long more must have been proposed before the GC percent goes up.
const steadyFor = 2 * time.Second

// rise is the least GC percent that was proposed since more than the present one was.
type rise struct {
	since time.Time
	least int
}

// steady is the GC percent to be set now, of that which is wanted. Down it goes at
// once, for that is the side without danger; up when the whole of the last seconds
// wanted more, and no higher than they did. So a breaker that flaps at each tick
// leaves it where it is lowest, and one that flaps slowly moves it up thirty times a
// minute at most. What was ordered is not held back.
func (h *hand) steady(want int) int {
	last, now := h.wanted.GCPercent, h.reading.Time
	if first := !h.settled && h.known; first || h.orders.of(SetGCPercent) != nil || h.told == SetGCPercent || !over(want, last) {
		h.settled, h.higher = h.settled || first, rise{} // there is nothing yet that it could flap with
		return want
	}
	if h.higher.since.IsZero() || now.Before(h.higher.since) {
		h.higher = rise{now, want}
	}
	if over(h.higher.least, want) {
		h.higher.least = want
	}
	if now.Sub(h.higher.since) < steadyFor {
		return last
	}
	want, h.higher = h.higher.least, rise{}
	return want
}

// defaultPercent is the GC percent of a process that says nothing else.
const defaultPercent = 100

// over reports whether a GC percent is the higher one; -1, which is off, is higher
// than all.
func over(a, b int) bool { return uint(a) > uint(b) }

// set tells of a setting that is about to change, unless it was ordered, which is
// an event already.
func (h *hand) set(name ActionName, from, to int64, why string) {
	if from == to {
		return
	}
	h.changes++
	if h.orders.of(name) != nil || h.told == name {
		return
	}
	if name == SetMemoryLimit {
		if since := h.reading.Time.Sub(h.toldAt); since < toldEvery && since >= 0 {
			return
		}
		h.toldAt = h.reading.Time
	}
	kind := Applied
	if !h.sets {
		kind = Planned
	}
	h.g.note(Event{Time: h.reading.Time, Kind: kind, Action: Action{Name: name, From: from, To: to, Reason: why, DryRun: !h.sets}})
}

// of is what s has of a setting.
func (name ActionName) of(s pacer.Setting) int64 {
	if name == SetGCPercent {
		return int64(s.GCPercent)
	}
	return s.MemoryLimit
}
