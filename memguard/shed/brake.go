// SPDX-License-Identifier: Apache-2.0

package shed

import "time"

// The brake: what is done when the usage is at the limit, and how near that is.

const (
	// Stuck at the brake with garbage that nobody collects, for collections are
	// started by allocation: one is let in. If that does not help a collection
	// may be under way already, and it takes long: the next waits twice as long.
	probeFirst = 100 * time.Millisecond
	probeMost  = time.Second

	probeHopeless = 500 * time.Millisecond // each may be the last

	urgentEvery = 100 * time.Millisecond // work of priority High passes the brake

	freeFor    = 20 * time.Millisecond // two ticks of a guard near the limit
	pendingFor = 5 * time.Millisecond  // then what was admitted has allocated

	countFor   = 100 * time.Millisecond
	countLeast = 32       // units, to tell what each allocates
	countStack = 64 << 10 // their stacks are not among the allocations
)

// others reports whether memory that is not Go's fills most of the limit.
func (c *core) others() bool { return 2*c.memory.Other >= c.memory.Limit }

// brakes refuses what comes while the brake is on, but for what helps.
func (c *core) brakes(now time.Duration, p Priority) Reason {
	switch {
	case c.inFlight == 0 && c.others():
		return "" // it is not our work that fills the limit: to refuse all of it helps nobody
	case p == High && now >= c.urgent:
		c.urgent = now + urgentEvery
		return "" // a health check that is refused gets the service restarted
	}
	if now < c.probe {
		return Brake
	}
	most := probeMost
	if m := &c.memory; m.Must+m.Other+m.Margin >= m.Limit { // what fills the limit is no garbage
		c.probing, most = max(c.probing, probeHopeless), 16*probeHopeless
	}
	c.probe, c.probing = now+c.probing, min(2*c.probing, most)
	return ""
}

// see takes a new figure of the usage: switches the brake.
func (c *core) see(now time.Duration, usage uint64) {
	if !c.known {
		return
	}
	limit, margin := float64(c.memory.Limit), float64(c.memory.Margin)
	c.usage, c.heard = float64(usage), now
	c.pending[1], c.pending[0] = c.pending[0], 0
	c.near = c.usage >= limit*nearOn || c.near && c.usage >= limit*nearOff
	switch taken := c.taken(now); {
	case !c.braking && taken >= c.brakeAt():
		c.braking, c.probe, c.probing = true, now+probeFirst, 2*probeFirst
		c.braked++
		c.window, c.grown = max(min(c.window, c.held+c.heldByConnections()), c.room()*windowStart), now
		if now-c.cut >= trustCutEvery || c.cut == 0 {
			c.trust, c.cut = max(c.trust*trustCut, trustLeast), now
		}
	case c.braking && taken < limit-margin:
		c.braking = false
	}
}

// brakeAt is what is taken when the brake comes on.
func (c *core) brakeAt() float64 { return float64(c.memory.Limit) - float64(c.memory.Margin)/2 }

// willBrake reports whether the brake is about to come on, by what was let in just
// now and has not allocated yet, unless it has left already. One unit may enter after
// each look.
func (c *core) willBrake(now time.Duration, r *route) bool {
	return c.pending[0] > 0 && now-c.heard < pendingFor &&
		c.taken(now)+min(c.pending[0]+c.pending[1], c.held)+c.takes(r) >= c.brakeAt()
}

// takes is what a unit that is let in adds to the usage at most: what it will hold, but
// no more than it will allocate. The cost can be many times that where units are small
// and soon over: all that is allocated while a collection marks counts as reachable,
// and is shared out between the two or three in flight. (It does not bound the cost: a
// unit may hold a buffer that another one has allocated.)
func (c *core) takes(r *route) float64 {
	if most := max(r.allocates, c.allocated(r)); most > 0 {
		return min(r.cost, most+countStack)
	}
	return r.cost
}

// allocated is how much each unit of r has allocated at most in the present count, by
// those that began and ended in it; 0 is unknown.
func (c *core) allocated(r *route) float64 {
	n := int(r.admitted-r.counted) - r.inFlight
	if n < countLeast || c.from == 0 || c.memory.Allocated < c.from {
		return 0
	}
	return float64(c.memory.Allocated-c.from) / float64(n)
}

// recount begins to count what units allocate.
func (c *core) recount(now time.Duration) {
	for _, r := range c.routes {
		r.allocates, r.counted = c.allocated(r), r.admitted
	}
	c.counted, c.from = now, c.memory.Allocated
}

// taken is the usage without what Go can surely give to new objects. After a
// collection the freed pages stay charged until they are scavenged, and would
// hold the brake for nothing. But they are also used up without a trace in the
// usage: so half of it counts, less what has entered since, and not for long.
func (c *core) taken(now time.Duration) float64 {
	if now-c.updated > freeFor {
		return c.usage
	}
	return c.usage - max(float64(c.memory.Free)-c.entered, 0)/2
}
