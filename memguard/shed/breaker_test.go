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

// A breaker that is forced says so, whatever the level, and goes on judging it: when
// that is undone it says what it would have said.
func TestBreakerForced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(BreakerConfig{Probes: 3})
		for _, c := range []struct {
			force, want State
			pass        int
		}{{Open, Open, 0}, {HalfOpen, HalfOpen, 3}, {Closed, Closed, 10}, {"ajar", Open, 0}, {"", Open, 0}} {
			undo := b.Force(c.force)
			assert.Equal(t, c.want, b.State())
			passed := 0
			for range 10 {
				if b.Allow() {
					passed++
				}
			}
			assert.Equal(t, c.pass, passed, c.force)
			undo()
			assert.Equal(t, Closed, b.State())
		}
		undo := b.Force(Closed)
		b.Observe(0.99)
		assert.Equal(t, Closed, b.State())
		assert.True(t, b.Allow())
		undo()
		undo()
		assert.Equal(t, Open, b.State(), "what the level says")
		undo = b.Force(HalfOpen)
		undoSecond := b.Force(Closed)
		undoSecond()
		assert.Equal(t, HalfOpen, b.State(), "what was before")
		undo()
		undo = b.Force(HalfOpen)
		b.Reset()
		assert.Equal(t, HalfOpen, b.State(), "who forced it takes that back")
		undo()
		assert.Equal(t, Closed, b.State())
		time.Sleep(time.Hour)
		assert.Equal(t, Closed, b.State(), "nobody tells it anything")
		b.Observe(0.99)
		assert.Equal(t, Open, b.State(), "as when new")
	})
}

// Each takes back its own, in whatever order; the latest that stands counts.
func TestBreakerForcedUndoneInAnyOrder(t *testing.T) {
	t.Parallel()
	b := NewBreaker(BreakerConfig{})
	first, second := b.Force(Open), b.Force(HalfOpen)
	first()
	assert.Equal(t, HalfOpen, b.State())
	third := b.Force(Open)
	second()
	assert.Equal(t, Open, b.State())
	third()
	assert.Equal(t, Closed, b.State())
	before := b.Force(Open)
	b.Reset()
	after := b.Force(HalfOpen)
	assert.Equal(t, HalfOpen, b.State())
	after()
	assert.Equal(t, Open, b.State(), "to forget the level takes back nothing")
	before()
	assert.Equal(t, Closed, b.State())
}
