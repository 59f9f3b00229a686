// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/pacer"
)

// It is planned once, in a spiral, if that is what is configured; in a dry run
// nothing more.
func TestExitIsPlanned(t *testing.T) {
	t.Parallel()
	for on, want := range map[pacer.OnSpiral]int{pacer.Shed: 0, pacer.Rise: 0, pacer.Exit: 1} {
		h := handOf(Config{DryRun: true, OnSpiral: on})
		h.exit()
		assert.Empty(t, h.lines(Planned), "no spiral")
		h.decision.Spiral, h.decision.Reason = true, "it helps no longer"
		for range 3 {
			h.exit()
		}
		lines := h.lines(Planned, Applied)
		require.Len(t, lines, want, on)
		if want > 0 {
			assert.Equal(t, "planned exit 0 -> 75: it helps no longer", lines[0])
		}
		assert.Nil(t, h.g.exit)
	}
}

// Without a store there is no evidence to wait for.
func TestExitWithoutAStore(t *testing.T) {
	t.Parallel()
	h := handOf(Config{OnSpiral: pacer.Exit})
	h.decision.Spiral, h.decision.Reason = true, "it helps no longer"
	h.exit()
	h.g.locked(<-h.g.finished)
	assert.NotNil(t, h.g.exit, "what the guard's goroutine does next")
	assert.Len(t, h.lines(Planned, Applied), 2)
}
