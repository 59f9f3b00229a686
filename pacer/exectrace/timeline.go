// SPDX-License-Identifier: Apache-2.0

package exectrace

import (
	"cmp"
	"slices"
	"time"
)

// Limits on what a Report lists. Totals are exact whatever the limits.
const (
	maxSegments = 4096
	maxPoints   = 4096
	maxCycles   = 8192
	maxPauses   = 2048
	maxNames    = 256 // distinct stop reasons and unknown names
)

// timeline records which phase held when. The open segment runs from
// open.Start to now.
type timeline struct {
	open    Segment
	segs    []Segment
	totals  PhaseTimes
	changes [NumPhases][NumPhases]uint64
}

// to changes the phase at time now. Heap and goal are those of this moment.
func (l *timeline) to(now time.Duration, p Phase, heap, goal Opt[uint64]) {
	if p != l.open.Phase {
		l.change(now, p, heap, goal)
	}
}

func (l *timeline) change(now time.Duration, p Phase, heap, goal Opt[uint64]) {
	l.changes[l.open.Phase][p]++
	l.close(now)
	l.open = Segment{Start: now, Phase: p, Heap: heap, Goal: goal}
}

// close ends the open segment. One of no length leaves no trace but its
// transition.
func (l *timeline) close(now time.Duration) {
	p, d := l.open.Phase, now-l.open.Start
	if d <= 0 {
		return
	}
	l.totals[p] += d
	if n := len(l.segs); n > 0 && l.segs[n-1].Phase == p && l.segs[n-1].Merged == 1 {
		// A segment of no length lay between.
		l.segs[n-1].End = now
		l.segs[n-1].Time[p] += d
		return
	}
	l.segs = append(l.segs, l.open)
	last := &l.segs[len(l.segs)-1]
	last.End, last.Merged, last.Time[p] = now, 1, d
	if len(l.segs) >= maxSegments {
		l.coalesce(now)
	}
}

// coalesce merges neighbours that together are short, so that at most half of
// maxSegments are left: any two neighbours then last longer than the grain.
func (l *timeline) coalesce(now time.Duration) {
	grain := 4*now/maxSegments + 1
	out := l.segs[:1]
	for _, s := range l.segs[1:] {
		last := &out[len(out)-1]
		if s.End-last.Start > grain {
			out = append(out, s)
			continue
		}
		last.End = s.End
		last.Merged += s.Merged
		for p, d := range s.Time {
			last.Time[p] += d
		}
		for p := range last.Time {
			if last.Time[p] > last.Time[last.Phase] {
				last.Phase = Phase(p)
			}
		}
	}
	l.segs = out
}

// relabel says that p held ever since the trace began: the runtime reports
// what was under way only some time after the start.
func (l *timeline) relabel(p Phase) {
	first := l.open
	if len(l.segs) > 0 {
		first = l.segs[0]
	}
	*l = timeline{open: Segment{Phase: p, Heap: first.Heap, Goal: first.Goal}, segs: l.segs[:0]}
}

func (l *timeline) transitions() []Transition {
	ts := []Transition{}
	for from := range l.changes {
		for to, n := range l.changes[from] {
			if n > 0 {
				ts = append(ts, Transition{Phase(from), Phase(to), n})
			}
		}
	}
	return ts
}

// curve records heap and goal in steps that double in width whenever the
// trace outgrows maxPoints of them.
type curve struct {
	width  time.Duration
	points []Point
}

const firstWidth = time.Duration(1 << 18) // a quarter of a millisecond

// at returns the point for now, making it if need be.
func (c *curve) at(now time.Duration) *Point {
	if n := len(c.points); n > 0 && now < c.points[n-1].At+c.width {
		return &c.points[n-1] // time does not run backwards
	}
	if c.width == 0 {
		c.width = firstWidth
	}
	for now/c.width >= maxPoints {
		c.halve()
	}
	start := now - now%c.width
	if n := len(c.points); n > 0 && c.points[n-1].At == start {
		return &c.points[n-1]
	}
	c.points = append(c.points, Point{At: start})
	return &c.points[len(c.points)-1]
}

func (c *curve) halve() {
	c.width *= 2
	out := c.points[:0]
	for _, p := range c.points {
		p.At -= p.At % c.width
		if n := len(out); n > 0 && out[n-1].At == p.At {
			out[n-1].merge(p)
		} else {
			out = append(out, p)
		}
	}
	c.points = out
}

func (c *curve) heap(now time.Duration, live uint64) {
	p, v := c.at(now), Some(live)
	if !p.Last.ok {
		p.Min, p.Max = v, v
	} else if live < p.Min.v {
		p.Min = v
	} else if live > p.Max.v {
		p.Max = v
	}
	p.Last = v
}

func (c *curve) goal(now time.Duration, goal Opt[uint64]) {
	c.at(now).Goal = goal
}

// merge adds a later point.
func (p *Point) merge(q Point) {
	if q.Last.ok {
		if !p.Min.ok || q.Min.v < p.Min.v {
			p.Min = q.Min
		}
		if !p.Max.ok || q.Max.v > p.Max.v {
			p.Max = q.Max
		}
		p.Last = q.Last
	}
	if q.Goal.ok {
		p.Goal = q.Goal
	}
}

// pauses keeps every stop in the sums and the longest in the list.
type pauses struct {
	reasons map[string]*Reason
	longest []Pause
	dropped uint64
}

// reason returns the sum for a name; past maxNames they share one.
func (p *pauses) reason(name string) *Reason {
	if r := p.reasons[name]; r != nil {
		return r
	}
	if len(p.reasons) >= maxNames {
		if r := p.reasons[otherNames]; r != nil {
			return r
		}
		name = otherNames
	}
	if p.reasons == nil {
		p.reasons = make(map[string]*Reason)
	}
	r := &Reason{Name: name}
	p.reasons[name] = r
	return r
}

const otherNames = "(further names)"

func (p *pauses) add(stop Pause) {
	r := p.reason(stop.Reason)
	r.Count++
	r.Total += stop.Length
	r.Max = max(r.Max, stop.Length)
	stop.Reason = r.Name
	p.longest = append(p.longest, stop)
	if len(p.longest) >= 2*maxPauses {
		p.trim()
	}
}

// trim drops the shortest beyond maxPauses.
func (p *pauses) trim() {
	if len(p.longest) <= maxPauses {
		return
	}
	slices.SortFunc(p.longest, func(a, b Pause) int { return cmp.Compare(b.Length, a.Length) })
	p.dropped += uint64(len(p.longest) - maxPauses)
	p.longest = p.longest[:maxPauses]
}

// lists returns the kept stops by time and the reasons by total.
func (p *pauses) lists() ([]Pause, []Reason) {
	p.trim()
	slices.SortFunc(p.longest, func(a, b Pause) int { return cmp.Compare(a.Start, b.Start) })
	rs := make([]Reason, 0, len(p.reasons))
	for _, r := range p.reasons {
		rs = append(rs, *r)
	}
	slices.SortFunc(rs, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.Name, b.Name))
	})
	return append([]Pause{}, p.longest...), rs
}
