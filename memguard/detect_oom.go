// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"time"
)

// oomForecast: what cannot be freed will reach the limit.
//
// What is followed is not usage: garbage may fill the room, and does. It is what
// a collection and a reclaim together would leave (must), and how much more than
// that the heap is allowed at its peak (needs). The limit is reached when
// must*needs is there, but no sooner than new memory can fill the room: a program
// that leaks all it allocates makes no garbage, and its peak is what it has.
//
// It looks in two ways: at the last minute, which shows what is fast, and at four,
// which show what is slow beside the teeth of a cache. The graver one is told.
type oomForecast struct {
	must   trend
	most   trend // the same if nothing had become garbage since the last collection
	marked drift // what collections have left
	early  drift // the same in the first minute
	used   trend // memory taken since start: it does not fall when the heap is collected
	heap   survival
	cycled time.Time     // before which the last collection ended
	since  time.Time     // when the present growth of must began; zero while there is none
	drifts bool          // the last sample was a warning by drift
	left   time.Duration // of the last sample; 0 if it gave no forecast
}

const (
	forecastInfo     = 10 * time.Minute
	forecastWarning  = 2 * time.Minute
	forecastCritical = 30 * time.Second
	forecastRelief   = 0.75 // of the highest seen
	// A program that warms up, or a cache that fills for the first time, grows like
	// a leak and then stops. So an alarm reaches no farther ahead than growth was
	// seen (half of the way to the limit has been gone), and takes this long at least,
	// unless there is no time left to be sure.
	forecastSeen   = 10 * time.Second
	forecastAtOnce = time.Second
	// With the collector off what can make sure is the next collection, and that
	// comes a moment before the end. If by then nothing was garbage, it is time.
	forecastKept = 2 * time.Second
	// Growth slower than this in the whole window is noise: counters of the
	// kernel and the runtime are batched.
	forecastSlope = 32 << 10 // bytes a second
	// A slope that is fitted to few points wavers: a warning by drift stays while
	// this part of what raised it holds.
	driftStays = 0.5
	// Between what lives and the limit the collector needs room, or it runs without
	// a break: slow growth has come to its end with this part of the limit left.
	driftMargin = 1. / 32
)

// cannotBeFreed is the evidence that only the runtime's figures give.
const cannotBeFreed = "cannot be freed"

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
	before := d.heap
	must, needs, ok := unfreeable(s, d.heap.estimate(&s.Runtime))
	if !ok {
		return blindly("the cgroup's usage is unknown")
	}
	d.must.add(s.Time, float64(must))
	d.revise(s, must, &before)
	d.mark(s)
	room := max(float64(limit)-d.must.highest()*needs, 0) / needs // above the last teeth, if there are any
	soonest := max(d.toFill(s, float64(limit)), 0)
	f := d.lately(s, room, soonest)
	if slow := d.overMinutes(float64(must), max(room-driftMargin*float64(limit), 0), soonest, driftMargin*float64(limit)); slow.severity > f.severity {
		f = slow
	}
	if f.slope == 0 {
		v := clearly()
		// What the alarm was about has gone: it must not stand until it is
		// forgotten.
		v.atOnce = float64(must) < forecastRelief*d.must.highest()
		return v
	}
	if f.severity == 0 {
		return clearly()
	}
	left, slope := f.left, f.slope
	v := verdict{state: found, severity: f.severity}
	if v.severity >= Warning {
		d.left = max(time.Duration(left*float64(time.Second)), 1) // at the limit already is the shortest time, not none
	}
	v.add("time left", left, UnitSeconds)
	v.add("grows by at least", slope, UnitBytesPerSecond)
	if s.Runtime.Live.ok {
		v.add(cannotBeFreed, float64(must), UnitBytes)
	} else {
		v.add("not page cache", float64(must), UnitBytes)
	}
	v.add("limit", float64(limit), UnitBytes)
	return v
}

