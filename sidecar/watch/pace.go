// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"math"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

// As the guard's own (memguard/pace.go): so many looks should fit before the limit
// is reached at the fastest growth of late, and at rest the whole of it is taken
// to fill within a minute. From outside a look costs more, so without such growth
// looks take at most a hundredth of a core.
const (
	lookFastest = 10 * time.Millisecond
	looksAhead  = 20
	burstWithin = time.Minute
	rateHalf    = 5 * time.Second
	lookShare   = 100
	rushWithin  = 10 * time.Second // growth that is real reaches the limit
)

// pace chooses the time to the next look.
type pace struct {
	at   time.Time
	used float64
	rate float64 // bytes a second, the fastest seen, decaying
	rush bool    // it grows, and reaches the limit soon if it goes on
}

func (p *pace) next(at time.Time, undroppable, limit memguard.Bytes, rest, cost time.Duration) time.Duration {
	used64, ok := undroppable.Get()
	limit64, ok2 := limit.Get()
	p.rush = false
	if !ok || !ok2 || limit64 == memguard.Unlimited {
		return rest
	}
	used, most := float64(used64), float64(limit64)
	if dt := at.Sub(p.at); dt > 0 && !p.at.IsZero() {
		p.rate = max((used-p.used)/dt.Seconds(), p.rate*math.Exp2(-dt.Seconds()/rateHalf.Seconds()))
	}
	p.at, p.used = at, used
	room := max(most-used, 0)
	left := room / max(p.rate, most/burstWithin.Seconds(), 1)
	next := max(time.Duration(min(left/looksAhead, rest.Seconds())*float64(time.Second)), lookFastest)
	if p.rush = p.rate > 0 && room/p.rate <= rushWithin.Seconds(); !p.rush {
		next = max(next, min(lookShare*cost, rest))
	}
	return min(next, rest)
}
