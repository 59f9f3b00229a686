// SPDX-License-Identifier: Apache-2.0

package adapters

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/pacer"
	"github.com/sony/gobreaker/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var errUpstream = errors.New("upstream")

// What a guard takes.
var _ = memguard.Config{Breaker: Gobreaker(gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{}))}

// The whole round: closed, open, half-open, open again, half-open, closed.
func TestGobreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const wait = 10 * time.Second
		b := gobreaker.NewCircuitBreaker[string](gobreaker.Settings{
			Timeout:     wait,
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 3 },
		})
		state := Gobreaker(b)
		call := func(result error) error {
			_, err := b.Execute(func() (string, error) { return "", result })
			return err
		}
		assert.Equal(t, pacer.Closed, state())
		for range 2 {
			require.ErrorIs(t, call(errUpstream), errUpstream)
		}
		assert.Equal(t, pacer.Closed, state())
		require.ErrorIs(t, call(errUpstream), errUpstream)
		assert.Equal(t, pacer.Open, state())
		require.ErrorIs(t, call(nil), gobreaker.ErrOpenState)

		time.Sleep(wait - time.Second)
		assert.Equal(t, pacer.Open, state())
		time.Sleep(2 * time.Second)
		assert.Equal(t, pacer.HalfOpen, state(), "without a request")
		require.ErrorIs(t, call(errUpstream), errUpstream)
		assert.Equal(t, pacer.Open, state(), "the probe failed")

		time.Sleep(wait + time.Second)
		assert.Equal(t, pacer.HalfOpen, state())
		require.NoError(t, call(nil))
		assert.Equal(t, pacer.Closed, state())
	})
}

func TestFailsafe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const wait = 10 * time.Second
		b := circuitbreaker.NewBuilder[string]().WithFailureThreshold(3).WithSuccessThreshold(1).WithDelay(wait).Build()
		state := Failsafe(b)
		call := func(result error) bool {
			if !b.TryAcquirePermit() {
				return false
			}
			b.RecordError(result)
			return true
		}
		assert.Equal(t, pacer.Closed, state())
		for range 2 {
			require.True(t, call(errUpstream))
		}
		assert.Equal(t, pacer.Closed, state())
		require.True(t, call(errUpstream))
		assert.Equal(t, pacer.Open, state())
		require.False(t, call(nil))

		time.Sleep(wait - time.Second)
		assert.Equal(t, pacer.Open, state())
		time.Sleep(2 * time.Second)
		assert.Equal(t, circuitbreaker.OpenState, b.State(), "as the library says, until a request comes")
		assert.Equal(t, pacer.HalfOpen, state())
		require.True(t, b.TryAcquirePermit())
		assert.Equal(t, circuitbreaker.HalfOpenState, b.State())
		assert.Equal(t, pacer.HalfOpen, state())
		b.RecordError(errUpstream)
		assert.Equal(t, pacer.Open, state(), "the probe failed")

		time.Sleep(wait + time.Second)
		assert.Equal(t, pacer.HalfOpen, state())
		require.True(t, b.TryAcquirePermit())
		b.RecordSuccess()
		assert.Equal(t, pacer.Closed, state())
	})
}
