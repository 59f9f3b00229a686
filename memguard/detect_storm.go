// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"time"
)

// gcStorm: the collector takes too much of the CPU, and not because memory has
// run out: the heap is small for what is allocated, GOGC is low, or the limit
// leaves little room. Where it has run out it is gc-death-spiral.
type gcStorm struct {
	window gcWindow
	since  time.Time // zero while there is none
}

const (
	stormHalf = 15 * time.Second
	// The pacer gives the collector a quarter of the CPU while it marks
	// (gcBackgroundUtilization in mgcpacer.go), so that only one that marks
	// all the time, or makes others help it, comes to that.
	stormShare   = 0.25
	stormWarning = 1.0 / 3
	stormCycles  = 20 // in the window: one long cycle at the start of a batch is no storm
	stormLong    = time.Minute
)

func (*gcStorm) id() ID { return "gc-storm" }

func (d *gcStorm) step(s *Sample) verdict {
	span, ok := d.window.add(s, stormHalf)
	if !ok {
		return blindly("the collector's CPU time is unknown: no cycle yet, or looked at from outside")
	}
	if spirals(s, &span, spiralShare) {
		*d = gcStorm{} // nothing that the window has seen was one
		return clearly()
	}
	if span.seconds < stormHalf.Seconds() || span.cycles < stormCycles || span.share < stormShare {
		d.since = time.Time{}
		return clearly()
	}
	if d.since.IsZero() {
		d.since = s.Time
	}
	v := verdict{state: found, severity: Info}
	if span.share >= stormWarning && s.Time.Sub(d.since) >= stormLong {
		v.severity = Warning
	}
	v.add("CPU taken by the collector", 100*span.share, UnitPercent)
	v.add("cycles", span.cycles, UnitCount)
	v.add("in", span.seconds, UnitSeconds)
	v.add("freed by each", span.allocated, UnitBytes)
	if limit, ok := limitBinds(&s.Runtime); ok {
		v.add("Go memory limit", float64(limit), UnitBytes)
	} else if percent, ok := s.Runtime.GCPercent.Get(); ok && percent >= 0 {
		v.add("GOGC", float64(percent), UnitPercent)
	}
	return v
}

// limitBinds returns the Go memory limit if the heap goal comes from it and not
// from GOGC.
func limitBinds(r *Runtime) (limit uint64, ok bool) {
	limit, ok = bounded(r.MemoryLimit)
	goal, ok2 := r.Goal.Get()
	live, ok3 := r.Live.Get()
	percent, ok4 := r.GCPercent.Get()
	if !ok || !ok2 || !ok3 || !ok4 {
		return 0, false
	}
	// By GOGC alone the goal would be this at least: stacks and globals come on top.
	return limit, percent < 0 || float64(goal) < 0.95*float64(live)*(1+float64(percent)/100)
}

func (*gcStorm) say(v *verdict) string {
	s := fmt.Sprintf("The collector takes %.0f %% of the CPU: %.0f cycles in %.0f s, %s freed by each",
		v.fact("CPU taken by the collector"), v.fact("cycles"), v.fact("in"), mib(v.fact("freed by each")))
	if limit := v.fact("Go memory limit"); limit > 0 {
		return s + fmt.Sprintf(", because GOMEMLIMIT %s leaves no more room for garbage.", mib(limit))
	}
	if percent := v.fact("GOGC"); percent > 0 {
		return s + fmt.Sprintf(", with GOGC=%.0f.", percent)
	}
	return s + "."
}