func (*oomForecast) say(v *verdict) string {
	what := "Memory that cannot be freed grows"
	if v.fact(cannotBeFreed) == 0 {
		what = "Memory other than page cache grows (from outside, garbage counts)"
	}
	when := time.Duration(v.fact("time left") * float64(time.Second)).Round(time.Second)
	if v.severity < Warning {
		return fmt.Sprintf("%s by %s/s or more; it is too early to tell whether that lasts to the limit of %s, which would take %s.",
			what, mib(v.fact("grows by at least")), mib(v.fact("limit")), when)
	}
	return fmt.Sprintf("%s by %s/s or more and can reach the limit of %s in %s.",
		what, mib(v.fact("grows by at least")), mib(v.fact("limit")), when)
}

// forecast is how fast it grows, in how many seconds it reaches the limit, and how
// grave that is. The zero forecast is none.
type forecast struct {
	slope, left float64
	severity    Severity // 0 if that is too far away to say
}

// lately is the forecast by the last minute.
func (d *oomForecast) lately(s *Sample, room, soonest float64) (f forecast) {
	now := s.Time
	slope, over, ok := d.must.perSecond()
	if !ok || slope < forecastSlope {
		d.since = time.Time{}
		return f
	}
	if d.since.IsZero() {
		d.since = now.Add(-time.Duration(over * float64(time.Second)))
	}
	f = forecast{slope: slope, left: max(room/slope, soonest)}
	if f.left > forecastInfo.Seconds() {
		return f
	}
	seen := now.Sub(d.since).Seconds()
	if d.must.surged {
		seen = min(seen, 2*over) // that it grew more slowly before says little of this slope
	}
	f.severity = Info
	switch {
	case seen < f.left || seen < forecastSeen.Seconds() && f.left > d.atOnce(&s.Runtime).Seconds():
	case f.left <= forecastCritical.Seconds() && (seen >= forecastSeen.Seconds() || f.left <= forecastAtOnce.Seconds()):
		f.severity = Critical
	case f.left <= forecastWarning.Seconds():
		f.severity = Warning // it may be a load that is about to end
	}
	return f
}

// atOnce is how little time must be left for an alarm that does not wait.
func (d *oomForecast) atOnce(r *Runtime) time.Duration {
	if d.offAndKept(r) {
		return forecastKept
	}
	return forecastAtOnce
}

// offAndKept reports whether the collector is off, and next to all is kept that was
// ever allocated.
func (d *oomForecast) offAndKept(r *Runtime) bool {
	percent, ok := r.GCPercent.Get()
	return ok && percent < 0 && d.heap.keepsAll()
}

// overMinutes is the forecast by the last four minutes: a warning at least, or none:
// within two minutes even at the least slope, and not before half of the way to the
// limit has been gone, for what has grown by less may stop.
func (d *oomForecast) overMinutes(must, room, soonest, margin float64) (f forecast) {
	g, stays := d.marked.growth, 1.0
	half := room
	if g.least == 0 {
		g = d.early.growth
		half += margin // so few points are not to end before the limit itself
	}
	if d.drifts {
		stays = driftStays
	}
	d.drifts = false
	if g.least < forecastSlope || must < min(g.low, forecastRelief*d.must.highest()) {
		return f
	}
	f = forecast{slope: g.least, left: max(room/g.least, soonest)}
	if f.left > forecastWarning.Seconds()/stays || g.gained < half*stays {
		return forecast{}
	}
	d.drifts, f.severity = true, Warning
	if f.left <= forecastCritical.Seconds() {
		f.severity = Critical
	}
	return f
}

// revise takes back what was thought to be garbage before a collection and was not.
// What is garbage stays garbage: of all that lay there at any time since the collection
// before, no more was than this one has found. It is so of every collection; but where
// those are many they tell by themselves, and a cache that fills would seem to have
// grown for longer.
func (d *oomForecast) revise(s *Sample, must uint64, before *survival) {
	r, most := &s.Runtime, float64(must)
	notLive, ok := minus(s.Cgroup.undroppable(), plus(r.Objects, r.Free)).Get()
	allocated, ok2 := r.Allocated.Get()
	mayLive := before.live + float64(allocated) - before.allocated
	if ok && ok2 {
		most = float64(notLive) + mayLive
	}
	d.most.add(s.Time, most)
	if live, ok := r.Live.Get(); ok && d.heap.cycles != before.cycles && (before.cycles == 0 || d.offAndKept(r)) {
		d.must.raise(d.cycled, &d.most, mayLive-float64(live))
		d.cycled = s.Time
	}
}

