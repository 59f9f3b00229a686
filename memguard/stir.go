// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"sync/atomic"
	"time"
)

const (
	// stirPart is how much of the limit the usage grows before the guard is woken ...
	stirPart = 1. / 32
	// ... above the highest that it saw; that comes down by as much in this time, so
	// that what goes up and down wakes it no more often.
	stirAgain = 10 * time.Second
)

// stir wakes the guard between two ticks when the usage has grown. Far from the limit
// ticks are far apart and a burst does not announce itself, but work does: the limiter
// looks at the usage when some comes.
type stir struct {
	wake chan struct{}
	at   atomic.Uint64 // usage that is worth a tick; 0 is none
	last time.Time     // of ticked
}

// ticked takes the sample of a tick.
func (w *stir) ticked(s *Sample) {
	select {
	case <-w.wake: // this is the tick that it was for
	default:
	}
	since := s.Time.Sub(w.last)
	w.last = s.Time
	limit, isBounded := bounded(s.Cgroup.Limit)
	used, ok := s.Cgroup.undroppable().Get()
	if !isBounded || !ok {
		w.at.Store(0)
		return
	}
	step := stirPart*float64(limit) + 1
	at := max(float64(w.at.Load())-step*min(max(since.Seconds()/stirAgain.Seconds(), 0), 1), float64(used)+step)
	w.at.Store(uint64(at))
}

// saw takes a look at the usage.
func (w *stir) saw(used uint64) {
	if at := w.at.Load(); at == 0 || used < at {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default: // it is about to
	}
}

// lookForWork is the limiter's look at the usage.
func (g *Guard) lookForWork() (used uint64, ok bool) {
	if used, ok = g.source.usageNow(); ok {
		g.stir.saw(used)
	}
	return used, ok
}
