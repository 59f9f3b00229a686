// SPDX-License-Identifier: Apache-2.0

package sizeclass

import (
	"fmt"
	"sort"
	"time"
)

// Outstanding bytes go up and down with every cycle, and with load. What tells a
// leak from both is the floor: the lowest that was seen in a round. A class grows
// when its floor has risen by clearly more than its bytes swing within a round.
//
// Garbage is off the floor because a round lasts until a cycle was completed within
// it and some looks have followed. A cache that fills and drops, or a load that
// comes and goes, is off the floor of a round that is longer than its period: so
// floors are kept at three scales, of one round, of 8, and of 64.
const (
	scales    = 3
	scaleStep = 8

	// A round is at least that long, and has that many looks after a completed
	// cycle: time for the sweeper, and a chance to see a low.
	roundLeast = time.Second
	roundLooks = 4

	leastCycles = 2
	leastGain   = 1 << 20 // bytes: a span for each processor is nothing
	swingDecay  = 32      // the widest swing counts a 32nd less each round
)

// Growth is a class whose floor has risen.
type Growth struct {
	Class                        // at the last floor: what no cycle has freed
	Gained         uint64        // bytes, since the first floor of the rise
	Over           time.Duration // between the two
	Cycles         uint64        // completed between them
	BytesPerSecond float64       // bytes a second
}

// String describes the growth in one line.
func (g *Growth) String() string {
	return fmt.Sprintf("objects of %s: %d outstanding (%d B), %+d B in %v, %.0f B/s, through %d cycles",
		&g.Class, g.Objects, g.Bytes, g.Gained, g.Over.Round(time.Second), g.BytesPerSecond, g.Cycles)
}

// Tracker follows the classes of one process. The zero Tracker is ready. Its memory
// is bounded by the number of classes. It is not safe for concurrent use.
//
// A cache that fills for the first time grows as a leak does; a rise that has lasted
// for longer than the load's own ups and downs is one.
type Tracker struct {
	runs    [scales][]run // by class
	begun   time.Time     // the present round
	cycles  uint64        // completed when it began
	looks   int           // in it, since a cycle was completed
	rounds  uint64        // so far
	growing []Growth
}

// run is the rise of a class's floor at one scale.
type run struct {
	low  mark   // of the present round or rounds: the floor to be
	high uint64 // of them

	first, last, peak mark   // floors; no rise has begun while first has no time
	since             int    // rounds without a new peak
	swing             uint64 // widest high less low, decaying
}

// mark is what a class held at one look.
type mark struct {
	time           time.Time
	cycles         uint64
	objects, bytes uint64
}

// Step takes the next look, and returns the classes that grow, largest rate first.
// They are valid until the next Step. A look that failed, or one before the present
// round began (a clock was set back), changes nothing.
func (t *Tracker) Step(now time.Time, c *Classes) []Growth {
	if len(c.All) == 0 {
		return t.growing
	}
	if len(t.runs[0]) != len(c.All) || c.Cycles < t.cycles { // the first look, or another process
		*t = Tracker{begun: now, cycles: c.Cycles, growing: t.growing[:0]}
		for scale := range t.runs {
			t.runs[scale] = make([]run, len(c.All))
			for i := range c.All {
				t.runs[scale][i].begin(mark{now, c.Cycles, c.All[i].Objects, c.All[i].Bytes})
			}
		}
		return t.growing
	}
	if !now.After(t.begun) {
		return t.growing
	}
	for i := range c.All {
		look := mark{now, c.Cycles, c.All[i].Objects, c.All[i].Bytes}
		for scale := range t.runs {
			t.runs[scale][i].look(look)
		}
	}
	if c.Cycles == t.cycles {
		return t.growing
	}
	if t.looks++; t.looks < roundLooks || now.Sub(t.begun) < roundLeast {
		return t.growing
	}
	t.begun, t.cycles, t.looks = now, c.Cycles, 0
	t.rounds++
	for scale, period := 0, uint64(1); scale < scales && t.rounds%period == 0; scale, period = scale+1, period*scaleStep {
		for i := range c.All {
			t.runs[scale][i].end()
			t.runs[scale][i].begin(mark{now, c.Cycles, c.All[i].Objects, c.All[i].Bytes})
		}
	}
	t.report(c)
	return t.growing
}

// begin begins a round, and look is a look within it.
func (r *run) begin(m mark) { r.low, r.high = m, m.bytes }

func (r *run) look(m mark) {
	r.high = max(r.high, m.bytes)
	if m.bytes <= r.low.bytes {
		r.low = m
	}
}

// end ends a round: its low is a floor.
func (r *run) end() {
	floor := r.low
	r.swing = max(r.high-floor.bytes, r.swing-r.swing/swingDecay)
	r.last = floor
	if r.first.time.IsZero() || floor.bytes <= r.first.bytes {
		r.first, r.peak, r.since = floor, floor, 0
		return
	}
	if floor.bytes > r.peak.bytes {
		r.peak, r.since = floor, 0
		return
	}
	r.since++
	fell := r.peak.bytes - floor.bytes
	lost := fell > (r.peak.bytes-r.first.bytes)/2 && fell > r.swing/2
	still := r.since > 2 && floor.time.Sub(r.peak.time) > r.peak.time.Sub(r.first.time)/8
	if lost || still {
		r.first, r.peak, r.since = floor, floor, 0
	}
}

// gained is how much the floor has risen, if it has and still does.
func (r *run) gained() (uint64, bool) {
	if r.first.time.IsZero() || r.last.bytes <= r.first.bytes || r.last.cycles-r.first.cycles < leastCycles {
		return 0, false
	}
	gained := r.last.bytes - r.first.bytes
	if gained < leastGain || gained <= r.swing+r.swing/4 {
		return 0, false
	}
	return gained, r.low.bytes >= r.last.bytes-gained/2 // else it has just been lost
}

// report lists the classes that grow, at the longest scale at which they do: it has
// the least noise.
func (t *Tracker) report(c *Classes) {
	t.growing = t.growing[:0]
	for i := range c.All {
		for scale := scales - 1; scale >= 0; scale-- {
			r := &t.runs[scale][i]
			gained, ok := r.gained()
			over := r.last.time.Sub(r.first.time)
			if !ok || over <= 0 {
				continue
			}
			t.growing = append(t.growing, Growth{
				Class:          Class{c.All[i].Min, c.All[i].Size, r.last.objects, r.last.bytes},
				Gained:         gained,
				Over:           over,
				Cycles:         r.last.cycles - r.first.cycles,
				BytesPerSecond: float64(gained) / over.Seconds(),
			})
			break
		}
	}
	sort.Slice(t.growing, func(i, j int) bool { return t.growing[i].BytesPerSecond > t.growing[j].BytesPerSecond })
}