// mark notes what a collection has left. Stacks count as far as collections leave
// them, which is known at that moment only.
func (d *oomForecast) mark(s *Sample) {
	r := &s.Runtime
	if !r.Live.ok {
		return // from outside garbage would count
	}
	must, _, _ := unfreeable(s, r.Live)
	if r.StackScan.ok {
		must -= min(must, r.Stacks.v-r.stacksStay())
	}
	d.marked.add(s.Time, r.Cycles, float64(must))
	d.early.early = true
	d.early.add(s.Time, r.Cycles, float64(must))
}

// toFill is how many seconds the program needs, at the rate at which it takes
// memory, to fill what is free now if nothing is collected: 0 if that is unknown.
func (d *oomForecast) toFill(s *Sample, limit float64) float64 {
	r := &s.Runtime
	usage, ok := s.Cgroup.undroppable().Get()
	objects, ok2 := r.Objects.Get()
	free, ok3 := r.Free.Get()
	allocated, ok4 := r.Allocated.Get()
	if !ok || !ok2 || !ok3 || !ok4 {
		return 0
	}
	notHeap := float64(usage) - float64(objects) - float64(free)
	d.used.add(s.Time, float64(allocated)+notHeap)
	taken, in := d.used.grown()
	if taken <= 0 {
		return 0
	}
	return (limit - notHeap - float64(objects)) * in / taken
}

// unfreeable is what a collection and a reclaim together could not free, and by
// how much the peak exceeds it: with GOGC=100 and no memory limit that holds
// below the cgroup's, the heap is allowed twice what lives. Without the
// runtime's figures all that is not page cache counts, garbage included: until
// the heap has first been at its goal that looks like growth, and afterwards the
// trend takes it between the teeth.
func unfreeable(s *Sample, alive Bytes) (must uint64, needs float64, ok bool) {
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
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 {
		return must, 1, true
	}
	live, ok := alive.Get()
	if !ok { // before the first cycle
		if peak, ok := peakAtGoal(s); ok && peak <= limit {
			must -= min(must, objects+free) // it comes in time, and will tell
		}
		return must, 1, true
	}
	limited := goLimit < limit || s.Paced // a guard's is higher by what was never faulted in
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
	first   uint64 // counted when we began to look
	last    uint64
	at      time.Time // when last moved; zero if it did not
	started bool
	path    string
}

// oomKillNews is how long a kill counts as just now.
const oomKillNews = 10 * time.Minute

func (*oomKill) id() ID { return "oom-kill" }

func (d *oomKill) step(s *Sample) verdict {
	kills, ok := s.Cgroup.OOMKills.Get()
	if !ok {
		return blindly("the cgroup's oom_kill count is unknown")
	}
	switch {
	case !d.started || d.path != s.Cgroup.Path:
		*d = oomKill{first: kills, last: kills, started: true, path: s.Cgroup.Path}
	case kills < d.last: // it was made anew, and counts from zero
		d.first, d.last = 0, 0
	}
	if kills > d.last {
		d.last, d.at = kills, s.Time
	}
	if kills == 0 {
		return clearly()
	}
	v := verdict{state: found, severity: Info}
	if kills > d.first {
		if s.Time.Sub(d.at) < oomKillNews {
			v.severity = Critical
		}
		v.add("killed while watching", float64(kills-d.first), UnitCount)
	}
	v.add("killed in all", float64(kills), UnitCount)
	return v
}

func (*oomKill) say(v *verdict) string {
	if n := v.fact("killed while watching"); n > 0 {
		return fmt.Sprintf("The kernel has killed in this cgroup because its limit was reached: %.0f while we watched, %.0f in all.", n, v.fact("killed in all"))
	}
	return fmt.Sprintf("The kernel has killed in this cgroup before: %.0f in all.", v.fact("killed in all"))
}
