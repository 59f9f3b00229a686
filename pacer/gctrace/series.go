// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"slices"
	"time"
)

// maxPoints bounds a series. It is even.
const maxPoints = 256

// Point is the heap over one cycle, or over several that follow one another
// when a stream is long.
type Point struct {
	From   float64 `json:"from_seconds"` // start of the first cycle, since program start
	To     float64 `json:"to_seconds"`   // start of the last cycle
	Cycles int     `json:"cycles"`

	Start uint64      `json:"heap_start_bytes"` // largest heap at a cycle's start
	End   uint64      `json:"heap_end_bytes"`   // largest heap at mark end
	Live  uint64      `json:"heap_live_bytes"`  // live heap of the last cycle
	Floor uint64      `json:"heap_floor_bytes"` // smallest live heap
	Goal  Opt[uint64] `json:"heap_goal_bytes"`  // largest goal, null if all were unbounded
}

func (p *Point) merge(q Point) {
	p.To = q.To
	p.Cycles += q.Cycles
	p.Start = max(p.Start, q.Start)
	p.End = max(p.End, q.End)
	p.Live = q.Live
	p.Floor = min(p.Floor, q.Floor)
	if goal, ok := q.Goal.Get(); ok {
		p.Goal = Some(max(goal, p.Goal.v))
	}
}

// series keeps at most maxPoints points of a stream of any length: when it is
// full it joins neighbours, and from then on takes twice as many cycles into
// one point.
type series struct {
	points []Point
	stride int // cycles in a full point
}

func (s *series) add(c *Cycle) {
	p := Point{
		From: c.At.Seconds(), To: c.At.Seconds(), Cycles: 1,
		Start: c.HeapStart, End: c.HeapEnd, Live: c.HeapLive, Floor: c.HeapLive,
	}
	if !c.GoalUnbounded() {
		p.Goal = Some(c.HeapGoal)
	}
	if n := len(s.points); n > 0 && s.points[n-1].Cycles < s.stride {
		s.points[n-1].merge(p)
		return
	}
	if len(s.points) == maxPoints {
		for i := range maxPoints / 2 {
			s.points[i] = s.points[2*i]
			s.points[i].merge(s.points[2*i+1])
		}
		s.points = s.points[:maxPoints/2]
		s.stride = max(s.stride, 1) * 2
	}
	s.points = append(s.points, p)
}

func (s *series) reset() {
	s.points, s.stride = s.points[:0], 0
}

// slope is the Theil-Sen estimate of how the live heap grows, in bytes per
// second: the median of the slopes between all pairs of points. A spike, or
// a third of the points being wrong, does not move it much. rising is the
// share of pairs that rise. It needs two points at different times.
func (s *series) slope() (perSecond, rising float64, ok bool) {
	slopes := make([]float64, 0, len(s.points)*(len(s.points)-1)/2)
	for i, p := range s.points {
		for _, q := range s.points[i+1:] {
			if dt := (q.From + q.To - p.From - p.To) / 2; dt > 0 {
				slope := (float64(q.Floor) - float64(p.Floor)) / dt
				slopes = append(slopes, slope)
				if slope > 0 {
					rising++
				}
			}
		}
	}
	if len(slopes) == 0 {
		return 0, 0, false
	}
	slices.Sort(slopes)
	return slopes[len(slopes)/2], rising / float64(len(slopes)), true
}

// window counts events in the second that ends with the newest one. The
// runtime prints milliseconds, so a counter for each is exact.
type window struct {
	perMS [1000]uint32
	last  int64
	sum   int
	most  int
	at    time.Duration // the end of the second that had the most
}

func (w *window) add(at time.Duration) {
	ms := at.Milliseconds()
	for gone := w.last + 1; gone <= ms && gone <= w.last+1000; gone++ {
		w.sum -= int(w.perMS[gone%1000])
		w.perMS[gone%1000] = 0
	}
	w.last = ms
	w.perMS[ms%1000]++
	if w.sum++; w.sum > w.most {
		w.most, w.at = w.sum, at
	}
}

// restart forgets the running second and keeps the record.
func (w *window) restart() {
	*w = window{most: w.most, at: w.at}
}
