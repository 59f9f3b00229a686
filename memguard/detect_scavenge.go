// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"time"
)

// scavengeIdle: idle heap stays backed by memory and nothing will change that.
//
// retained-idle says that there is some; it mostly goes by itself. The background
// scavenger passes over what was dense in this or the last cycle
// (mgcscavenge.go, scavChunkData.shouldScavenge), so it takes two cycles. Here
// they do not come, since GOGC is off and the limit is far, or they came and
// nothing was given back.
type scavengeIdle struct {
	from scavengePoint // what is idle has been so since; zero while nothing is
}

type scavengePoint struct {
	at              time.Time
	cycles          uint64
	free, allocated uint64
}

const (
	// The runtime starts a cycle when there was none for two minutes, unless GOGC
	// is off (mgc.go, gcTriggerTime).
	scavengeNoCycle = 150 * time.Second
	// One that gives back does so within seconds of the second cycle: 64 KiB at a
	// time, at 1 % of the CPU.
	scavengeSlow   = time.Minute
	scavengeCycles = 3
	scavengeMoved  = 0.10 // of the idle heap: given back, or used again
	scavengeNear   = 0.80 // of the cgroup's limit: now it is missed
)

func (*scavengeIdle) id() ID { return "scavenge-idle" }

func (d *scavengeIdle) step(s *Sample) verdict {
	r := &s.Runtime
	free, ok := r.Free.Get()
	mapped, ok2 := r.mapped().Get()
	if !ok || !ok2 {
		return blindly("the runtime's memory classes are unknown")
	}
	cycles, ok := r.Cycles.Get()
	allocated, ok2 := r.Allocated.Get()
	if !ok || !ok2 {
		return blindly("the heap's cycles or allocations are unknown: looked at from outside")
	}
	if free < retainedLeast || float64(free) < retainedPerGo*float64(mapped) {
		d.from = scavengePoint{}
		return clearly()
	}
	p := scavengePoint{s.Time, cycles, free, allocated}
	moved := uint64(scavengeMoved * float64(d.from.free))
	switch {
	case d.from.at.IsZero(), s.Time.Before(d.from.at), free < d.from.free-moved, free > d.from.free+moved:
		d.from = p
	}
	since, n := s.Time.Sub(d.from.at), cycles-min(cycles, d.from.cycles)
	_, extra, _ := retained(r)
	// What is idle will not be needed soon: less is allocated than lies idle.
	unused := allocated-min(allocated, d.from.allocated) < free/2
	noCycle := n == 0 && since >= scavengeNoCycle && unused
	noWork := extra > 0 && n >= scavengeCycles && since >= scavengeSlow
	if !noCycle && !noWork {
		return clearly()
	}
	v := verdict{state: found, severity: Info}
	used, ok := s.Cgroup.undroppable().Get()
	if limit, ok2 := bounded(s.Cgroup.Limit); ok && ok2 && float64(used) >= scavengeNear*float64(limit) {
		v.severity = Warning
	}
	v.add("idle heap still resident", float64(free), UnitBytes)
	v.add("held by the runtime", float64(mapped), UnitBytes)
	v.add("cycles", float64(n), UnitCount)
	v.add("for", since.Seconds(), UnitSeconds)
	return v
}

func (*scavengeIdle) say(v *verdict) string {
	s := fmt.Sprintf("%s of idle heap have not gone back to the OS for %.0f s", mib(v.fact("idle heap still resident")), v.fact("for"))
	if n := v.fact("cycles"); n > 0 {
		return s + fmt.Sprintf(", although %.0f collections have passed.", n)
	}
	return s + ", and no collection comes that would let the scavenger have them."
}
