// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"time"
)

// oomForecast: what cannot be freed will reach the limit.
type oomForecast struct {
	trend trend
	left  time.Duration // of the last sample; 0 if it gave no forecast
}

const (
	forecastInfo     = 10 * time.Minute
	forecastWarning  = 2 * time.Minute
	forecastCritical = 30 * time.Second
	// Growth slower than this in the whole window is noise: counters of the
	// kernel and the runtime are batched.
	forecastSlope = 32 << 10 // bytes a second
)

func (*oomForecast) id() ID { return "oom-forecast" }

func (d *oomForecast) step(s *Sample) verdict {
	d.left = 0
	if _, ok := s.Cgroup.Limit.Get(); !ok {
		return blindly("the cgroup's limit is unknown")
	}
	limit, ok := bounded(s.Cgroup.Limit)
	if !ok {
		return clearly()
	}
	must, needs, ok := unfreeable(s)
	if !ok {
		return blindly("the cgroup's usage is unknown")
	}
	d.trend.add(s.Time, float64(must))
	slope, ok := d.trend.perSecond()
	if !ok || slope < forecastSlope {
		return clearly()
	}
	// The garbage that the collector allows grows with the live heap.
	headroom := float64(limit) - float64(must)*needs
	left := time.Duration(max(headroom, 0) / (slope * needs) * float64(time.Second))
	if headroom/(slope*needs) > forecastInfo.Seconds() {
		return clearly()
	}
	d.left = max(left, 1) // at the limit already is the shortest time, not none
	v := verdict{state: found, severity: Info}
	switch {
	case left <= forecastCritical:
		v.severity = Critical
	case left <= forecastWarning:
		v.severity = Warning
	}
	v.add("time left", left.Seconds(), UnitSeconds)
	v.add("grows by at least", slope, UnitBytesPerSecond)
	v.add("cannot be freed", float64(must), UnitBytes)
	v.add("limit", float64(limit), UnitBytes)
	return v
}

func (*oomForecast) say(v *verdict) string {
	return fmt.Sprintf("Memory that cannot be freed grows by %s/s or more and reaches the limit of %s in about %s.",
		mib(v.fact("grows by at least")), mib(v.fact("limit")),
		time.Duration(v.fact("time left")*float64(time.Second)).Round(time.Second))
}

// unfreeable is what a collection and a reclaim together could not free, and by
// how much the peak exceeds it: with GOGC=100 and no memory limit that holds
// below the cgroup's, the heap is allowed twice what lives. Without the
// runtime's figures all that is not page cache counts, garbage included; its
// growth is then taken between the teeth by the trend.
func unfreeable(s *Sample) (must uint64, needs float64, ok bool) {
	must, ok = s.Cgroup.undroppable().Get()
	if !ok {
		return 0, 0, false
	}
	r := &s.Runtime
	percent, ok1 := r.GCPercent.Get()
	goLimit, ok2 := r.MemoryLimit.Get()
	limit, ok3 := bounded(s.Cgroup.Limit)
	objects, ok4 := r.Objects.Get()
	free, ok5 := r.Free.Get()
	live, ok6 := r.Live.Get()
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 {
		return must, 1, true
	}
	limited := goLimit < limit
	if percent < 0 && !limited {
		return must, 1, true // nothing collects: garbage stays
	}
	idle := objects - min(objects, live) + free
	must -= min(must, idle)
	if limited {
		return must, 1, true // the collector works harder near the limit
	}
	// Only the live heap's share of it is doubled by GOGC=100.
	return must, 1 + float64(percent)/100*float64(min(live, must))/float64(max(must, 1)), true
}

// oomKill: the kernel has killed in this cgroup.
type oomKill struct {
	first   uint64
	started bool
	path    string
}

func (*oomKill) id() ID { return "oom-kill" }

func (d *oomKill) step(s *Sample) verdict {
	kills, ok := s.Cgroup.OOMKills.Get()
	if !ok {
		return blindly("the cgroup's oom_kill count is unknown")
	}
	if !d.started || d.path != s.Cgroup.Path {
		d.started, d.first, d.path = true, kills, s.Cgroup.Path
	}
	if kills == 0 {
		return clearly()
	}
	v := verdict{state: found, severity: Info}
	if kills > d.first {
		v.severity = Critical
		v.add("killed while watching", float64(kills-d.first), UnitCount)
	}
	v.add("killed in all", float64(kills), UnitCount)
	return v
}

func (*oomKill) say(v *verdict) string {
	if n := v.fact("killed while watching"); n > 0 {
		return fmt.Sprintf("The kernel has just killed in this cgroup because its limit was reached: %.0f now, %.0f in all.", n, v.fact("killed in all"))
	}
	return fmt.Sprintf("The kernel has killed in this cgroup before: %.0f in all.", v.fact("killed in all"))
}
