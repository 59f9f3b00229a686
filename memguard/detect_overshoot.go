// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"time"
)

// gcOvershoot: while a cycle marks, the program allocates past the heap goal.
//
// How large the heap was at the end of marking is no metric: at a tick the heap
// is anywhere between two ends, and right after one it still holds what is not
// swept. But from the end of one marking to the end of the next the heap goes
// from what the first left alive to that and all that was allocated meanwhile.
// So over a number of cycles the mean heap at the end is the mean live heap and
// the bytes allocated for each cycle, exactly but for the part of a cycle at both
// ends of the window.
type gcOvershoot struct {
	since             time.Time // beginning of the window; zero before the first sample
	cycles, from      uint64    // the last and the first
	allocated         float64   // at the beginning
	live, goal, looks float64   // summed at the ticks that saw new cycles
	last              verdict   // of the last whole window
	until             time.Time // and how long it counts
}

const (
	overCycles = 10 // in a window, at least
	overWindow = 10 * time.Second
	// A heap of a few MiB overshoots by its own size and more, and nobody minds.
	overLeast = 16 << 20
	overShare = 0.20 // of the goal
	overNear  = 0.90 // of the limit
	// What was seen counts for this long, or for twice as long as it took to see.
	overCounts = time.Minute
)

func (*gcOvershoot) id() ID { return "gc-overshoot" }

func (d *gcOvershoot) step(s *Sample) verdict {
	r := &s.Runtime
	cycles, ok := r.Cycles.Get()
	live, ok2 := r.Live.Get()
	goal, ok3 := r.Goal.Get()
	allocated, ok4 := r.Allocated.Get()
	if !ok || !ok2 || !ok3 || !ok4 {
		return blindly("the heap's live bytes, goal or allocations are unknown: no cycle yet, or looked at from outside")
	}
	age := s.Time.Sub(d.since)
	if d.since.IsZero() || cycles < d.cycles || age < 0 {
		*d = gcOvershoot{since: s.Time, cycles: cycles, from: cycles, allocated: float64(allocated), last: clearly()}
		return d.last
	}
	if s.Time.After(d.until) {
		d.last = clearly()
	}
	if cycles == d.cycles {
		return d.last
	}
	d.cycles = cycles
	d.live, d.goal, d.looks = d.live+float64(live), d.goal+float64(goal), d.looks+1
	n := float64(cycles - d.from)
	if n < overCycles || age < overWindow {
		return d.last
	}
	end := d.live/d.looks + (float64(allocated)-d.allocated)/n
	*d = gcOvershoot{
		since: s.Time, cycles: cycles, from: cycles, allocated: float64(allocated),
		last: overshot(s, end, d.goal/d.looks, n), until: s.Time.Add(max(overCounts, 2*age)),
	}
	return d.last
}

// overshot compares the mean heap at the end of marking with the mean goal.
func overshot(s *Sample, end, goal, cycles float64) verdict {
	over := end - goal
	if over < overLeast || over < overShare*goal {
		return clearly()
	}
	v := verdict{state: found, severity: Info}
	v.add("heap at the end of marking", end, UnitBytes)
	v.add("heap goal", goal, UnitBytes)
	v.add("cycles", cycles, UnitCount)
	limit, ok := bounded(s.Cgroup.Limit)
	peak, ok2 := peakAt(s, uint64(end))
	if ok && ok2 && float64(peak) >= overNear*float64(limit) {
		v.severity = Warning
		v.add("peak", float64(peak), UnitBytes)
		v.add("cgroup limit", float64(limit), UnitBytes)
	}
	return v
}

func (*gcOvershoot) say(v *verdict) string {
	s := fmt.Sprintf("The heap is %s when a collection has marked it, and its goal was %s", mib(v.fact("heap at the end of marking")), mib(v.fact("heap goal")))
	if limit := v.fact("cgroup limit"); limit > 0 {
		return s + fmt.Sprintf(": the cgroup then needs %s of %s.", mib(v.fact("peak")), mib(limit))
	}
	return s + "."
}
