// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
	"math/rand/v2"
	"time"
)

// A stream is a figure over time, in seconds since its beginning. Curves are
// composed of small ones.
type stream func(t float64) float64

const mebi = 1 << 20

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(t float64) time.Time { return epoch.Add(time.Duration(t * float64(time.Second))) }

func constant(v float64) stream { return func(float64) float64 { return v } }

// ramp grows by perSecond, for ever.
func ramp(perSecond float64) stream { return func(t float64) float64 { return perSecond * t } }

// warmUp grows to height within a time and stays there.
func warmUp(height, within float64) stream {
	return func(t float64) float64 { return height * min(t/within, 1) }
}

// sawtooth grows to height in each period, and drops.
func sawtooth(height, period float64) stream {
	return func(t float64) float64 { return height * math.Mod(t, period) / period }
}

// swing goes between 0 and height like a sine.
func swing(height, period float64) stream {
	return func(t float64) float64 { return height / 2 * (1 - math.Cos(2*math.Pi*t/period)) }
}

// step is 0, and height from a time on.
func step(height, from float64) stream {
	return func(t float64) float64 {
		if t < from {
			return 0
		}
		return height
	}
}

// noise is the same at every run: each call gives the next number between 0 and height.
func noise(height float64, seed uint64) stream {
	r := rand.New(rand.NewPCG(seed, seed))
	return func(float64) float64 { return height * r.Float64() }
}

// plus is the sum of both.
func (s stream) plus(other stream) stream {
	return func(t float64) float64 { return s(t) + other(t) }
}

// delay holds back the beginning: before it s is what it begins with.
func (s stream) delay(by float64) stream {
	return func(t float64) float64 { return s(max(t-by, 0)) }
}
