// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// filled is a cgroup of 1 GiB that is used so far.
func filled(t, share float64) *Sample {
	return &Sample{Time: at(t), Cgroup: Cgroup{
		Limit: Known[uint64](1 << 30), Usage: Known(uint64(share * (1 << 30))),
		ActiveFile: Known[uint64](0), InactiveFile: Known[uint64](0),
	}}
}

func TestPaceShortensAsTheLimitComesNear(t *testing.T) {
	t.Parallel()
	last := tickRest
	for share := 0.0; share < 1.2; share += 0.005 {
		var p pace // no growth seen: a burst may come all the same
		next := p.next(filled(0, share))
		require.LessOrEqual(t, next, last, "at %.1f %%", 100*share)
		require.GreaterOrEqual(t, next, tickFastest)
		last = next
	}
	assert.Equal(t, tickFastest, last, "beyond the limit")
	var p pace
	assert.Equal(t, tickRest, p.next(filled(0, 0.5)), "half full is at rest")
}

// A guard that acts looks more often, and no less often where there is no limit.
func TestPaceOfOneThatActs(t *testing.T) {
	t.Parallel()
	next := func(age, share float64) time.Duration {
		var p pace
		p.next(filled(0, share))
		s := filled(age, share)
		s.Paced = true
		return p.next(s)
	}
	for share, want := range map[float64]time.Duration{
		0: tickRest, 0.5: 250 * time.Millisecond, 0.75: 62500 * time.Microsecond, 0.9: tickFastest, 1.1: tickFastest,
	} {
		assert.Equal(t, want, next(20, share), share)
	}
	assert.Equal(t, tickStarting, next(1, 0), "at the start")
	assert.Equal(t, tickStarting/2, next(1, 0.5))
	s := filled(0, 0.9)
	s.Paced, s.Cgroup.Limit = true, Known[uint64](0)
	assert.Equal(t, tickFastest, new(pace).next(s))
	s.Cgroup.Limit = Known[uint64](Unlimited)
	assert.Equal(t, tickRest, new(pace).next(s))
}

// The faster it grows, the more often: from when growth is seen, twenty looks
// still fit before the end, as far as the fastest tick allows.
func TestPaceFollowsGrowth(t *testing.T) {
	t.Parallel()
	for _, perSecond := range []float64{0.001, 0.01, 0.1, 0.5, 5} { // of the limit
		var p pace
		p.next(filled(-0.02, 0.2-0.02*perSecond))
		looks := 0
		for now := 0.0; 0.2+perSecond*now < 1; looks++ {
			now += p.next(filled(now, 0.2+perSecond*now)).Seconds()
		}
		most := 0.8 / perSecond / tickFastest.Seconds()
		assert.GreaterOrEqual(t, float64(looks), min(ticksAhead, most), "%v a second", perSecond)
	}
}

func TestPaceOfWhatIsUnknown(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *Cgroup){
		"no cgroup":     func(c *Cgroup) { *c = Cgroup{} },
		"limit unknown": func(c *Cgroup) { c.Limit = Bytes{} },
		"no limit":      func(c *Cgroup) { c.Limit = Known[uint64](Unlimited) },
		"usage unknown": func(c *Cgroup) { c.Usage = Bytes{} },
		"cache unknown": func(c *Cgroup) { c.ActiveFile = Bytes{} },
	} {
		var p pace
		s := filled(0, 0.99)
		change(&s.Cgroup)
		assert.Equal(t, tickRest, p.next(s), name)
	}
	// Page cache is not what kills.
	var p pace
	s := filled(0, 0.99)
	s.Cgroup.InactiveFile = Known[uint64](700 << 20)
	assert.Equal(t, tickRest, p.next(s))
	// A limit of nothing is passed already; a clock that went back is no growth.
	s = filled(0, 0.5)
	s.Cgroup.Limit = Known[uint64](0)
	assert.Equal(t, tickFastest, new(pace).next(s))
	p = pace{}
	p.next(filled(100, 0.1))
	assert.Equal(t, tickRest, p.next(filled(50, 0.5)))
	assert.Equal(t, tickRest, p.next(filled(50, 0.5)), "no time has passed")
}

// Usage that goes up and down does not make the tick jump about: what grew
// quickly once is expected to do so again.
func TestPaceDoesNotFlap(t *testing.T) {
	t.Parallel()
	for name, share := range map[string]stream{
		"sine of 2 s":     constant(0.55).plus(swing(0.1, 2)),
		"sawtooth of 1 s": constant(0.6).plus(sawtooth(0.1, 1)),
		"noise of 1 %":    constant(0.7).plus(noise(0.01, 5)),
	} {
		var p pace
		var now float64
		shortest, longest := math.Inf(1), 0.0
		for now < 120 {
			next := p.next(filled(now, share(now))).Seconds()
			if now > 20 {
				shortest, longest = min(shortest, next), max(longest, next)
			}
			now += next
		}
		assert.LessOrEqual(t, longest/shortest, 4.0, "%s: from %v s to %v s", name, shortest, longest)
	}
}

// What grew once is forgotten: the guard comes to rest again.
func TestPaceComesToRest(t *testing.T) {
	t.Parallel()
	var p pace
	p.next(filled(0, 0.1))
	assert.Less(t, p.next(filled(0.1, 0.5)), 100*time.Millisecond, "it will be full in a tenth of a second")
	now, next := 0.1, time.Duration(0)
	for now < 60 {
		next = p.next(filled(now, 0.5))
		now += next.Seconds()
	}
	assert.Equal(t, tickRest, next)
}
