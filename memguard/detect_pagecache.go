// SPDX-License-Identifier: Apache-2.0

package memguard

import "fmt"

// pagecachePressure: usage is near the limit, but much of it can be dropped.
type pagecachePressure struct{}

const (
	cacheUsage = 0.90 // of the limit
	cacheShare = 0.20 // of usage
	cacheStall = 10.0 // percent of time in which some task stalled for memory
)

func (pagecachePressure) id() ID { return "pagecache-pressure" }

func (pagecachePressure) step(s *Sample) verdict {
	c := &s.Cgroup
	usage, ok := c.Usage.Get()
	file, ok2 := plus(c.ActiveFile, c.InactiveFile).Get()
	if _, ok3 := c.Limit.Get(); !ok || !ok2 || !ok3 {
		return blindly("the cgroup's usage, limit or file pages are unknown")
	}
	limit, ok := bounded(c.Limit)
	if !ok || float64(usage) < cacheUsage*float64(limit) || float64(file) < cacheShare*float64(usage) {
		return clearly()
	}
	v := verdict{state: found, severity: Info}
	v.add("usage", float64(usage), UnitBytes)
	v.add("limit", float64(limit), UnitBytes)
	v.add("file pages", float64(file), UnitBytes)
	if stall, ok := c.Pressure.Get(); ok {
		v.add("time stalled", stall, UnitPercent)
		if stall >= cacheStall {
			v.severity = Warning
		}
	}
	return v
}

func (pagecachePressure) say(v *verdict) string {
	s := fmt.Sprintf("The cgroup uses %s of %s, and %s of that are page cache that the kernel drops before it kills",
		mib(v.fact("usage")), mib(v.fact("limit")), mib(v.fact("file pages")))
	if v.severity >= Warning {
		return s + fmt.Sprintf("; tasks stall for it %.0f %% of the time.", v.fact("time stalled"))
	}
	return s + "."
}
