// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/memguard/memguard-go/memguard/evidence"
)

// While a capture is under way nothing is planned, and so nothing counts as captured
// that is not.
func TestNoCaptureIsPlannedDuringAnother(t *testing.T) {
	t.Parallel()
	h := handOf(Config{Evidence: &evidence.Store{Dir: t.TempDir()}})
	p := &h.g.proof
	p.profiles, p.ask = &evidence.Profiles{Store: &evidence.Store{Dir: t.TempDir()}}, "oom-forecast"
	h.g.busy["capture"] = true
	p.step(healthy(0))
	assert.Empty(t, h.lines(Planned))
	assert.Zero(t, p.planner)
	assert.Equal(t, ID("oom-forecast"), p.ask)
}
