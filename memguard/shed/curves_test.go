// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// back is l played backwards from its end.
func (l load) back(end time.Duration) load {
	return func(t time.Duration) float64 { return l(end - t) }
}

// Composed curves, forwards and backwards, seen and half blind: the usage does not
// run past the brake, the brake does not flap, and where the load stands still so do
// the answers.
func TestPlantCurves(t *testing.T) {
	t.Parallel()
	const best, half, much = 700., 350., 2100.
	const end = 16 * time.Second
	for name, curve := range map[string]load{
		"ramp":        ramp(half, much, 4*time.Second).then(8*time.Second, ramp(much, half, 4*time.Second)),
		"step":        constant(half).then(4*time.Second, constant(much)).then(10*time.Second, constant(half)),
		"oscillation": oscillate(half, much, 500*time.Millisecond).then(8*time.Second, constant(much)),
	} {
		for _, way := range []struct {
			name  string
			load  load
			delay time.Duration
			blind time.Duration // nobody calls Update from here on
		}{
			{"forwards", curve, 0, end},
			{"backwards", curve.back(end), 0, end},
			{"delayed", curve, 30 * time.Millisecond, end},
			{"delayed, backwards", curve.back(end), 30 * time.Millisecond, end},
			{"blind", curve, 0, 2 * time.Second},
			{"blind, backwards", curve.back(end), 0, 2 * time.Second},
		} {
			t.Run(name+"/"+way.name, func(t *testing.T) {
				t.Parallel()
				work := request(way.load)
				work.lag = way.delay
				p := newPlant(work)
				p.tick = func(t time.Duration) bool { return t%(10*time.Millisecond) == 0 && t < way.blind }
				var offers, answers []float64 // by the second
				for at := time.Duration(0); at < end; at += time.Second {
					p.run(at, at+time.Second)
					offers, answers = append(offers, float64(p.offered["work"])), append(answers, float64(p.served["work"]))
					n := len(offers)
					if n < 3 {
						continue // it starts from nothing
					}
					least, most := slices.Min(offers[n-3:]), slices.Max(offers[n-3:])
					assert.GreaterOrEqual(t, answers[n-1], 0.7*min(least, best), "after %v", at)
					if least > 0.85*most { // it has stood still for as long as it takes to settle
						assert.InDelta(t, answers[n-2], answers[n-1], 0.2*answers[n-2], "after %v", at)
					}
				}
				t.Logf("peak %.1f MiB, brake changed %d times", p.peak/mib, p.changes)
				assert.Zero(t, p.killed, "killed")
				assert.LessOrEqual(t, p.peak, p.limit-p.margin/4, "overshoot")
				assert.LessOrEqual(t, p.changes, 2, "changes of the brake")
			})
		}
	}
}

// A burst meets a service that is at rest, and whose work nobody has measured.
func TestPlantBurst(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		limit     float64
		units     int
		size      float64
		lag, hold time.Duration
		waits     time.Duration
		most      int // refused
	}{
		{"16 KiB each, after a database", 256 * mib, 200, 16 << 10, 20 * time.Millisecond, 2 * time.Millisecond, waitSlowStart, 0},
		{"nobody waits", 256 * mib, 200, 16 << 10, 20 * time.Millisecond, 2 * time.Millisecond, 0, 160},
		{"4 KiB each", 1024 * mib, 3000, 4 << 10, 0, 50 * time.Millisecond, waitSlowStart, 0},
		{"24 KiB each under little", small, 300, 24 << 10, 0, 20 * time.Millisecond, waitSlowStart, 0},
		// What does not fit, and is not seen to come, does not kill: up to three times
		// what was guessed.
		{"1 MiB each", small, 3000, mib, 0, 100 * time.Millisecond, waitSlowStart, 3000},
		{"1 MiB each, late", small, 3000, mib, 40 * time.Millisecond, 100 * time.Millisecond, waitSlowStart, 3000},
		{"1 MiB each, late, much room", 1024 * mib, 5000, mib, 40 * time.Millisecond, 100 * time.Millisecond, waitSlowStart, 5000},
		{"1.5 MiB each, late", 256 * mib, 3000, 1.5 * mib, 40 * time.Millisecond, 100 * time.Millisecond, waitSlowStart, 3000},
		{"2 MiB each, late", 256 * mib, 3000, 2 * mib, 40 * time.Millisecond, 100 * time.Millisecond, waitSlowStart, 3000},
		{"3 MiB each, late", 256 * mib, 3000, 3 * mib, 40 * time.Millisecond, 100 * time.Millisecond, waitSlowStart, 3000},
		{"3 MiB each, late, much room", 4096 * mib, 5000, 3 * mib, 100 * time.Millisecond, 100 * time.Millisecond, waitSlowStart, 5000},
		{"1.5 MiB each, much room", 1024 * mib, 1000, 1.5 * mib, 0, 100 * time.Millisecond, waitSlowStart, 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			work := kind{route: "work", load: constant(0), size: tt.size, lag: tt.lag, hold: tt.hold}
			p := newPlant(work)
			p.limit, p.margin, p.waits = tt.limit, tt.limit/25, tt.waits
			p.change = func(p *plant, at time.Duration) {
				if at == 500*time.Millisecond {
					for range tt.units {
						p.arrive(at, &p.kinds[0])
					}
				}
			}
			p.run(0, 3*time.Second)
			t.Logf("served %d, refused %d, peak %.1f MiB", p.served["work"], p.refused["work"], p.peak/mib)
			assert.Zero(t, p.killed, "killed")
			assert.LessOrEqual(t, p.refused["work"], tt.most)
			assert.Equal(t, tt.units, p.served["work"]+p.refused["work"])
		})
	}
}
