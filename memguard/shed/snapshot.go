// SPDX-License-Identifier: Apache-2.0

package shed

// Snapshot is the state of a [Limiter] at one instant. Sizes are in bytes.
type Snapshot struct {
	Limited bool   // there is a limit, and somebody tells of the usage
	Blind   bool   // there is a limit, but nobody has told of the usage for 5 s: everything is admitted
	Braking bool   // the usage is at the limit: nothing is admitted but probes
	Braked  uint64 // times that it began to

	Refusing int // percent of the work that is refused by order or in a spiral, whatever the memory: see Refuse

	Base   uint64 // what must stay with nothing in flight
	Room   uint64 // what the limit leaves for work, connections and garbage
	Budget uint64 // the part of it that work and connections may hold
	Window uint64 // how much of that slow start has opened
	Held   uint64 // what work in flight holds, by the learned costs

	Waiting            int // in Enter, for room
	Connections        int // open, of Listener
	ConnectionCost     uint64
	ConnectionsRefused uint64 // closed at once
	ConnectionsClosed  uint64 // quiet ones, for new ones

	Routes []RouteSnapshot
}

// RouteSnapshot is the state of one route.
type RouteSnapshot struct {
	Route    string
	Cost     uint64 // bytes that a unit of work holds
	Learned  bool   // it was measured; else it is a guess
	InFlight int
	Admitted uint64
	Refused  uint64
}

// Snapshot tells the state. Routes are in the order in which they were first seen.
func (l *Limiter) Snapshot() Snapshot {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.core
	s := Snapshot{
		Limited: c.bounded(now), Blind: c.known && !c.bounded(now), Braking: c.braking, Braked: c.braked, Refusing: c.refusing,
		Base: uint64(c.base), Room: uint64(c.room()), Budget: uint64(c.budget()),
		Window: uint64(c.window), Held: uint64(c.held),
		Waiting: len(l.queue.waiting), Connections: c.connections, ConnectionCost: uint64(c.connection),
		ConnectionsRefused: l.refused.connections, ConnectionsClosed: l.refused.closed,
	}
	for _, r := range c.routes {
		if r == c.other && r.admitted+r.refused == 0 {
			continue
		}
		s.Routes = append(s.Routes, RouteSnapshot{r.name, uint64(r.cost), r.learned, r.inFlight, r.admitted, r.refused})
	}
	return s
}
