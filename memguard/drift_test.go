// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shape is one life of a service of 512 MiB that nothing grows in but what more
// says: chance chooses its base, how much garbage it makes, and so on.
type shape func(r *rand.Rand, more stream) service

const slowLimit = 512 * mebi

func slowService(r *rand.Rand, live stream) service {
	return service{
		live: constant((60 + 60*r.Float64()) * mebi).plus(live), garbage: (3 + 20*r.Float64()) * mebi,
		limit: slowLimit, goLimit: 0.96 * slowLimit, paced: true, other: constant(5 * mebi), step: 0.05,
	}
}

// phase is a stream that began a while ago.
func (s stream) phase(seconds float64) stream {
	return func(t float64) float64 { return s(t + seconds) }
}

// slow are the shapes of what a slow leak hides under.
var slow = map[string]shape{
	"garbage alone": slowService,
	"a cache that is dropped every 6 s": func(r *rand.Rand, more stream) service {
		return slowService(r, sawtooth(25*mebi, 6).phase(6*r.Float64()).plus(more))
	},
	"a cache that is dropped every 20 s": func(r *rand.Rand, more stream) service {
		return slowService(r, sawtooth(30*mebi, 20).phase(20*r.Float64()).plus(more))
	},
	"requests in flight": func(r *rand.Rand, more stream) service {
		return slowService(r, inFlight(25*mebi, r.Uint64()).plus(more))
	},
	"few collections": func(r *rand.Rand, more stream) service {
		v := slowService(r, sawtooth(10*mebi, 3).phase(3*r.Float64()).plus(more))
		v.garbage = 3 * mebi
		return v
	},
}

// alarms lives a service under the forecast alone, and returns when it was a warning
// at first, how long it was not after that, and when the service was killed.
func alarms(v service, seconds float64) (first, gaps, killed float64) {
	var d oomForecast
	var p pace
	first = math.Inf(1)
	was, at := false, 0.0
	killed = v.run(seconds, func(s *Sample) time.Duration {
		now := s.Time.Sub(epoch).Seconds()
		verdict := d.step(s)
		warns := verdict.state == found && verdict.severity >= Warning
		if warns {
			first = min(first, now)
		} else if !math.IsInf(first, 0) && (was || gaps > 0) {
			gaps += now - at
		}
		was, at = warns, now
		return p.next(s)
	})
	return first, gaps, killed
}

// A leak of 0.3 to 2 MiB/s is named a minute before the end, under whatever it
// hides.
func TestSlowLeaksAreNamed(t *testing.T) {
	t.Parallel()
	for name, shape := range slow {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var leads, back []float64
			for _, rate := range []float64{0.3, 0.6, 0.9, 1.3, 2} {
				for seed := range uint64(4) {
					r := rand.New(rand.NewPCG(seed, math.Float64bits(rate)))
					// Of a leak that takes an hour the last minutes are what is to be seen.
					gone := max(350-300*rate, 0)
					first, gaps, killed := alarms(shape(r, constant(gone*mebi).plus(ramp(rate*mebi))), 1000)
					require.False(t, math.IsInf(killed, 0))
					leads, back = append(leads, killed-first), append(back, gaps)
					assert.GreaterOrEqual(t, killed-first, 60.0, "%.1f MiB/s, seed %d: killed at %.0f s", rate, seed, killed)
				}
			}
			slices.Sort(leads)
			slices.Sort(back)
			t.Logf("named before the kill, s: least %.0f, median %.0f, most %.0f; taken back for s: median %.0f, most %.0f",
				leads[0], leads[len(leads)/2], leads[len(leads)-1], back[len(back)/2], back[len(back)-1])
		})
	}
}

// What grows and stops, or comes and goes, is not accused: not one of 200 lives.
func TestSlowControlsAreNotAccused(t *testing.T) {
	t.Parallel()
	const seeds = 4
	lives := 0
	for name, more := range map[string]func(r *rand.Rand) stream{
		"nothing":                  func(r *rand.Rand) stream { return constant(0) },
		"a warm-up":                func(r *rand.Rand) stream { return levelOff(130*mebi, 5+20*r.Float64()) },
		"a long warm-up":           func(r *rand.Rand) stream { return levelOff(130*mebi, 30+60*r.Float64()) },
		"a cache that fills":       func(r *rand.Rand) stream { return warmUp(130*mebi, 30+200*r.Float64()) },
		"a cache that fills later": func(r *rand.Rand) stream { return warmUp(130*mebi, 30+200*r.Float64()).delay(60) },
		"one step":                 func(r *rand.Rand) stream { return step(150*mebi, 30+100*r.Float64()) },
		"steps": func(r *rand.Rand) stream {
			return step(60*mebi, 40+30*r.Float64()).plus(step(60*mebi, 100+60*r.Float64()))
		},
		"a day in ten minutes": func(r *rand.Rand) stream { return swing(80*mebi, 600).phase(600 * r.Float64()) },
		"a day in five":        func(r *rand.Rand) stream { return swing(100*mebi, 300).phase(300 * r.Float64()) },
		"bursts of requests":   func(r *rand.Rand) stream { return bursts(60*mebi, r.Uint64()) },
	} {
		for under, shape := range slow {
			lives += seeds
			t.Run(name+" under "+under, func(t *testing.T) {
				t.Parallel()
				for seed := range uint64(seeds) {
					r := rand.New(rand.NewPCG(seed, uint64(len(name)*100+len(under))))
					first, _, killed := alarms(shape(r, more(r)), 300)
					assert.True(t, math.IsInf(killed, 0), "seed %d", seed)
					assert.True(t, math.IsInf(first, 0), "seed %d is accused after %.0f s", seed, first)
				}
			})
		}
	}
	assert.Equal(t, 200, lives)
}

// levelOff comes nearer to its height by 63 % in a time constant.
func levelOff(height, seconds float64) stream {
	return func(t float64) float64 { return height * (1 - math.Exp(-t/seconds)) }
}

// inFlight is what requests hold: another height, of up to the given one, each half
// second.
func inFlight(height float64, seed uint64) stream {
	r := rand.New(rand.NewPCG(seed, 3))
	var heights [997]float64
	for i := range heights {
		heights[i] = height * r.Float64()
	}
	return func(t float64) float64 { return heights[int(2*t)%len(heights)] }
}

// bursts come and go at random times: a few seconds of work each.
func bursts(size float64, seed uint64) stream {
	r := rand.New(rand.NewPCG(seed, 2))
	var begin, last []float64
	for t := 0.0; t < 1000; {
		t += 5 + 40*r.Float64()
		begin = append(begin, t)
		t += 1 + 10*r.Float64()
		last = append(last, t)
	}
	return func(t float64) float64 {
		i, _ := slices.BinarySearch(last, t)
		if i < len(begin) && t >= begin[i] {
			return size
		}
		return 0
	}
}
