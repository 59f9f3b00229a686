// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
	"time"
)

// A drift says how fast a figure grows over minutes, where a trend is blind: of a
// cache with teeth of 25 MiB and a collection every ten seconds, which meets the
// teeth at any height, a minute has six figures that are true, and the lower
// quartile of their slopes is near zero with a leak of 1 MiB/s under them.
//
// It takes a point for each collection, the mean of several that follow closely,
// and fits a line to those of the last four minutes (least squares). What it
// believes is the least that the slope can be by the scatter around the line, and
// only of growth that began a minute ago or earlier and goes on:
//
//   - through eight points and sixty seconds, for by two or three collections at
//     random heights of a tooth anything can be said;
//   - in each half no more slowly than that, within its scatter: what levels off is no
//     leak, nor is one step up;
//   - with the highest point in the newest third, and all of that third above the
//     middle of what was before.
//
// Of all beginnings it takes the one since which most was gained for certain.
//
// A leak may kill within that minute. So an early one believes five points and
// twenty seconds, but of growth that began in its first minute only, where few
// beginnings are tried and chance has little to choose from; and only what is a new
// high of all that was seen, for the tooth of a cache that has been full before is
// none. Of what was gained it counts only what is certain: through so few points the
// line that fits best says too much, of a step halfway one and a half times its height.
type drift struct {
	early  bool
	origin time.Time
	at     [driftPoints]float64 // seconds since origin, in order
	bytes  [driftPoints]float64
	n      int
	cycles Count

	begun      float64 // the point to come
	sum, sumAt float64
	looks      int

	growth drifting
}

// drifting is growth that a drift believes in; the zero drifting is none.
type drifting struct {
	least  float64 // bytes a second that it is at least
	over   float64 // seconds that it has lasted
	gained float64 // bytes in that time: what fits best, or if it is early what is certain
	low    float64 // lowest point of its newest third
}

const (
	driftPoints  = 60
	driftSpacing = 4.0   // seconds between points, if there are collections
	driftIdle    = 15.0  // if there are none: what is not the heap's may grow
	driftWindow  = 240.0 // seconds
	driftLeast   = 8     // points ...
	driftOver    = 60.0  // ... and seconds before it says anything
	earlyLeast   = 5     // the same of an early one
	earlyOver    = 20.0
)

// add takes a look. It counts after a collection, or when there was none for long.
func (d *drift) add(at time.Time, cycles Count, bytes float64) {
	now := at.Sub(d.origin).Seconds()
	if d.origin.IsZero() || now < d.begun || now-d.begun > driftWindow {
		*d = drift{early: d.early, origin: at} // the first, the clock went back, or what was before is no evidence
		now = 0
	}
	if d.early && now > driftOver && d.growth.least == 0 {
		return // it has had its minute
	}
	since := now - d.begun
	if cycles.ok && cycles == d.cycles && since < driftIdle {
		return
	}
	d.cycles = cycles
	if d.early && d.looks > 0 && since >= 1.5*driftSpacing {
		d.point(now) // those that wait do not follow closely, and points are dear
	}
	d.sum, d.sumAt, d.looks = d.sum+bytes, d.sumAt+now, d.looks+1
	if since < driftSpacing {
		return
	}
	d.point(now)
	d.fit()
}

// point makes one of the looks that wait.
func (d *drift) point(now float64) {
	drop := 0
	for drop < d.n && (d.n-drop == driftPoints || now-d.at[drop] > driftWindow) {
		drop++
	}
	copy(d.at[:], d.at[drop:d.n])
	d.n = copy(d.bytes[:], d.bytes[drop:d.n])
	d.at[d.n], d.bytes[d.n] = d.sumAt/float64(d.looks), d.sum/float64(d.looks)
	d.n++
	d.sum, d.sumAt, d.looks, d.begun = 0, 0, 0, now
}

// fit looks for the beginning, going back from the last point.
func (d *drift) fit() {
	d.growth = drifting{}
	points, seconds := driftLeast, driftOver
	if d.early {
		points, seconds = earlyLeast, earlyOver
	}
	var sums [driftPoints + 1]moments // of so many of the latest points
	last := d.n - 1
	for m := 1; m <= d.n; m++ {
		i := d.n - m
		sums[m] = sums[m-1].with(d.at[i]-d.at[last], d.bytes[i]-d.bytes[last])
		over := d.at[last] - d.at[i]
		if m < points || over < seconds {
			continue
		}
		// Of an odd number the one in the middle belongs to neither half: it may
		// be the mean of what was before a step and what is after.
		whole, later, earlier := sums[m].line(), sums[m/2].line(), sums[m].less(sums[m-m/2]).line()
		// Student's t for 97.5 %, within a tenth: 2.4 of six degrees of freedom, 2 of many.
		t := 2 * (1 + 2/float64(m-2))
		least := min(whole.slope-t*whole.deviation, later.slope+later.deviation, earlier.slope+earlier.deviation)
		if least*over <= d.growth.least*d.growth.over {
			continue
		}
		if low, ok := d.newHigh(i); ok {
			gained := whole.slope * over
			if d.early {
				gained = least * over
			}
			d.growth = drifting{least, over, gained, low}
		}
	}
}

// newHigh reports whether of the points from one on the newest third is above the
// others, or if it is early all others, and how low it is.
func (d *drift) newHigh(from int) (low float64, ok bool) {
	var before [driftPoints]float64
	split := d.n - (d.n-from)/3
	high, highBefore := math.Inf(-1), math.Inf(-1)
	low = math.Inf(1)
	for i := from; i < d.n; i++ {
		if i < split {
			highBefore = max(highBefore, d.bytes[i])
			before[i-from] = d.bytes[i]
			continue
		}
		low, high = min(low, d.bytes[i]), max(high, d.bytes[i])
	}
	if d.early {
		for _, b := range d.bytes[:from] {
			highBefore = max(highBefore, b)
		}
	}
	n := split - from
	return low, high > highBefore && low > nth(before[:n], n/2)
}

// line is a slope and its standard deviation.
type line struct{ slope, deviation float64 }

// moments are sums over points.
type moments struct{ n, x, y, xx, xy, yy float64 }

func (s moments) with(x, y float64) moments {
	return moments{s.n + 1, s.x + x, s.y + y, s.xx + x*x, s.xy + x*y, s.yy + y*y}
}

func (s moments) less(t moments) moments {
	return moments{s.n - t.n, s.x - t.x, s.y - t.y, s.xx - t.xx, s.xy - t.xy, s.yy - t.yy}
}

// line is the one of least squares, of two points and more at different times.
func (s moments) line() line {
	xx, xy, yy := s.xx-s.x*s.x/s.n, s.xy-s.x*s.y/s.n, s.yy-s.y*s.y/s.n
	slope := xy / xx
	return line{slope, math.Sqrt(max(yy-slope*xy, 0) / max(s.n-2, 1) / xx)}
}
