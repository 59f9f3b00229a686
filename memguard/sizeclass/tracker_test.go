// SPDX-License-Identifier: Apache-2.0

package sizeclass

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const mib = 1 << 20

var epoch = time.Unix(1_000_000, 0)

func at(seconds float64) time.Time { return epoch.Add(time.Duration(seconds * float64(time.Second))) }

// A load is the bytes that live, over time in seconds.
type load func(t float64) float64

func constant(mibs float64) load { return func(float64) float64 { return mibs * mib } }

func ramp(mibsPerSecond float64) load {
	return func(t float64) float64 { return t * mibsPerSecond * mib }
}

// sawtooth fills and drops.
func sawtooth(mibs, period float64) load {
	return func(t float64) float64 { return mibs * mib * math.Mod(t, period) / period }
}

func (l load) plus(m load) load { return func(t float64) float64 { return l(t) + m(t) } }

func (l load) until(end float64, then load) load {
	return func(t float64) float64 {
		if t < end {
			return l(t)
		}
		return then(t)
	}
}

// A heap of two classes: in the first lives the load and garbage is made, the
// second stands still.
type heap struct {
	live      load
	garbage   float64 // MiB/s
	collected float64 // seconds between collections
	look      float64 // seconds between looks
}

// run hands all looks within a time to a tracker, and the answers to see.
func (h heap) run(tr *Tracker, seconds float64, see func(t float64, growing []Growth)) {
	c := Classes{All: []Class{{Min: 33, Size: 48}, {Min: 49, Size: 64, Objects: 1 << 20, Bytes: 64 * mib}, {Min: 65}}}
	noise := rand.New(rand.NewPCG(1, 2))
	for t := 0.0; t < seconds; t += h.look * (0.9 + 0.2*noise.Float64()) {
		since := math.Mod(t, h.collected)
		c.Cycles = uint64(t / h.collected)
		c.All[0].Objects = uint64(h.live(t)+h.garbage*since*mib) / 48
		c.All[0].Bytes = c.All[0].Objects * 48
		see(t, tr.Step(at(t), &c))
	}
}

// seen is when growth was seen first, and the last that was seen.
func (h heap) seen(seconds float64) (first float64, last Growth) {
	var tr Tracker
	first = math.Inf(1)
	h.run(&tr, seconds, func(t float64, growing []Growth) {
		for _, g := range growing {
			if g.Size == 48 {
				first, last = min(first, t), g
			}
		}
	})
	return first, last
}

var never = math.Inf(1)

func TestTracker(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		heap     heap
		seconds  float64
		from, by float64 // when it is seen
		rate     float64 // MiB/s
	}{
		{"leak, a cycle a second", heap{ramp(2.5), 0, 1, 0.1}, 300, 2, 6, 2.5},
		{"leak, many cycles a look", heap{ramp(2.5), 400, 0.05, 1}, 300, 3, 60, 2.5},
		{"leak under garbage", heap{ramp(2.5).plus(constant(50)), 100, 0.5, 0.1}, 300, 10, 60, 2.5},
		{"slow leak, rare cycles", heap{ramp(0.05), 0.5, 120, 1}, 4000, 240, 3600, 0.05},
		{"leak under a cache that fills and drops", heap{ramp(2.5).plus(sawtooth(60, 5)), 20, 0.5, 0.1}, 300, 3, 60, 2.5},
		{"nothing", heap{constant(100), 0, 1, 0.1}, 3600, never, never, 0},
		{"garbage", heap{constant(100), 100, 0.5, 0.1}, 3600, never, never, 0},
		{"garbage, many cycles a look", heap{constant(100), 400, 0.05, 1}, 3600, never, never, 0},
		{"no collection, no judgement", heap{ramp(100), 0, 1e9, 0.1}, 300, never, never, 0},
		{"one collection is none", heap{ramp(100), 0, 150, 1}, 299, never, never, 0},
		{"falls", heap{ramp(-2.5).plus(constant(1000)), 0, 1, 0.1}, 300, never, never, 0},
	} {
		first, last := c.heap.seen(c.seconds)
		if c.by == never {
			assert.Equal(t, never, first, "%s: %v", c.name, &last)
			continue
		}
		assert.GreaterOrEqual(t, first, c.from, c.name)
		assert.Less(t, first, c.by, "%s: %v", c.name, &last)
		assert.InEpsilon(t, c.rate*mib, last.BytesPerSecond, 0.25, "%s: %v", c.name, &last)
		assert.GreaterOrEqual(t, last.Cycles, uint64(2), c.name)
	}
}

