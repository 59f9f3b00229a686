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
// sides. Far below the limit the model refuses nothing, and only slow start binds.
// Close to the limit the brake stops everything, whatever the model says: brake.go.
//
// All of it is a plain struct with the time handed in (since the limiter was
// made): no clock, no lock, no allocation but for a route seen for the first time.

const (
	nearOn, nearOff = 0.60, 0.50 // usage, as a part of the limit, from which on the model binds

	// Slow start, for a burst of work whose cost is a guess. Far from the limit as
	// much is let in as would not come near to it if none of what is in flight showed
	// in the usage yet: work that waits for others first (its body, a database, a CPU)
	// allocates late. Work that was never measured counts guessTimes what it is thought
	// to hold. And in any case what the window holds is let in, which opens by half in
	// 50 ms at most, and only while it is used and something was heard of the memory
	// since.
	guessTimes  = 4
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

	blindAfter = 5 * time.Second // if nobody tells of the usage everything is admitted

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

	counted   uint64  // admitted when the present count began
	allocates float64 // bytes for each unit, by the count before; 0 is unknown

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
	counted  time.Duration // when the present count of what units allocate began ...
	from     uint64        // ... and what had been allocated then; 0 is unknown
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

// bounded reports whether there is a limit, and the usage is known: by whom does
// not matter, for a stale model with a usage that is true still brakes.
func (c *core) bounded(now time.Duration) bool { return c.known && now-c.heard < blindAfter }

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
	c.pending[0] += c.takes(r)
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

func (c *core) refuses(now time.Duration, r *route, p Priority) Reason {
	switch {
	case !c.bounded(now):
		return ""
	case c.braking:
		return c.brakes(now, p)
	case c.inFlight == 0:
		return "" // whatever the model says: something must go on
	}
	need := c.held + c.heldByConnections() + r.cost
	c.grow(now, need)
	switch {
	case c.near && c.willBrake(now, r):
		return Brake
	case !c.near:
		if need > c.window && !c.fits(r) {
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

// fits reports whether the usage stays far from the limit with a unit more, if none
// of what is in flight shows in it yet.
func (c *core) fits(r *route) bool {
	sum := c.usage + r.most()
	for _, other := range c.routes {
		sum += float64(other.inFlight) * other.most()
	}
	return sum <= nearOn*float64(c.memory.Limit)
}

// most is what a unit may hold.
func (r *route) most() float64 {
	if r.learned {
		return r.cost
	}
	return guessTimes * r.cost
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
	if first || now-c.counted >= countFor {
		c.recount(now)
	}
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
