// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"time"
)

// gcDeathSpiral: what lives is so near the Go memory limit that the collector
// runs all the time and gains little. The limit is soft: the runtime stops
// helping at half of the CPU (mgclimit.go) and lets the heap outgrow it.
type gcDeathSpiral struct {
	window gcWindow
	since  time.Time // zero while there is none
	last   time.Time // when it was seen last
}

const (
	spiralHalf  = 5 * time.Second
	spiralShare = 0.25 // of the CPU
	spiralStays = 0.15 // of the CPU, once it was there
	spiralGain  = 0.25 // of the live heap, freed by one cycle: as if GOGC were 25
	spiralMust  = 0.70 // of the Go memory limit, that no collection gives back
	// With the collector held at half of the CPU a smaller part of the limit is
	// enough: assists have stopped.
	spiralMustLimited = 0.60
	spiralSure        = 10 * time.Second
)

func (*gcDeathSpiral) id() ID { return "gc-death-spiral" }

func (d *gcDeathSpiral) step(s *Sample) verdict {
	span, ok := d.window.add(s, spiralHalf)
	if !ok {
		return blindly("the collector's CPU time is unknown: no cycle yet, or looked at from outside")
	}
	if _, ok := s.Runtime.MemoryLimit.Get(); !ok {
		return blindly("the Go memory limit is unknown")
	}
	share := spiralShare
	if !d.since.IsZero() {
		share = spiralStays
	}
	if !spirals(s, &span, share) {
		if s.Time.Sub(d.last) >= clearAfter {
			d.since = time.Time{}
		}
		return clearly()
	}
	if d.last = s.Time; d.since.IsZero() {
		d.since = s.Time
	}
	v := verdict{state: found, severity: Warning}
	if span.limited || s.Time.Sub(d.since) >= spiralSure {
		v.severity = Critical
	}
	limit, _ := s.Runtime.MemoryLimit.Get()
	must, _ := s.Runtime.mustStay().Get()
	v.add("CPU taken by the collector", 100*span.share, UnitPercent)
	v.add("freed by each cycle", span.allocated, UnitBytes)
	v.add("cannot be freed", float64(must), UnitBytes)
	v.add("Go memory limit", float64(limit), UnitBytes)
	v.add("cycles a second", span.cycles/max(span.seconds, 1), UnitCount)
	return v
}

// spirals says whether the collector was near its end in the window, and took
// that share of the CPU.
func spirals(s *Sample, span *gcSpan, share float64) bool {
	limit, ok := bounded(s.Runtime.MemoryLimit)
	must, ok2 := s.Runtime.mustStay().Get()
	live, ok3 := s.Runtime.Live.Get()
	if !ok || !ok2 || !ok3 || span.cycles < 2 {
		return false
	}
	near := float64(must) / float64(max(limit, 1))
	if span.limited && near >= spiralMustLimited {
		return true
	}
	return near >= spiralMust && span.share >= share && span.allocated <= spiralGain*float64(live)
}

func (*gcDeathSpiral) say(v *verdict) string {
	return fmt.Sprintf("%s cannot be freed, and the Go memory limit is %s: the collector takes %.0f %% of the CPU, and a cycle frees %s.",
		mib(v.fact("cannot be freed")), mib(v.fact("Go memory limit")), v.fact("CPU taken by the collector"), mib(v.fact("freed by each cycle")))
}
