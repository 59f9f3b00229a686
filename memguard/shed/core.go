// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"math"
	"time"
)

// The model. At any instant the process needs, beyond what a collection frees,
//
//	must = base + Σ in flight × cost   (of every route, and of the connections)
//
// and what the kernel's limit leaves for the sum is
//
//	room = limit - margin - other - base.
//
// learn.go finds base and the costs. A unit of work is admitted while the sum
// stays below a share of the room. The rest is for the garbage that gathers
// between two collections; how much that must be follows from how often the brake
// was needed ("trust").
//
// A model can be wrong, so that the kernel's own count has the last word on both
// sides. Far below the limit the model refuses nothing, and only slow start binds. Close to the limit the brake stops everything, whatever the model says.
//
// All of it is a plain struct with the time handed in (since the limiter was
// made): no clock, no lock, no allocation but for a route seen for the first time.

const (
	nearOn, nearOff = 0.60, 0.50 // usage, as a part of the limit, from which on the model binds

	// Slow start. The window opens by half in 50 ms at most, and only while it is
	// used and something was heard of the memory since.
	windowStart = 1. / 8 // of the room
	windowGrow  = 1.5
	windowEvery = 50 * time.Millisecond
	windowUsed  = 2. / 3
	windowHalf  = 10 * time.Second // an unused window closes by half

	// The share of the room that work may hold. Every brake takes a tenth of
	// it, for the garbage of this service needs more; it comes back slowly.
	trustLeast, trustCut = 0.4, 0.9
	trustCutEvery        = 200 * time.Millisecond
	trustBack            = 0.02 // per second

	// A route may hold more than routeShare of the budget only while no other
	// finds no room, and while its work is seen to end: half of it within the
	// last one to two epochs.
	routeShare = 0.6
	epoch      = 5 * time.Second
	wantFor    = time.Second // so long a refusal counts as want

	// Stuck at the brake with garbage that nobody collects, for collections are
	// started by allocation: one is let in. If that does not help a collection
	// may be under way already, and it takes long: the next waits twice as long.
	probeFirst = 100 * time.Millisecond
	probeMost  = time.Second

	freeFor    = 20 * time.Millisecond // two ticks of a guard near the limit
	pendingFor = 5 * time.Millisecond  // then what was admitted has allocated

	blindAfter = 5 * time.Second // without Update everything is admitted

	urgentEvery = 100 * time.Millisecond // work of priority High passes the brake

	probeHopeless = 500 * time.Millisecond // each may be the last

	maxRoutes = 64
	otherName = "other"
)

// share is what part of the budget work of each priority may fill.
var share = [...]float64{Low: 0.6, Normal: 0.9, High: 1}

// route is one kind of work.
type route struct {
	name     string
	inFlight int
	before   int     // in flight at the Update before
	cost     float64 // bytes that a unit holds
	learned  bool    // cost was measured
	wanted   time.Duration
	age      [3]int // in flight, by the epoch in which it entered: this one, the last, older
	ended    [2]int // what left, in this epoch and the last

	admitted, refused uint64

	due int // percent of a unit that is to be refused by order: see ordered
}

type core struct {
	refusing int           // percent of the work that is to be refused by order
	urgent   time.Duration // when work of priority High may pass the brake again

	memory  Memory
	updated time.Duration // when it came
	known   bool          // it has a limit

	routes []*route
	other  *route // takes what is beyond maxRoutes
	named  map[string]*route

	base     float64
	learned  time.Duration // last
	inFlight int
	held     float64 // Σ inFlight × cost, of work
	epoch    int64
	turned   time.Duration

	connections       int
	connectionsBefore int
	connection        float64   // bytes that a connection holds
	peak              float64   // the most that work held, decaying
	wanting           [2]*route // the last two routes that found no room

	usage   float64       // last seen
	entered float64       // what was admitted since the last Update holds
	pending [2]float64    // what was admitted since the usage was last seen, and between then and the time before
	heard   time.Duration // of the memory, by whatever way
	near    bool
	window  float64
	grown   time.Duration
	trust   float64
	cut     time.Duration
	braking bool
	braked  uint64        // times
	probe   time.Duration // when the next is let in ...
	probing time.Duration // ... and how long after it another
}

