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
	w.ticked(filled(1, 0.6))
	w.saw(gib / 2)
	assert.False(t, woken())
	s := filled(2, 0.5)
	s.Cgroup.Limit = Known[uint64](Unlimited)
	w.ticked(s)
	w.saw(gib)
	assert.False(t, woken(), "without a limit")
}
