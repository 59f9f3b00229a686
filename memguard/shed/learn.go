// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"math"
	"time"
)

// Learning costs. At every completed collection the runtime tells what was
// reachable, and with it what must stay is known. The model predicts it as
//
//	base + Σ n × cost,  n the smaller of the counts in flight at the last two updates
//
// (the smaller, because the marks are older than the report: a cost that is too
// high is a slower service, one that is too low a dead one; for the same reason
// costs rise fast and fall slowly, for work that was admitted may not have had its
// turn to allocate when all CPUs are busy). The error is handed
// out in proportion to the bytes that each part is thought to hold, which is the
// normalised least-mean-squares step (Widrow and Hoff; as a projection: Kaczmarz)
// with steps that are relative to each weight. A route that was never measured
// takes most of the error on itself, and if it holds more than was guessed at
// once; the base takes little while something is in
// flight, and all of it while nothing is. Routes that are always busy together
// cannot be told from each other and need not be: their sum is right.
//
// A recursive least-squares fit would tell them apart sooner, but winds up when
// the counts do not change, and it has no sense of which answers are possible.

const (
	learnUp       = 0.5   // of the error, at once
	learnDown     = 1.5   // seconds in which 63 % of the error is taken back ...
	learnDownMost = 0.1   // ... but no more of it than this at once
	learnMost     = 2.    // a cost rises by this factor at once, if the base has grown and nobody knows
	learnNew      = 4.    // weight of a route never measured, against one that was
	learnOther    = 0.1   // weight of the base and of connections, against work in flight
	boundMost     = 0.9   // of the limit: the most at which the usage bounds the costs
	costLeast     = 1024. // bytes
	costFirstMost = 1 << 20

	// A connection of net/http: its goroutine's stack, two buffers of 4 KiB, and
	// the kernel's side of the socket.
	connectionFirst = 24 << 10
	connectionLeast = 16 << 10
	connectionMost  = 128 << 10
)

// firstCost is what a route counts before it was measured.
func (c *core) firstCost() float64 {
	if !c.known {
		return costFirstMost / 16
	}
	return min(max(c.room()/64, costLeast), costFirstMost)
}

// learn takes what must stay, as of a collection that has just completed.
func (c *core) learn(now time.Duration, must float64) {
	predicted, weight := c.base, must*learnOther
	for _, r := range c.routes {
		held, w := r.observed()
		predicted += held
		weight += w
	}
	connections := float64(min(c.connections, c.connectionsBefore)) * c.connection
	predicted += connections
	weight += connections * learnOther
	if weight == must*learnOther {
		c.base = must // nothing was in flight
		return
	}
	off := must - predicted
	rate := learnUp
	if off < 0 {
		rate = min(1-math.Exp(-(now-c.learned).Seconds()/learnDown), learnDownMost)
	}
	c.learned = now
	part := off / weight // of each part's own weight, if all of the error were handed out
	for _, r := range c.routes {
		n := min(r.inFlight, r.before)
		if n == 0 {
			continue
		}
		_, w := r.observed()
		gain, most := part*rate*w/float64(n), learnMost
		if !r.learned && part > 0 {
			gain, most = part*w/float64(n), learnMost*learnMost // the first measurement counts whole
		}
		r.cost = min(max(r.cost+gain, costLeast), r.cost*most, float64(c.memory.Limit))
		r.learned = true
	}
	c.connection = min(max(c.connection*(1+part*rate*learnOther), connectionLeast), connectionMost)
	c.base = min(max(c.base+part*rate*must*learnOther, 0), must)
	c.count()
}

// boundBy lowers the costs when the sum of what they say is more than there is at
// all, garbage included: without a collection nothing else would, and a service
// that refuses everything has none. Not close to the limit, where work may have
// been admitted that has yet to allocate.
func (c *core) boundBy(m *Memory, dt time.Duration) {
	there := float64(m.Usage - min(m.Usage, m.Other+m.Free))
	said := c.held + c.heldByConnections()
	if said <= there || c.braking || c.usage >= boundMost*float64(m.Limit) {
		return
	}
	part := 1 - (1-there/said)*(1-math.Exp(-dt.Seconds()/learnDown))
	for _, r := range c.routes {
		if r.inFlight > 0 {
			r.cost = max(r.cost*part, costLeast)
		}
	}
	c.count()
}

// guess gives the routes that were not measured the cost that fits the room.
func (c *core) guess() {
	for _, r := range c.routes {
		if !r.learned {
			r.cost = c.firstCost()
		}
	}
	c.count()
}

// count sums up what work in flight holds, after costs have changed.
func (c *core) count() {
	c.held = 0
	for _, r := range c.routes {
		c.held += float64(r.inFlight) * r.cost
	}
}

// observed is what a route held when the marks were made, and how much of the
// error is its own.
func (r *route) observed() (held, weight float64) {
	held = float64(min(r.inFlight, r.before)) * r.cost
	if r.learned {
		return held, held
	}
	return held, held * learnNew
}
