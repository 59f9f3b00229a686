// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
	"time"
)

// A trend says how fast a figure grows, and is not fooled by a sawtooth.
//
// It keeps 60 points, of the last minute once it is that old, and answers with
// the lower quartile of the slopes of all pairs of them (the Theil-Sen
// estimator, which takes their median, made pessimistic about growth). Of a
// cache that fills and empties, or a heap between two collections, no more than
// three quarters of the pairs rise as soon as two whole teeth are in the window,
// so the lower quartile is at or below zero; that of a leak under it is not. One
// step up is no growth either: at most 60 % of the pairs cross it. Least squares
// would follow the last tooth and the step.
//
// Growth that begins after a quiet minute would need half a minute to show. So
// the latest points are judged apart as well, as soon as six or more of them are
// all above everything before: no tooth of a cache that has been full before is.
type trend struct {
	origin time.Time            // at counts from here
	at     [trendPoints]float64 // seconds
	bytes  [trendPoints]float64
	n      int  // points held
	next   int  // slot of the next one
	fresh  bool // what follows is of the points held
	slope  float64
	over   float64 // seconds that slope is measured over
	surged bool    // they are the latest only
}

const (
	trendPoints  = 60
	trendSpacing = 0.5 // seconds, until there are 60 points
	trendLater   = 1.0 // seconds, from then on
	trendGap     = 30  // seconds without a point: what was before is no evidence any more
	trendLeast   = 6   // points before it says anything: 2.5 s
)

// add offers a point. It is taken when a spacing has passed since the last; a
// clock that went back, or a gap, starts anew.
func (t *trend) add(at time.Time, bytes float64) {
	now := at.Sub(t.origin).Seconds()
	if t.n > 0 {
		since := now - t.at[t.slot(t.n-1)]
		// A tick that comes a little early is on time: timers are not exact.
		if since >= 0 && since < 0.98*t.spacing() {
			return
		}
		if since < 0 || since > trendGap {
			t.n = 0
		}
	}
	if t.n == 0 {
		t.origin, now = at, 0
	}
	t.at[t.next], t.bytes[t.next] = now, bytes
	t.next = (t.next + 1) % trendPoints
	t.n, t.fresh = min(t.n+1, trendPoints), false
}

// raise lifts the points after a time to what most has there, less so many bytes. Both
// were offered points at the same times.
func (t *trend) raise(after time.Time, most *trend, less float64) {
	from := after.Sub(t.origin).Seconds() // far back where there was no collection
	for i := t.n - 1; i >= 0 && t.at[t.slot(i)] > from; i-- {
		k := t.slot(i)
		t.bytes[k] = max(t.bytes[k], most.bytes[k]-less)
	}
	t.fresh = false
}

func (t *trend) spacing() float64 {
	if t.n < trendPoints {
		return trendSpacing
	}
	return trendLater
}

// slot is where the i-th point is, the oldest being the 0th.
func (t *trend) slot(i int) int { return (t.next + trendPoints - t.n + i) % trendPoints }

// perSecond is the growth in bytes a second and how many seconds it was seen,
// false until there are enough points.
func (t *trend) perSecond() (slope, over float64, ok bool) {
	if t.n < trendLeast {
		return 0, 0, false
	}
	if !t.fresh {
		from, last := 0, t.at[t.slot(t.n-1)]
		t.slope, t.surged = t.lowerQuartile(0), false
		if k := t.surge(); k > 0 {
			if s := t.lowerQuartile(k); s > t.slope {
				t.slope, t.surged, from = s, true, k
			}
		}
		t.over, t.fresh = last-t.at[t.slot(from)], true
	}
	return t.slope, t.over, true
}

// surge is the first of the latest points that are all above everything before,
// 0 if there are not enough of them. Of several beginnings it takes the earliest
// from where it was about as steep as from the steepest.
func (t *trend) surge() (first int) {
	var steep [trendPoints]float64 // from each beginning to the last point, 0 if it is none
	last := t.slot(t.n - 1)
	steepest, low := 0.0, t.bytes[last]
	for i := t.n - 1; i >= 0; i-- {
		k := t.slot(i)
		low = min(low, t.bytes[k])
		if t.n-i >= trendLeast {
			steep[i] = (t.bytes[last] - t.bytes[k]) / (t.at[last] - t.at[k])
		}
		if i > 0 && low <= t.highestOf(i) {
			steep[i] = 0
		}
		steepest = max(steepest, steep[i])
	}
	if steepest == 0 {
		return 0
	}
	for steep[first] < 0.8*steepest {
		first++
	}
	return first
}

// grown is by how much the figure has grown since the oldest point, and in how
// many seconds.
func (t *trend) grown() (bytes, seconds float64) {
	if t.n == 0 {
		return 0, 0
	}
	first, last := t.slot(0), t.slot(t.n-1)
	return t.bytes[last] - t.bytes[first], t.at[last] - t.at[first]
}

// highest is the largest of the points held.
func (t *trend) highest() float64 { return t.highestOf(t.n) }

// highestOf is the largest of the first n points.
func (t *trend) highestOf(n int) float64 {
	high := math.Inf(-1)
	for i := range n {
		high = max(high, t.bytes[t.slot(i)])
	}
	return high
}

// lowerQuartile is that of the slopes of all pairs of points from a point on.
func (t *trend) lowerQuartile(from int) float64 {
	var at, bytes [trendPoints]float64 // in order of time
	n := t.n - from
	for i := range n {
		at[i], bytes[i] = t.at[t.slot(from+i)], t.bytes[t.slot(from+i)]
	}
	var slopes [trendPoints * (trendPoints - 1) / 2]float64
	s := slopes[:0]
	for i := range n {
		for k := range i {
			s = append(s, (bytes[i]-bytes[k])/(at[i]-at[k])) // no two points are at one time
		}
	}
	return nth(s, len(s)/4)
}

// nth returns what would be s[n] if s were sorted, and leaves s in disorder
// (Hoare's FIND). A tick cannot afford to sort 1770 slopes.
func nth(s []float64, n int) float64 {
	for lo, hi := 0, len(s)-1; lo < hi; {
		pivot := s[lo+(hi-lo)/2]
		i, k := lo, hi
		for i <= k {
			for s[i] < pivot {
				i++
			}
			for s[k] > pivot {
				k--
			}
			if i <= k {
				s[i], s[k] = s[k], s[i]
				i, k = i+1, k-1
			}
		}
		switch {
		case n <= k:
			hi = k
		case n >= i:
			lo = i
		default:
			return s[n]
		}
	}
	return s[n]
}