func newCore() core {
	c := core{named: map[string]*route{}, trust: 1, connection: connectionFirst}
	c.other = c.add(otherName)
	return c
}

func (c *core) add(name string) *route {
	r := &route{name: name, cost: c.firstCost(), wanted: -wantFor}
	c.routes = append(c.routes, r)
	c.named[name] = r
	return r
}

// route finds a route by its name. There are maxRoutes at most, so that names
// made by strangers cost nothing; the rest is one route.
func (c *core) route(name string) *route {
	if r, ok := c.named[name]; ok {
		return r
	}
	if len(c.routes) >= maxRoutes || name == "" {
		return c.other
	}
	return c.add(name)
}

// bounded reports whether there is a limit, and somebody who watches it.
func (c *core) bounded(now time.Duration) bool { return c.known && now-c.updated < blindAfter }

// room is what the limit leaves for work, connections and garbage.
func (c *core) room() float64 {
	m := &c.memory
	return max(float64(m.Limit)-float64(m.Margin)-float64(m.Other)-c.base, 0)
}

// budget is the part of the room that work and connections may hold.
func (c *core) budget() float64 { return c.room() * c.trust }

func (c *core) heldByConnections() float64 { return float64(c.connections) * c.connection }

// admit takes a unit of work in, or says why not.
func (c *core) admit(now time.Duration, r *route, p Priority) Reason {
	if reason := c.refuses(now, r, p); reason != "" {
		return reason
	}
	r.inFlight++
	r.age[0]++
	r.admitted++
	c.inFlight++
	c.held += r.cost
	c.entered += r.cost
	c.pending[0] += r.cost
	c.peak = max(c.peak, c.held)
	return ""
}

// ordered refuses the part of a route's work that is to be refused by order. It
// counts and draws no lots, so that of a hundred units of any route it is that many,
// spread evenly, and each route has its own count: none pays for another.
func (c *core) ordered(r *route, p Priority) Reason {
	if c.refusing == 0 || p == High {
		return ""
	}
	if r.due += c.refusing; r.due < 100 {
		return ""
	}
	r.due -= 100
	return Ordered
}

// others reports whether memory that is not Go's fills most of the limit.
func (c *core) others() bool { return 2*c.memory.Other >= c.memory.Limit }

func (c *core) refuses(now time.Duration, r *route, p Priority) Reason {
	switch {
	case !c.bounded(now):
		return ""
	case c.braking && c.inFlight == 0 && c.others():
		return "" // it is not our work that fills the limit: to refuse all of it helps nobody
	case c.braking && p == High && now >= c.urgent:
		c.urgent = now + urgentEvery
		return "" // a health check that is refused gets the service restarted
	case c.braking:
		if now < c.probe {
			return Brake
		}
		most := probeMost
		if m := &c.memory; m.Must+m.Other+m.Margin >= m.Limit { // what fills the limit is no garbage
			c.probing, most = max(c.probing, probeHopeless), 16*probeHopeless
		}
		c.probe, c.probing = now+c.probing, min(2*c.probing, most)
		return ""
	case c.inFlight == 0:
		return "" // whatever the model says: something must go on
	}
	need := c.held + c.heldByConnections() + r.cost
	c.grow(now, need)
	switch {
	case c.near && c.willBrake(now, r.cost):
		return Brake
	case !c.near:
		if need > c.window {
			return SlowStart
		}
		return ""
	case c.monopolist(now, r):
		return Share
	case need > share[p]*min(c.window, c.budget()):
		if c.wanting[0] != r {
			c.wanting[0], c.wanting[1] = r, c.wanting[0]
		}
		r.wanted = now
		return Budget
	}
	return ""
}

