// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSurvival(t *testing.T) {
	t.Parallel()
	var h survival
	at := func(cycles, live, allocated, objects uint64) uint64 {
		n, ok := h.estimate(&Runtime{
			Cycles: Known(cycles), Live: Known(live * mebi), Allocated: Known(allocated * mebi), Objects: Known(objects * mebi),
		}).Get()
		assert.True(t, ok)
		return n / mebi
	}
	assert.EqualValues(t, 100, at(5, 100, 1000, 100), "the first look: what was marked")
	assert.EqualValues(t, 100, at(5, 100, 1050, 150), "nothing is known yet of what survives")
	assert.EqualValues(t, 125, at(6, 125, 1100, 125), "a quarter of 100 MiB did")
	assert.EqualValues(t, 130, at(6, 125, 1120, 145), "so a quarter of the next 20 will")
	assert.EqualValues(t, 150, at(6, 125, 1200, 225), "but of 100 MiB and no more, for that was once")
	assert.EqualValues(t, 225, at(7, 225, 1200, 225), "one large allocation that stays")
	assert.EqualValues(t, 230, at(7, 225, 1220, 245), "is not expected again: still a quarter")
	assert.EqualValues(t, 225, at(8, 225, 1300, 225))
	assert.EqualValues(t, 225, at(8, 225, 1340, 265), "now nothing survives")
	assert.EqualValues(t, 125, at(9, 125, 1400, 125), "a cache is dropped")
	assert.EqualValues(t, 105, at(9, 125, 1420, 145), "and as much again may be")
	assert.EqualValues(t, 0, at(9, 125, 9999, 145), "never less than nothing")
	assert.EqualValues(t, 125, at(10, 125, 20000, 125))
	h = survival{}
	at(1, 10, 10, 10)
	at(2, 30, 30, 30) // all of it lives
	assert.EqualValues(t, 40, at(2, 30, 60, 40), "never more than there is")

	// What is unknown stays so.
	assert.Equal(t, Bytes{}, h.estimate(&Runtime{}))
	assert.Equal(t, Known[uint64](7), h.estimate(&Runtime{Live: Known[uint64](7)}), "an old Go release: what was marked")
}
