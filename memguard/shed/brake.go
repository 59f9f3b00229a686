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
func (c *core) willBrake(now time.Duration, cost float64) bool {
	return c.pending[0] > 0 && now-c.heard < pendingFor &&
		c.taken(now)+min(c.pending[0]+c.pending[1], c.held)+cost >= c.brakeAt()
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
