// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"slices"
	"time"
)

// A trend says how fast a figure grows, and is not fooled by a sawtooth.
//
// It takes a point every half second for 30 s and answers with the lower
// quartile of the slopes of all pairs of points (the Theil-Sen estimator, which
// takes their median, made pessimistic about growth): a cache that fills and
// empties, or a heap between two collections, has as many falling pairs as
// rising ones, so its lower quartile is at or below zero; a leak under it is
// not. Least squares would follow the last tooth.
type trend struct {
	at     [trendPoints]time.Time
	bytes  [trendPoints]float64
	n      int // points held
	next   int // slot of the next one
	slopes [trendPoints * (trendPoints - 1) / 2]float64
	slope  float64
	known  bool
}

const (
	trendPoints  = 60
	trendSpacing = 500 * time.Millisecond
	trendLeast   = 6 // points before it says anything: 2.5 s
)

// add offers a point. It is taken when a spacing has passed since the last; a
// clock that went back, or a gap of more than the whole window, starts anew.
func (t *trend) add(at time.Time, bytes float64) {
	if t.n > 0 {
		since := at.Sub(t.at[(t.next+trendPoints-1)%trendPoints])
		// A tick that comes a little early is on time: timers are not exact.
		if since >= 0 && since < trendSpacing-trendSpacing/10 {
			return
		}
		if since < 0 || since > trendPoints*trendSpacing {
			t.n, t.next = 0, 0
		}
	}
	t.at[t.next], t.bytes[t.next] = at, bytes
	t.next = (t.next + 1) % trendPoints
	t.n = min(t.n+1, trendPoints)
	t.known = t.n >= trendLeast
	if t.known {
		t.slope = t.lowerQuartile()
	}
}

// perSecond is the growth in bytes a second, false until there are enough points.
func (t *trend) perSecond() (float64, bool) { return t.slope, t.known }

// oldest is the first point still held.
func (t *trend) oldest() (time.Time, float64) {
	i := (t.next + trendPoints - t.n) % trendPoints
	return t.at[i], t.bytes[i]
}

func (t *trend) lowerQuartile() float64 {
	s := t.slopes[:0]
	for i := range t.n {
		for k := range i {
			// Slots are not in order of time once the ring has turned; a slope
			// is the same from either end.
			if dt := t.at[i].Sub(t.at[k]).Seconds(); dt != 0 {
				s = append(s, (t.bytes[i]-t.bytes[k])/dt)
			}
		}
	}
	if len(s) == 0 {
		return 0
	}
	slices.Sort(s)
	return s[len(s)/4]
}
