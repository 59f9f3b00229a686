// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// follow feeds a stream to a trend from one second to another.
func follow(tr *trend, s stream, from, to, every float64) {
	for t := from; t <= to; t += every {
		tr.add(at(t), s(t))
	}
}

func TestTrendCurves(t *testing.T) {
	t.Parallel()
	const leak = 2.5 * mebi
	for _, c := range []struct {
		name  string
		curve stream
		until float64 // seconds
		claim func(t *testing.T, slope float64)
	}{
		{"constant", constant(300 * mebi), 60, slopeIs(0)},
		{"leak", constant(80 * mebi).plus(ramp(leak)), 60, slopeIs(leak)},
		{"slow leak", ramp(40 << 10), 60, slopeIs(40 << 10)},
		{"shrinking", constant(300 * mebi).plus(ramp(-leak)), 60, slopeIs(-leak)},
		{"leak that begins late", ramp(leak).delay(60), 130, slopeIs(leak)},
		{"leak before it begins", ramp(leak).delay(60), 59, slopeIs(0)},
		{"warm-up, long over", warmUp(200*mebi, 10), 60, slopeIs(0)},
		{"noise", constant(80 * mebi).plus(noise(8*mebi, 1)), 60, slopeBetween(-leak, 1)},
		{"noise over a leak", ramp(leak).plus(noise(8*mebi, 2)), 60, slopeBetween(leak/2, leak)},
		{"cache of 3 s", sawtooth(40*mebi, 3), 60, slopeBetween(-8*mebi, 1)},
		{"cache of 7.3 s", sawtooth(40*mebi, 7.3), 60, slopeBetween(-8*mebi, 1)},
		{"cache of 15 s", sawtooth(40*mebi, 15), 60, slopeBetween(-8*mebi, 1)},
		{"cache of 30 s", sawtooth(40*mebi, 30), 100, slopeBetween(-8*mebi, 1)},
		{"heap swinging slowly", swing(60*mebi, 14), 60, slopeBetween(-8*mebi, 1)},
		{"cache of 3 s over a leak", sawtooth(20*mebi, 3).plus(ramp(leak)), 60, slopeBetween(leak/2, leak)},
		{"cache of 7.3 s over a leak", sawtooth(20*mebi, 7.3).plus(ramp(leak)), 60, slopeBetween(leak/2, leak)},
		{"step in the middle of the window", step(100*mebi, 45), 60, slopeIs(0)},
		{"step that has left the window", step(100*mebi, 20), 60, slopeIs(0)},
		{"step down", constant(200 * mebi).plus(step(-100*mebi, 45)), 60, slopeBetween(-100*mebi, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, every := range []float64{0.01, 0.1, 0.5} {
				var tr trend
				follow(&tr, c.curve, 0, c.until, every)
				slope, _, ok := tr.perSecond()
				require.True(t, ok)
				c.claim(t, slope)
			}
		})
	}
}

func slopeIs(want float64) func(*testing.T, float64) {
	return func(t *testing.T, got float64) {
		assert.InDelta(t, want, got, max(want, -want)/100, "within 1 %%")
	}
}

func slopeBetween(low, high float64) func(*testing.T, float64) {
	return func(t *testing.T, got float64) {
		assert.GreaterOrEqual(t, got, low)
		assert.LessOrEqual(t, got, high)
	}
}

// A tooth of a cache is never growth, at whatever moment one looks, once two
// whole ones have been seen.
func TestTrendSawtoothAtEveryMoment(t *testing.T) {
	t.Parallel()
	for _, period := range []float64{1.7, 4, 9, 15, 29} {
		var tr trend
		curve := sawtooth(40*mebi, period)
		follow(&tr, curve, 0, 2*period, 0.5)
		for s := 2*period + 0.5; s < 180; s += 0.5 {
			tr.add(at(s), curve(s))
			slope, _, ok := tr.perSecond()
			require.True(t, ok)
			require.LessOrEqual(t, slope, 1.0, "period %v s, at %v s", period, s)
		}
	}
}

// One step up is never growth, however few points there are.
func TestTrendStepAtEveryMoment(t *testing.T) {
	t.Parallel()
	for from := 0.5; from < 30; from += 1.5 {
		var tr trend
		curve := step(500*mebi, from)
		for s := 0.0; s < 60; s += 0.5 {
			tr.add(at(s), curve(s))
			if slope, _, ok := tr.perSecond(); ok {
				require.Zero(t, slope, "step at %v s, seen at %v s", from, s)
			}
		}
	}
}