// monopolist reports whether r holds its share and should leave the rest to others.
func (c *core) monopolist(now time.Duration, r *route) bool {
	if float64(r.inFlight+1)*r.cost <= routeShare*c.budget() || c.lonely(r) {
		return false
	}
	if 2*r.age[2] >= r.inFlight || 2*(r.ended[0]+r.ended[1]) < r.inFlight {
		return true
	}
	for _, other := range c.wanting {
		if other != nil && other != r && now-other.wanted < wantFor {
			return true
		}
	}
	return false
}

// lonely reports whether r is the only route there is.
func (c *core) lonely(r *route) bool {
	if r == c.other {
		return len(c.routes) == 1
	}
	return len(c.routes) == 2 && c.other.admitted == 0
}

// leave takes out a unit of work that entered in an epoch.
func (c *core) leave(r *route, entered int64) {
	r.inFlight--
	r.age[min(c.epoch-entered, int64(len(r.age)-1))]--
	r.ended[0]++
	c.inFlight--
	c.held -= r.cost
	if c.inFlight == 0 {
		c.held = 0 // no dust of floating point
	}
}

// grow opens the window for need, by as much as is due since the last time. It
// opens little by little, for at each step what was let in is yet to allocate.
func (c *core) grow(now time.Duration, need float64) {
	top := c.budget()
	if !c.near {
		top = math.Inf(1) // the costs are too high, or it would not be far
	}
	if need > windowUsed*c.window && c.window < top && c.heard > c.grown {
		dt := min(now-c.grown, windowEvery)
		c.window = min(c.window*math.Pow(windowGrow, float64(dt)/float64(windowEvery)), top)
		c.grown = now
	}
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
// now and has not allocated yet. One unit may enter after each look.
func (c *core) willBrake(now time.Duration, cost float64) bool {
	return c.pending[0] > 0 && now-c.heard < pendingFor &&
		c.taken(now)+c.pending[0]+c.pending[1]+cost >= c.brakeAt()
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

// update takes what the guard read.
func (c *core) update(now time.Duration, m Memory) {
	if m.Limit == 0 {
		c.known, c.braking = false, false
		return
	}
	if m.Margin == 0 {
		m.Margin = m.Limit / 25
	}
	m.Margin = min(m.Margin, m.Limit/4)
	first, cycled, dt := !c.known, c.memory.Cycles != m.Cycles, now-c.updated
	c.memory, c.updated, c.known, c.entered = m, now, true, 0
	if first {
		c.base = max(float64(m.Must)-c.held-c.heldByConnections(), 0)
		c.window, c.turned, cycled = c.room()*windowStart, now, false
		c.guess()
	}
	if cycled {
		c.learn(now, float64(m.Must))
	}
	c.see(now, m.Usage)
	if !first {
		c.boundBy(&m, dt)
	}
	if now-c.turned >= epoch {
		c.turned = now
		c.turn()
	}
	c.fade(dt)
	for _, r := range c.routes {
		r.before = r.inFlight
	}
	c.connectionsBefore = c.connections
}

// turn begins an epoch.
func (c *core) turn() {
	c.epoch++
	for _, r := range c.routes {
		r.age[2] += r.age[1]
		r.age[1], r.age[0] = r.age[0], 0
		r.ended[1], r.ended[0] = r.ended[0], 0
	}
}

// fade lets what was seen dt ago count less.
func (c *core) fade(dt time.Duration) {
	part := min(float64(dt)/float64(windowHalf), 1) / 2
	start := c.room() * windowStart
	c.window = max(c.window, start)
	if used := c.held + c.heldByConnections(); used < c.window*windowUsed && c.window > start {
		c.window = max(c.window*(1-part), start, used*windowGrow)
	}
	c.peak = max(c.peak*(1-part), c.held)
	if !c.braking {
		c.trust = min(c.trust+trustBack*dt.Seconds(), 1)
	}
}
