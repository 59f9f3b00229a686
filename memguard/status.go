// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"slices"
	"time"

	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
	"github.com/memguard/memguard-go/scavenge"
)

// Status is what a guard saw at its last tick, and what it does.
type Status struct {
	Sample   Sample
	Ledger   *Ledger // of the sample, without the address space
	Findings []Finding
	Left     Value[float64] // seconds to the limit at the present growth
	Blind    []Blind

	Undroppable Bytes // of the cgroup's usage, what counts towards a kill

	Ticks  uint64
	Events uint64               // Seq of the last event
	Kinds  map[EventKind]uint64 // how many there were

	// What follows is of a guard of its own process; Acts is false otherwise.
	Acts     bool
	DryRun   bool  // settings are only planned, and nothing is given back: in a dry run, or beside another guard of the process that does both
	Coupled  bool  // to a breaker, the service's own or the memory breaker
	Must     Bytes // Go memory that no collection frees
	Breaker  pacer.State
	Decision pacer.Decision   // of the pacer
	Baseline pacer.Setting    // what the settings go back to
	Wanted   pacer.Setting    // what is set; with DryRun what would be
	Grade    scavenge.Grade   // of the releaser
	Releases scavenge.Account // what they cost and gained
	Shed     *shed.Snapshot   // nil without a limiter
	Changes  uint64           // settings changed since the start; with DryRun planned
	Clamps   uint64           // times that the breaker was not given its GC percent

	MemoryBreaker shed.State // empty without one
	Orders        []Standing // that stand now
}

// Standing is an order that stands.
type Standing struct {
	Seq    uint64 // for Guard.Undo
	Action Action // as it was applied; Until says when it is taken back by itself
}

// Status tells what the guard knows and does, without looking anew. It waits for
// the tick under way, which may itself wait for a callback or the kernel.
func (g *Guard) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status()
}

// StatusWithin is Status for who cannot wait for longer: it reports false where
// the guard hangs. See [Guard.Alive].
func (g *Guard) StatusWithin(wait time.Duration) (Status, bool) {
	for start := time.Now(); !g.mu.TryLock(); time.Sleep(time.Millisecond) {
		if time.Since(start) >= wait {
			return Status{}, false
		}
	}
	defer g.mu.Unlock()
	return g.status(), true
}

func (g *Guard) status() Status {
	s := g.sample
	s.Blind = slices.Clone(s.Blind)
	s.Runtime.Classes, s.Queues = nil, nil // the next tick overwrites them
	st := Status{
		Sample: s, Ledger: NewLedger(&s), Findings: g.judge.Findings(), Blind: g.judge.Blind(),
		Ticks: g.ticks, Undroppable: s.Cgroup.undroppable(),
	}
	st.Events, st.Kinds = g.journal.count()
	st.Left, _ = timeLeft(&s, g.judge)
	if h := g.hand; h != nil {
		h.status(&st)
	}
	return st
}

// Alive is the time since the guard's last tick, or since it was started if there
// was none: a guard that is alive ticks once a second at least. It does not wait,
// so that it tells of a guard that hangs.
func (g *Guard) Alive() time.Duration {
	return time.Since(g.born) - time.Duration(g.beat.Load())
}
