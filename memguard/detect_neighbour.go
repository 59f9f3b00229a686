// SPDX-License-Identifier: Apache-2.0

package memguard

import "fmt"

// neighbourPressure: the limit is near because of other processes: in the same
// cgroup, or in one beside it under an ancestor that has a limit of its own.
type neighbourPressure struct{}

const (
	neighbourNear  = 0.90 // of the limit is used
	neighbourShare = 0.25 // of the limit is theirs
)

func (neighbourPressure) id() ID { return "neighbour-pressure" }

func (neighbourPressure) step(s *Sample) verdict {
	c := &s.Cgroup
	used, ok := c.undroppable().Get()
	usage, ok2 := c.Usage.Get()
	mapped, ok3 := c.Mapped.Get()
	own, ok4 := s.Process.anon().Get()
	if _, ok5 := c.Limit.Get(); !ok || !ok2 || !ok3 || !ok4 || !ok5 {
		return blindly("the cgroup's usage, limit or anonymous memory, or the process's own, are unknown")
	}
	if limit, ok := bounded(c.Limit); ok {
		// Only what is mapped: a huge page that this process gave back in part
		// stays charged, and is nobody's.
		theirs := mapped - min(mapped, own)
		if v, ok := crowded(used, theirs, limit); ok {
			v.severity = Warning
			v.add("this process's", float64(own), UnitBytes)
			return v
		}
	}
	above, ok := c.Above.Usage.Get()
	limit, ok2 := bounded(c.Above.Limit)
	if !ok || !ok2 {
		return clearly()
	}
	v, ok := crowded(above, above-min(above, usage), limit)
	if !ok {
		return clearly()
	}
	v.add(inThisCgroup, float64(usage), UnitBytes)
	// How much of an ancestor's usage is page cache is not read: the kernel may
	// still drop that. That tasks stall tells.
	if stall, ok := c.Pressure.Get(); ok {
		v.add("time stalled", stall, UnitPercent)
		if stall >= cacheStall {
			v.severity = Warning
		}
	}
	return v
}

const inThisCgroup = "in this cgroup"

func crowded(used, theirs, limit uint64) (verdict, bool) {
	if float64(used) < neighbourNear*float64(limit) || float64(theirs) < neighbourShare*float64(limit) {
		return verdict{}, false
	}
	v := verdict{state: found, severity: Info}
	v.add("of others", float64(theirs), UnitBytes)
	v.add("used", float64(used), UnitBytes)
	v.add("limit", float64(limit), UnitBytes)
	return v, true
}

func (neighbourPressure) say(v *verdict) string {
	used, limit, theirs := mib(v.fact("used")), mib(v.fact("limit")), mib(v.fact("of others"))
	if v.fact(inThisCgroup) > 0 {
		return fmt.Sprintf("A cgroup above this one uses %s of its %s, and %s of that are charged to others beside it.", used, limit, theirs)
	}
	return fmt.Sprintf("The cgroup uses %s of %s, and %s of that are other processes' memory.", used, limit, theirs)
}