// A cache looks like a leak while it fills for the first time. Then it drops.
func TestTrackerCache(t *testing.T) {
	t.Parallel()
	for _, period := range []float64{3, 5, 20, 60} {
		var tr Tracker
		var longest time.Duration
		heap{sawtooth(60, period), 20, 0.5, 0.1}.run(&tr, 3600, func(_ float64, growing []Growth) {
			for _, g := range growing {
				longest = max(longest, g.Over)
			}
		})
		assert.LessOrEqual(t, longest.Seconds(), period)
	}
}

// A leak that was stopped is no longer growth, at any scale.
func TestTrackerRelief(t *testing.T) {
	t.Parallel()
	var tr Tracker
	var during, after int
	heap{ramp(5).until(100, constant(100)), 0, 0.5, 0.1}.run(&tr, 200, func(t float64, growing []Growth) {
		switch {
		case t > 20 && t < 100:
			during += len(growing)
		case t > 108:
			after += len(growing)
		}
	})
	assert.Greater(t, during, 700)
	assert.Zero(t, after)
}

// What cannot be read, a clock that jumps and another process: nothing is invented.
func TestTrackerBlind(t *testing.T) {
	t.Parallel()
	var tr Tracker
	var last []Growth
	h := heap{ramp(5), 0, 0.5, 0.1}
	h.run(&tr, 60, func(_ float64, g []Growth) { last = g })
	require.Len(t, last, 1)
	want := last[0]
	assert.Equal(t, []Growth{want}, tr.Step(at(61), &Classes{}), "a read that failed holds the verdict")
	assert.Equal(t, []Growth{want}, tr.Step(at(-3600), &Classes{Cycles: 1000, All: make([]Class, 3)}), "a clock set back, too")
	assert.Empty(t, tr.Step(at(62), &Classes{Cycles: 1, All: make([]Class, 3)}), "fewer cycles: another process")
	assert.Empty(t, new(Tracker).Step(at(0), &Classes{}))
}

func TestGrowthString(t *testing.T) {
	t.Parallel()
	g := Growth{Class: Class{Min: 33, Size: 48, Objects: 10, Bytes: 480}, Gained: 240, Over: 2500 * time.Millisecond, Cycles: 5, BytesPerSecond: 96}
	assert.Equal(t, "objects of 33-48 B: 10 outstanding (480 B), +240 B in 3s, 96 B/s, through 5 cycles", g.String())
}

// The real heap: one class is kept, another only churned. The seconds are made up,
// the objects are not.
func TestProcessTrackerTruth(t *testing.T) {
	var r Reader
	var c Classes
	var tr Tracker
	var growing []Growth
	var kept []*[200]byte
	for tick := range 60 {
		for range 1000 {
			kept = append(kept, new([200]byte))
			for range 5 {
				held = new([500]byte)
			}
		}
		if tick%2 == 0 {
			runtime.GC()
		}
		require.NoError(t, r.Read(&c))
		growing = slices.Clone(tr.Step(at(float64(tick)/4), &c))
	}
	require.NotEmpty(t, growing)
	g := growing[slices.IndexFunc(growing, func(g Growth) bool { return g.Size == 208 })]
	assert.InEpsilon(t, 4000*208, g.BytesPerSecond, 0.2)
	assert.InDelta(t, len(kept), g.Objects, 10_000)
	for _, g := range growing {
		assert.NotEqual(t, uint64(512), g.Size)
	}
	runtime.KeepAlive(kept)
}
