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
	retainedOnWill = 0.10 // of memory in use, which the scavenger keeps on purpose (mgcscavenge.go, retainExtraPercent)
)

func (*retainedIdle) id() ID { return "retained-idle" }

func (d *retainedIdle) step(s *Sample) verdict {
	r := &s.Runtime
	free, ok := r.Free.Get()
	mapped, ok2 := r.mapped().Get()
	if !ok || !ok2 {
		return blindly("the runtime's memory classes are unknown")
	}
	kept := retainedOnWill * float64(mapped-min(mapped, free))
	extra := float64(free) - kept
	if extra < retainedLeast || float64(free) < retainedPerGo*float64(mapped) {
		d.since = time.Time{}
		return clearly()
	}
	if d.since.IsZero() {
		d.since = s.Time
	}
	v := verdict{state: found, severity: Info}
	stays := s.Time.Sub(d.since)
	if stays >= retainedLong {
		v.severity = Warning
	}
	v.add("idle heap still resident", float64(free), UnitBytes)
	v.add("held by the runtime", float64(mapped), UnitBytes)
	v.add("for", stays.Seconds(), UnitSeconds)
	return v
}

func (*retainedIdle) say(v *verdict) string {
	return fmt.Sprintf("%s of the %s that the runtime holds are idle heap that has not gone back to the OS.",
		mib(v.fact("idle heap still resident")), mib(v.fact("held by the runtime")))
}
