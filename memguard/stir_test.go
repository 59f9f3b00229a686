// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// The guard is woken when the usage has grown, once, and not by what does not grow or
// has no limit.
func TestStir(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	w := stir{wake: make(chan struct{}, 1)}
	woken := func() bool {
		select {
		case <-w.wake:
			return true
		default:
			return false
		}
	}
	w.saw(gib)
	assert.False(t, woken(), "before the first tick nobody knows what is growth")
	w.ticked(filled(0, 0.5))
	for _, used := range []uint64{0, gib / 4, gib / 2, gib/2 + gib/64} {
		w.saw(used)
		assert.False(t, woken(), used)
	}
	w.saw(gib/2 + gib/16)
	w.saw(gib)
	assert.True(t, woken())
	assert.False(t, woken(), "once for all looks until the next tick")
	w.saw(gib)
	w.ticked(filled(1, 0.6))
	assert.False(t, woken(), "that tick was it")
	w.saw(gib / 2)
	assert.False(t, woken())
	s := filled(2, 0.5)
	s.Cgroup.Limit = Known[uint64](Unlimited)
	w.ticked(s)
	w.saw(gib)
	assert.False(t, woken(), "without a limit")
}

// What goes up and down wakes the guard when it goes higher than before, and not each
// time.
func TestStirOfASwing(t *testing.T) {
	t.Parallel()
	w := stir{wake: make(chan struct{}, 1)}
	wakes := 0
	for i := range 600 { // a minute of ten looks a second, up and down by a tenth of the limit
		now, share := float64(i)/10, 0.1+0.1*float64(i%2)
		if i%20 == 0 {
			w.ticked(filled(now, share))
		}
		w.saw(uint64(share * (1 << 30)))
		if len(w.wake) > 0 {
			wakes++
			w.ticked(filled(now, share))
		}
	}
	assert.Less(t, wakes, 10)
	assert.Positive(t, wakes)
}
