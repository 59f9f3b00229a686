// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(BreakerConfig{})
		observe := func(level float64, d time.Duration) {
			for range d / (10 * time.Millisecond) {
				b.Observe(level)
				time.Sleep(10 * time.Millisecond)
			}
		}
		allowed := func() (n int) {
			for range 100 {
				if b.Allow() {
					n++
				}
			}
			return n
		}
		observe(0.91, time.Minute)
		assert.Equal(t, Closed, b.State())
		assert.Equal(t, 100, allowed())
		b.Observe(0.92)
		assert.Equal(t, Open, b.State())
		assert.Zero(t, allowed())
		observe(0.9, time.Second)
		assert.Equal(t, Open, b.State(), "it cools down")
		observe(0.9, 1010*time.Millisecond)
		assert.Equal(t, HalfOpen, b.State())
		assert.Equal(t, 5, allowed())
		observe(0.9, 2*time.Second)
		assert.Equal(t, 5, allowed(), "a few more")
		observe(0.8, time.Minute)
		assert.Equal(t, HalfOpen, b.State(), "hysteresis")
		b.Observe(math.NaN())
		observe(0.7, time.Second)
		assert.Equal(t, HalfOpen, b.State())
		observe(0.7, 1100*time.Millisecond)
		assert.Equal(t, Closed, b.State())
		b.Observe(0.95)
		observe(0.5, 3*time.Second)
		assert.Equal(t, HalfOpen, b.State())
		b.Observe(1.2)
		assert.Equal(t, Open, b.State(), "back")
	})
}

// When nobody tells the level any more, it is not taken for high nor for low.
func TestBreakerBlind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(BreakerConfig{})
		assert.Equal(t, Closed, b.State())
		b.Observe(0.99)
		time.Sleep(blindAfter - time.Second)
		assert.Equal(t, Open, b.State())
		time.Sleep(3 * time.Second)
		assert.Equal(t, HalfOpen, b.State())
		time.Sleep(time.Hour)
		assert.Equal(t, HalfOpen, b.State())
		assert.True(t, b.Allow())
	})
}

// Noise around a threshold does not make it flap.
func TestBreakerFlapping(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(BreakerConfig{})
		changes, was := 0, b.State()
		for i := range 6000 { // a minute
			b.Observe(0.92 + 0.04*float64(i%2*2-1))
			if now := b.State(); now != was {
				changes, was = changes+1, now
			}
			time.Sleep(10 * time.Millisecond)
		}
		assert.Equal(t, 1, changes)
	})
}
