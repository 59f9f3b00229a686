// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"time"
)

// retainedIdle: idle heap that is still backed by memory.
type retainedIdle struct {
	since time.Time // zero while there is none
}

const (
	retainedLeast  = 50 << 20
	retainedLong   = time.Minute
	retainedPerGo  = 0.25 // of what the runtime holds
	retainedOnWill = 0.10 // of memory in use at the heap's goal, which the scavenger keeps on purpose (mgcscavenge.go, retainExtraPercent)
)

func (*retainedIdle) id() ID { return "retained-idle" }

func (d *retainedIdle) step(s *Sample) verdict {
	free, extra, ok := retained(&s.Runtime)
	if !ok {
		return blindly("the runtime's memory classes are unknown")
	}
	if extra == 0 {
		d.since = time.Time{}
		return clearly()
	}
	mapped, _ := s.Runtime.mapped().Get()
	if d.since.IsZero() {
		d.since = s.Time
	}
	v := verdict{state: found, severity: Info}
	stays := s.Time.Sub(d.since)
	if stays >= retainedLong {
		v.severity = Warning
	}
	v.add("idle heap still resident", float64(free), UnitBytes)
	v.add("beyond what is soon used", extra, UnitBytes)
	v.add("held by the runtime", float64(mapped), UnitBytes)
	v.add("for", stays.Seconds(), UnitSeconds)
	return v
}

// retained is the idle heap that is backed by memory, and what of it the runtime
// has no use for; 0 while that is little.
func retained(r *Runtime) (free uint64, extra float64, ok bool) {
	free, ok = r.Free.Get()
	mapped, ok2 := r.mapped().Get()
	if !ok || !ok2 {
		return 0, 0, false
	}
	// Right after every collection half of a heap under GOGC=100 is idle: what it
	// will grow into before the next one is not left over.
	soon := float64(min(free, untilGoal(r)))
	kept := soon + retainedOnWill*(float64(mapped-min(mapped, free))+soon)
	extra = float64(free) - kept
	if extra < retainedLeast || extra < retainedPerGo*float64(mapped) {
		return free, 0, true
	}
	return free, extra, true
}

// untilGoal is how much the heap may still grow before the next cycle, 0 if
// nothing will start one.
func untilGoal(r *Runtime) uint64 {
	goal, ok := r.Goal.Get()
	objects, ok2 := r.Objects.Get()
	if percent, ok3 := r.GCPercent.Get(); !ok || !ok2 || ok3 && percent < 0 && r.MemoryLimit == Known[uint64](Unlimited) {
		return 0
	}
	return goal - min(goal, objects)
}

func (*retainedIdle) say(v *verdict) string {
	return fmt.Sprintf("%s of the %s that the runtime holds are idle heap that has not gone back to the OS, and %s of it will not be used before the next collection.",
		mib(v.fact("idle heap still resident")), mib(v.fact("held by the runtime")), mib(v.fact("beyond what is soon used")))
}
