// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"
	"time"
)

// rungs are the stages of a way to the limit. One is reached by what is held, as a
// share of the limit, or by the time that is left once a quarter is held: a fast
// ramp-up has no time for levels. The first gives the baseline with which
// everything later is compared.
var rungs = [...]struct {
	share float64
	left  time.Duration
}{
	{0.50, 5 * time.Minute},
	{0.70, time.Minute},
	{0.85, 20 * time.Second},
	{0.95, 5 * time.Second},
}

const (
	leftFrom  = 0.25             // share from which the time that is left counts
	between   = time.Second      // between two captures of one ramp-up
	relief    = 30 * time.Second // so long two rungs lower, and a ramp-up is over
	rest      = 5 * time.Minute  // from the start of a ramp-up to that of the next
	nearRest  = time.Minute      // between captures meanwhile, at the last rung only
	renew     = 10 * time.Minute // between captures while it stays on the upper two rungs
	askEvery  = 30 * time.Second // between two captures that findings ask for
	askMost   = 3                // of these in one ramp-up
	leastRoom = 1 << 20          // bytes; with less nothing at all is written
)

// Pressure is what a [Planner] decides on. Sizes are bytes.
type Pressure struct {
	Time  time.Time
	Limit uint64 // 0 is none
	Usage uint64 // charged to the cgroup and not droppable
	// Held is what no collection would free, Go's and not: garbage may fill the
	// room without harm. Who does not know it sets Usage.
	Held uint64
	Left time.Duration // until the limit at the present growth; 0 when it does not grow
	Ask  string        // what asks for evidence now, such as a finding's id; "" is nothing
	Cost Cost          // of [Profiles.Cost]
}

// Plan is what to capture. The zero Plan is nothing.
type Plan struct {
	Why        string    // "" is not to capture
	Series     time.Time // when the ramp-up began: names its files
	Number     int       // of the capture within the ramp-up, from 1
	Score      int       // percent of the limit that are held, 0 to 99
	Heap       bool      // take a heap profile
	Goroutines bool      // take a goroutine profile
	LeftOut    string    // why one is not taken; "" if both are
}

// Planner decides when evidence is worth taking on the way to a limit: as the
// level rises, as the time that is left shrinks, and when something asks. It
// takes a few captures in a ramp-up and one at times while it stays near the
// limit, and none that would not fit into the room that is left or not be
// finished in time. The zero Planner is at rest. It is one goroutine's.
type Planner struct {
	series time.Time // when the ramp-up began; zero before the first
	over   bool      // it has ended
	number int       // captures in it
	rung   int       // highest that was captured, 1 to 4
	asks   int
	last   time.Time // capture
	asked  time.Time // last capture that was asked for
	below  time.Time // since when it is two rungs lower
}

// Step decides on one instant. It reads no clock; times may stand still or jump.
func (p *Planner) Step(in *Pressure) Plan {
	now, rung := in.Time, rungOf(in)
	if now.Before(p.last) { // what it remembers is of another clock
		*p = Planner{last: now}
	}
	p.settle(now, rung)
	why := p.why(in, rung)
	if why == "" {
		return Plan{}
	}
	plan := Plan{Why: why, Score: score(in)}
	if !plan.fit(in) {
		return Plan{}
	}
	if p.series.IsZero() || p.over && now.Sub(p.series) >= rest {
		*p = Planner{series: now, asked: p.asked}
	}
	p.number++
	p.last = now
	p.rung = max(p.rung, rung)
	if in.Ask != "" {
		p.asks++
		p.asked = now
	}
	plan.Series, plan.Number = p.series, p.number
	return plan
}

// rungOf returns the rung that is reached, 0 to 4.
func rungOf(in *Pressure) (rung int) {
	if in.Limit == 0 {
		return 0
	}
	share := float64(in.Held) / float64(in.Limit)
	for i, r := range rungs {
		if share >= r.share || share >= leftFrom && in.Left > 0 && in.Left <= r.left {
			rung = i + 1
		}
	}
	return rung
}

// settle ends a ramp-up whose pressure is gone.
func (p *Planner) settle(now time.Time, rung int) {
	switch {
	case p.series.IsZero() || p.over:
	case rung > 0 && rung > p.rung-2:
		p.below = time.Time{}
	case p.below.IsZero() || now.Before(p.below):
		p.below = now
	case now.Sub(p.below) >= relief:
		p.over = true
	}
}

// why returns the reason to capture now, or nothing.
func (p *Planner) why(in *Pressure, rung int) string {
	since := in.Time.Sub(p.last)
	fresh := p.series.IsZero() || p.over && in.Time.Sub(p.series) >= rest
	switch {
	case !p.last.IsZero() && since < between:
	case in.Ask != "" && (p.asked.IsZero() || in.Time.Sub(p.asked) >= askEvery) && (fresh || p.asks < askMost):
		return in.Ask
	case rung == 0:
	case fresh, !p.over && rung > p.rung:
		return reason(in)
	case p.over && rung == len(rungs) && since >= nearRest: // the next ramp-up, before its time
		return reason(in)
	case rung >= len(rungs)-1 && since >= renew:
		return reason(in)
	}
	return ""
}

func reason(in *Pressure) string {
	why := fmt.Sprintf("%d %% of the limit are held", score(in))
	if in.Left > 0 {
		why += fmt.Sprintf(", %v left", in.Left.Round(100*time.Millisecond))
	}
	return why
}

// score is how near to the limit it is, in percent.
func score(in *Pressure) int {
	if in.Limit == 0 {
		return 0
	}
	return int(min(100*(float64(in.Held)/float64(in.Limit)), 99))
}

// fit takes into a plan what half of the room has place for. The other half is
// for what the service needs meanwhile.
func (plan *Plan) fit(in *Pressure) bool {
	room := ^uint64(0)
	if in.Limit != 0 {
		room = in.Limit - min(in.Usage, in.Limit)
	}
	switch {
	case room < leastRoom:
		return false
	case in.Left > 0 && in.Left < 2*in.Cost.HeapTime:
		plan.LeftOut = fmt.Sprintf("a heap profile takes %v, %v are left", in.Cost.HeapTime, in.Left)
		return true
	case in.Cost.Heap > room/2:
		plan.LeftOut = fmt.Sprintf("a heap profile takes %d bytes, %d are left", in.Cost.Heap, room)
		return true
	}
	plan.Heap = true
	switch both := in.Cost.Heap + in.Cost.Goroutines; {
	case in.Left > 0 && in.Left < 2*(in.Cost.HeapTime+in.Cost.GoroutinesTime):
		plan.LeftOut = fmt.Sprintf("a goroutine profile takes %v, %v are left", in.Cost.GoroutinesTime, in.Left)
	case both > room/2 || both < in.Cost.Heap:
		plan.LeftOut = fmt.Sprintf("a goroutine profile takes %d bytes, %d are left", in.Cost.Goroutines, room)
	default:
		plan.Goroutines = true
	}
	return true
}
