// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"sync"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/watch"
	"github.com/prometheus/client_golang/prometheus"
)

// tally counts what is told once, of each target.
//
// Every series is there at zero from when the target is: Prometheus sees no
// increase in a series that begins at one, and the first kill would go unseen.
// The counts of a target that is gone stay for as long as there is room, for the
// kill that ended it is in them.
type tally struct {
	mu     sync.Mutex
	most   int // targets
	of     map[string]*counts
	clock  uint64 // goes on with each use of an entry
	missed uint64 // events
}

type counts struct {
	used      uint64 // when, by the clock
	acts      bool   // it has, or had, a guard of its own
	actions   [numActions]uint64
	incidents [numCauses]uint64
}

// The last of both is "other".
var (
	actionNames = [...]memguard.ActionName{
		memguard.SetGCPercent, memguard.SetMemoryLimit, memguard.FreeOSMemory, memguard.CollectGarbage,
		memguard.Compact, memguard.Capture, memguard.SetBreaker, memguard.ShedLoad, memguard.Exit, other,
	}
	causes = [...]incident.Cause{
		incident.OOMKill, incident.OOMAncestor, incident.OOMMachine, incident.OOMSuspected, incident.GoOutOfMemory,
		incident.GaveUp, incident.GoPanic, incident.GoFatal, incident.Signalled, incident.ExitFailure, incident.Restarted,
		incident.OtherDeath, incident.NotKnown, incident.Replaced, incident.CleanExit, other,
	}
)

const numActions, numCauses = len(actionNames), len(causes)

// index is where v is in a table, or the last, which is "other".
func index[T comparable](table []T, v T) int {
	if i := slices.Index(table, v); i >= 0 {
		return i
	}
	return len(table) - 1
}

// entry returns a target's counts, which it makes if there are none. The one that
// was longest not used makes room.
func (t *tally) entry(target string) *counts {
	t.clock++
	if c := t.of[target]; c != nil {
		c.used = t.clock
		return c
	}
	if t.of == nil {
		t.of = map[string]*counts{}
	}
	if len(t.of) >= t.most {
		oldest := ""
		for name, c := range t.of {
			if oldest == "" || c.used < t.of[oldest].used {
				oldest = name
			}
		}
		delete(t.of, oldest)
	}
	c := &counts{used: t.clock}
	t.of[target] = c
	return c
}

// see begins to count for a target that there is.
func (t *tally) see(target string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entry(target)
}

// acts begins to count actions for a target that has a guard of its own.
func (t *tally) acts(target string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entry(target).acts = true
}

func (t *tally) incident(target string, cause incident.Cause) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entry(target).incidents[index(causes[:], cause)]++
}

// event counts an action that was taken; missed events were before it.
func (t *tally) event(e *watch.Event, missed uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missed += missed
	if e.Guard == nil || e.Guard.Kind != memguard.Applied || !nameable(e.Target) {
		return
	}
	c := t.entry(e.Target)
	c.acts = true
	c.actions[index(actionNames[:], e.Guard.Action.Name)]++
}

func (t *tally) collect(ch chan<- prometheus.Metric) {
	t.mu.Lock()
	missed := t.missed
	of := make(map[string]counts, len(t.of))
	for name, c := range t.of {
		of[name] = *c
	}
	t.mu.Unlock() // the channel may take its time
	sink{ch: ch}.counter(eventsMissed, missed)
	for name, c := range of {
		out := sink{ch: ch, target: name}
		for i, n := range c.incidents {
			out.counter(incidents, n, string(causes[i]))
		}
		if !c.acts {
			continue
		}
		for i, n := range c.actions {
			out.counter(actions, n, string(actionNames[i]))
		}
	}
}
