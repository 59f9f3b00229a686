// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"math"
)

// limitMissing: the kernel has a limit and the Go runtime has none.
type limitMissing struct{}

func (limitMissing) id() ID { return "limit-missing" }

func (limitMissing) step(s *Sample) verdict {
	r := &s.Runtime
	limit, isBounded := bounded(s.Cgroup.Limit)
	if _, ok := s.Cgroup.Limit.Get(); !ok {
		return blindly("the cgroup's limit is unknown")
	}
	goLimit, ok := r.MemoryLimit.Get()
	if !ok {
		return blindly("the Go memory limit is unknown")
	}
	if percent, ok := r.GCPercent.Get(); !isBounded || s.Paced || goLimit < Unlimited || ok && percent < 0 {
		return clearly() // GOGC=off without a limit is gc-off-no-limit
	}
	v := verdict{state: found, severity: Info}
	v.add("cgroup limit", float64(limit), UnitBytes)
	if peak, ok := peakAtGoal(s); ok {
		v.add("peak at heap goal", float64(peak), UnitBytes)
		if peak > limit {
			v.severity = Warning
		}
	}
	return v
}

func (limitMissing) say(v *verdict) string {
	s := fmt.Sprintf("The kernel's limit is %s and GOMEMLIMIT is not set", mib(v.fact("cgroup limit")))
	if v.severity >= Warning {
		return s + fmt.Sprintf("; when the heap reaches its goal, the cgroup needs %s, and the kernel kills.", mib(v.fact("peak at heap goal")))
	}
	return s + ": near the limit the collector will not try harder."
}

// peakAtGoal is what the cgroup will be charged when the heap has grown to its
// present goal and nothing else has changed.
func peakAtGoal(s *Sample) (uint64, bool) {
	goal, ok := s.Runtime.Goal.Get()
	if !ok {
		return 0, false
	}
	return peakAt(s, goal)
}

// peakAt is the same for a heap of that size.
func peakAt(s *Sample, heap uint64) (uint64, bool) {
	objects, ok := s.Runtime.Objects.Get()
	free, ok2 := s.Runtime.Free.Get()
	used, ok3 := s.Cgroup.undroppable().Get()
	if !ok || !ok2 || !ok3 {
		return 0, false
	}
	// The heap grows into its idle spans first.
	have := objects + free
	more := heap - min(heap, have)
	return used + min(more, math.MaxUint64-used), true // the goal of GOGC=off is beyond all
}

// limitAboveCgroup: the Go limit leaves no room for what is not Go's.
type limitAboveCgroup struct{}

func (limitAboveCgroup) id() ID { return "limit-above-cgroup" }

func (limitAboveCgroup) step(s *Sample) verdict {
	if _, ok := s.Cgroup.Limit.Get(); !ok {
		return blindly("the cgroup's limit is unknown")
	}
	if _, ok := s.Runtime.MemoryLimit.Get(); !ok {
		return blindly("the Go memory limit is unknown")
	}
	limit, ok := bounded(s.Cgroup.Limit)
	goLimit, ok2 := bounded(s.Runtime.MemoryLimit)
	if !ok || !ok2 || s.Paced {
		return clearly()
	}
	var others uint64
	used, ok := s.Cgroup.undroppable().Get()
	mapped, ok2 := s.Runtime.mapped().Get()
	if ok && ok2 && used > mapped {
		others = used - mapped
	}
	if others <= limit && goLimit <= limit-others {
		return clearly()
	}
	v := verdict{state: found, severity: Warning}
	v.add("Go memory limit", float64(goLimit), UnitBytes)
	v.add("cgroup limit", float64(limit), UnitBytes)
	if others > 0 {
		v.add("not Go's", float64(others), UnitBytes)
	}
	return v
}

func (limitAboveCgroup) say(v *verdict) string {
	goLimit, limit, others := v.fact("Go memory limit"), v.fact("cgroup limit"), v.fact("not Go's")
	if others > 0 && goLimit < limit {
		return fmt.Sprintf("GOMEMLIMIT %s and the %s in the cgroup that are not Go's are more than its limit of %s.", mib(goLimit), mib(others), mib(limit))
	}
	return fmt.Sprintf("GOMEMLIMIT %s is not below the cgroup's limit of %s.", mib(goLimit), mib(limit))
}

// gcOffNoLimit: nothing will ever collect.
type gcOffNoLimit struct{}

func (gcOffNoLimit) id() ID { return "gc-off-no-limit" }

func (gcOffNoLimit) step(s *Sample) verdict {
	percent, ok := s.Runtime.GCPercent.Get()
	if !ok {
		return blindly("the GC percent is unknown")
	}
	goLimit, ok := s.Runtime.MemoryLimit.Get()
	if !ok {
		return blindly("the Go memory limit is unknown")
	}
	if percent >= 0 || goLimit < Unlimited || s.Paced {
		return clearly() // the guard sets a limit, in the tick that this sample begins if it has not yet
	}
	v := verdict{state: found, severity: Warning}
	if limit, ok := bounded(s.Cgroup.Limit); ok {
		v.severity = Critical
		v.add("cgroup limit", float64(limit), UnitBytes)
	}
	if n, ok := s.Runtime.Objects.Get(); ok {
		v.add("heap objects", float64(n), UnitBytes)
	}
	return v
}

func (gcOffNoLimit) say(v *verdict) string {
	if limit := v.fact("cgroup limit"); limit > 0 {
		return fmt.Sprintf("GOGC is off and no GOMEMLIMIT is set: nothing collects before the kernel's limit of %s kills.", mib(limit))
	}
	return "GOGC is off and no GOMEMLIMIT is set: nothing collects."
}
