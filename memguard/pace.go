// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
	"time"
)

const (
	tickRest    = time.Second           // nothing moves, or the limit is far or unknown
	tickFastest = 10 * time.Millisecond // about to hit it
	ticksAhead  = 20                    // looks that should still fit before the limit is reached
	// A burst does not announce itself: even at rest count on the whole limit
	// being filled within this time.
	burst = time.Minute
	// While a service starts nobody knows how it grows.
	starting     = 10 * time.Second
	tickStarting = 200 * time.Millisecond
	// The fastest growth seen counts half after this time.
	rateHalf = 5 * time.Second
)

// pace chooses the time to the next look from how long the present growth needs
// to reach the limit.
type pace struct {
	born time.Time // of the first sample
	at   time.Time
	used float64
	rate float64 // bytes a second, the fastest seen, decaying
}

// next takes a sample and returns the time until the next one should be taken.
func (p *pace) next(s *Sample) time.Duration {
	limit, isBounded := bounded(s.Cgroup.Limit)
	n, ok := s.Cgroup.undroppable().Get()
	if !isBounded || !ok {
		return tickRest
	}
	used := float64(n)
	if dt := s.Time.Sub(p.at); dt > 0 && !p.at.IsZero() {
		now := (used - p.used) / dt.Seconds()
		p.rate = max(now, p.rate*math.Exp2(-dt.Seconds()/rateHalf.Seconds()))
	}
	p.at, p.used = s.Time, used
	if p.born.IsZero() {
		p.born = s.Time
	}
	room := max(float64(limit)-used, 0)
	next := min(room/max(p.rate, float64(limit)/burst.Seconds())/ticksAhead, tickRest.Seconds())
	if s.Paced {
		// A guard that acts must be there before. Being woken is what costs at rest
		// (half a millisecond of CPU), and far from the limit the settings of the last
		// tick hold: it looks once a second with an empty cgroup, four times with half
		// of the limit in use, and every 60 ms with three quarters; at its start more often.
		part := room / max(float64(limit), 1)
		next = min(next, tickRest.Seconds()*part*part)
		if s.Time.Sub(p.born) < starting {
			next = min(next, tickStarting.Seconds()*part)
		}
	}
	return max(time.Duration(next*float64(time.Second)), tickFastest)
}