func TestTrendNeedsPoints(t *testing.T) {
	t.Parallel()
	var tr trend
	_, _, ok := tr.perSecond()
	assert.False(t, ok, "no points")
	grown, seconds := tr.grown()
	assert.Zero(t, grown)
	assert.Zero(t, seconds)
	for i := range trendLeast - 1 {
		tr.add(at(float64(i)), float64(i))
		_, _, ok = tr.perSecond()
		assert.False(t, ok, "%d points", i+1)
	}
	tr.add(at(trendLeast), trendLeast)
	_, _, ok = tr.perSecond()
	assert.True(t, ok)

	// Looks that follow each other closely are not points.
	tr = trend{}
	follow(&tr, ramp(1), 0, 2.4, 0.001)
	_, _, ok = tr.perSecond()
	assert.False(t, ok, "2.4 s are five points")
}

func TestTrendStartsAnew(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]float64{
		"clock goes back":     -3600,
		"clock goes back 1 s": -1,
		"gap":                 trendGap + 1,
		"suspended for a day": 86400,
	} {
		var tr trend
		follow(&tr, ramp(5*mebi), 0, 60, 0.5)
		_, _, ok := tr.perSecond()
		require.True(t, ok)
		from := 60 + jump
		tr.add(at(from), 0)
		_, _, ok = tr.perSecond()
		require.False(t, ok, "%s: what was before is no evidence", name)
		follow(&tr, ramp(-1*mebi), from+0.5, from+40, 0.5)
		slope, _, ok := tr.perSecond()
		require.True(t, ok)
		assert.InDelta(t, -1*mebi, slope, 0.01*mebi, name)
	}
	// A gap that is not too long is none: time passed, and that is a slope too.
	var tr trend
	follow(&tr, ramp(mebi), 0, 10, 0.5)
	follow(&tr, ramp(mebi), 10+trendGap-1, 60, 0.5)
	slope, _, ok := tr.perSecond()
	require.True(t, ok)
	assert.InDelta(t, mebi, slope, 0.01*mebi)
}

// What is known better afterwards is mended, from a time on and upwards only.
func TestTrendRaise(t *testing.T) {
	t.Parallel()
	var tr, most trend
	follow(&tr, constant(0), 0, 5, 0.5)
	follow(&most, constant(mebi).plus(ramp(2*mebi)), 0, 5, 0.5)
	slope, _, _ := tr.perSecond()
	require.Zero(t, slope)
	tr.raise(time.Time{}, &most, mebi)
	slope, _, _ = tr.perSecond()
	assert.InDelta(t, 2*mebi, slope, 1)
	tr.raise(at(2), &most, -mebi)
	assert.InDelta(t, 4*mebi, tr.bytes[tr.slot(4)], 1, "at 2 s: as it was")
	assert.InDelta(t, 7*mebi, tr.bytes[tr.slot(5)], 1)
	tr.raise(time.Time{}, &most, 100*mebi)
	assert.InDelta(t, 12*mebi, tr.highest(), 1, "nothing is lowered")
}

func TestTrendGrown(t *testing.T) {
	t.Parallel()
	var tr trend
	follow(&tr, ramp(2*mebi), 0, 100, 0.5)
	grown, seconds := tr.grown()
	assert.InDelta(t, (trendPoints-1)*trendLater, seconds, 1e-6, "a minute")
	assert.InDelta(t, 2*mebi*seconds, grown, 1)
}

func TestNth(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 3))
	for range 2000 {
		s := make([]float64, 1+r.IntN(60))
		for i := range s {
			s[i] = float64(r.IntN(12)) // many equal ones
		}
		sorted := slices.Sorted(slices.Values(s))
		n := r.IntN(len(s))
		require.Equal(t, sorted[n], nth(slices.Clone(s), n), "%v [%d]", s, n)
	}
}

func TestTrendAllocatesNothing(t *testing.T) {
	var tr trend
	now := epoch
	assert.Zero(t, testing.AllocsPerRun(200, func() {
		now = now.Add(500 * time.Millisecond)
		tr.add(now, float64(now.Nanosecond()))
		tr.perSecond()
	}))
}

func BenchmarkTrendAdd(b *testing.B) {
	var tr trend
	curve := sawtooth(40*mebi, 7.3).plus(noise(mebi, 1))
	s := 0.0
	b.ReportAllocs()
	for b.Loop() {
		s += trendSpacing
		tr.add(at(s), curve(s))
		tr.perSecond()
	}
}
