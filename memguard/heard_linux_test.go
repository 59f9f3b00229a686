// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard/shed"
)

// A new guard is started and then the old one is closed. What they share, the limiter
// and the breaker, keeps what the new one tells it; after the last one nobody tells it
// anything. What the service itself has forced stands all the while.
func TestRollingRestartOfAGuard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Shed: shed.New(shed.Config{Wait: -1}), MemoryBreaker: shed.NewBreaker(shed.BreakerConfig{})}
		statm, err := os.Open("/proc/self/statm")
		require.NoError(t, err)
		defer statm.Close()
		full := healthy(0)
		full.Runtime.Live, full.Runtime.Objects = Known[uint64](900*mebi), Known[uint64](905*mebi)
		add(full, 20*mebi)
		guard := func() *hand {
			h := handOf(cfg)
			h.g.source.glance.Store(&glance{statm: statm})
			h.g.stir.wake = make(chan struct{}, 1)
			h.g.stir.at.Store(1)
			h.fill(full)
			h.observe()
			h.feed()
			return h
		}
		// looked says whether an admission looks at the usage through this guard.
		looked := func(h *hand) bool {
			time.Sleep(20 * time.Millisecond)
			leave, err := cfg.Shed.Enter(t.Context(), shed.Work{Priority: shed.High})
			require.NoError(t, err)
			leave()
			select {
			case <-h.g.stir.wake:
				return true
			default:
				return false
			}
		}
		first := guard()
		assert.True(t, looked(first))
		second := guard()
		first.undo()
		assert.True(t, looked(second))
		assert.True(t, cfg.Shed.Snapshot().Limited)
		assert.Equal(t, shed.Open, cfg.MemoryBreaker.State())

		mine := cfg.MemoryBreaker.Force(shed.HalfOpen)
		second.undo()
		assert.False(t, looked(second))
		assert.False(t, cfg.Shed.Snapshot().Limited)
		assert.Equal(t, shed.HalfOpen, cfg.MemoryBreaker.State(), "the service's own")
		mine()
		assert.Equal(t, shed.Closed, cfg.MemoryBreaker.State())
		heard.mu.Lock()
		defer heard.mu.Unlock()
		assert.NotContains(t, heard.by, any(cfg.Shed), "nothing is kept of it")
	})
}
