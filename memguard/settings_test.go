// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/memguard/memguard-go/pacer"
	"github.com/memguard/memguard-go/scavenge"
)

// Somebody's breaker flaps, at each tick or slowly, with room for its GC percent or
// without: the settings do not, nor the events. Where it is lowest is where it stays.
func TestAFlappingBreakerDoesNotFlapTheGCPercent(t *testing.T) {
	t.Parallel()
	roomy := service{live: constant(100 * mebi), garbage: 50 * mebi, limit: 1024 * mebi}
	tight := service{live: constant(600 * mebi), garbage: 50 * mebi, limit: 1024 * mebi}
	for name, c := range map[string]struct {
		v     service
		every int // ticks of 50 ms
		most  uint64
	}{
		"each tick":             {roomy, 1, 3},
		"each second":           {roomy, 20, 20},
		"each 3 s":              {roomy, 60, 22},
		"each tick, no room":    {tight, 1, 8},
		"each 3 s, no room too": {tight, 60, 22},
	} {
		n := 0
		h := handOf(Config{DryRun: true, Breaker: func() pacer.State { n++; return pacer.State(n / c.every % 3) }})
		changes := 0
		last := h.wanted.GCPercent
		feedAll(h, c.v, 60, func(*Sample) {
			if h.wanted.GCPercent != last {
				last = h.wanted.GCPercent
				changes++
			}
		})
		assert.LessOrEqual(t, uint64(changes), c.most, "%s: changes in a minute", name)
		if c.every < 20 {
			assert.LessOrEqual(t, last, 50, name)
		}
		told := 0
		for _, line := range h.lines(Planned, Clamped) {
			if strings.Contains(line, "gc-percent") {
				told++
			}
		}
		assert.LessOrEqual(t, told, int(c.most)+30, "%s: events in a minute", name)
	}
}

// Each clamp is counted, also one that is over before there may be another event.
func TestEachClampIsCounted(t *testing.T) {
	t.Parallel()
	tight := service{live: constant(400 * mebi), garbage: 200 * mebi, limit: 1024 * mebi}
	n := 0
	h := handOf(Config{DryRun: true, Breaker: func() pacer.State { n++; return pacer.State(n / 10 % 2 * int(pacer.Open)) }})
	begun, was := 0, false
	feedAll(h, tight, 30, func(*Sample) { // open, whose 200 do not fit, for half of each second
		if h.decision.Clamped && !was {
			begun++
		}
		was = h.decision.Clamped
	})
	assert.GreaterOrEqual(t, begun, 20)
	assert.EqualValues(t, begun, h.clamps)
	assert.LessOrEqual(t, len(h.lines(Clamped)), 16, "events")
}

// Down at once, up when the whole of two seconds wanted it, and no higher than they
// did. What was ordered is not held back.
func TestSteadyPercent(t *testing.T) {
	t.Parallel()
	h := handOf(Config{DryRun: true})
	h.known, h.settled, h.wanted.GCPercent = true, true, 100
	set := func(seconds float64, want int) int {
		h.reading.Time = at(seconds)
		h.wanted.GCPercent = h.steady(want)
		return h.wanted.GCPercent
	}
	assert.Equal(t, 50, set(1, 50))
	assert.Equal(t, 50, set(2, 200))
	assert.Equal(t, 50, set(3, 120))
	assert.Equal(t, 50, set(3.9, 200))
	assert.Equal(t, 120, set(4, 200))
	assert.Equal(t, 120, set(5, -1))
	assert.Equal(t, 120, set(1, 300), "the clock was set back")
	assert.Equal(t, 300, set(3, -1))
	assert.Equal(t, 300, set(4, -1))
	assert.Equal(t, -1, set(6, -1), "off is higher than all")
	assert.Equal(t, 40, set(6, 40))
	h.orders.put(SetGCPercent, &standingOrder{})
	assert.Equal(t, 400, set(6, 400))
}

// With GOGC=off too there is a rung that lowers the GC percent: to the runtime's
// default, for off has no half.
func TestProcessLowerPercentWithTheCollectorOff(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	for found, want := range map[int]int{-1: 100, 100: 50, 400: 200, 60: 50, 40: 40} {
		debug.SetGCPercent(found)
		h := handOf(Config{DryRun: true})
		h.decision.Setting = pacer.Setting{GCPercent: found, MemoryLimit: pacer.NoLimit}
		h.decision.LimitReason = "for it to be a decision"
		h.plan = scavenge.Plan{}
		got, _ := h.wants()
		assert.Equal(t, found, got.GCPercent)
		h.plan = scavenge.Plan{Grade: scavenge.LowerPercent, GCPercent: 50}
		got, _ = h.wants()
		assert.Equal(t, want, got.GCPercent, "found %d", found)
	}
}
