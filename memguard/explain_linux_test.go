// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Three seconds of looking show that memory grows, twenty how long that can go on.
func TestExplainSeesGrowth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := newStage(t)
		ctx, stop := context.WithCancel(t.Context())
		defer func() {
			stop()
			time.Sleep(time.Second) // and the growth has ended
		}()
		go func() {
			for used := 0.3; ctx.Err() == nil; used += 0.002 { // 2 % of the limit a second
				stage.usage(used)
				time.Sleep(100 * time.Millisecond)
			}
		}()
		src := stage.source()
		defer src.Close()
		r, err := src.Explain(ctx, 3*time.Second)
		require.NoError(t, err)
		_, ok := r.Left.Get()
		assert.False(t, ok, "too early for an alarm")
		assert.NotEmpty(t, r.WhyLeft)
		assert.Contains(t, r.Verdict, "It grows")
		assert.Contains(t, r.Findings[0].Summary, "too early")
		assert.InDelta(t, 3*time.Second, r.Watched, float64(300*time.Millisecond))

		r, err = src.Explain(ctx, 20*time.Second)
		require.NoError(t, err)
		left, ok := r.Left.Get()
		require.True(t, ok, r.Verdict)
		assert.InDelta(t, (1-0.76)/0.02, left, 2)
		assert.Contains(t, r.Verdict, "can reach the limit of 1024 MiB in 1")
	})
}

// One look is enough for what stands still, and says what takes more.
func TestExplainAtOneLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := newStage(t)
		stage.write("memory.max", "838860800\n")
		src := stage.source()
		defer src.Close()
		r, err := src.Explain(t.Context(), 0)
		require.NoError(t, err)
		assert.Zero(t, r.Watched)
		assert.Equal(t, Value[float64]{}, r.Left)
		assert.Equal(t, Warning, r.Worst())
		assert.Equal(t, ID("limit-above-cgroup"), r.Findings[0].ID)
		assert.Equal(t, r.Findings[0].Summary, r.Verdict)
		assert.NotEmpty(t, r.Ledger.Rows)
		assert.NotEmpty(t, r.Blind, "a look from outside cannot see the runtime")
		assert.Zero(t, (&Report{}).Worst())
	})
}

// A context that ends early ends the looking, not the report.
func TestExplainIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 700*time.Millisecond)
		defer stop()
		src := newStage(t).source()
		defer src.Close()
		r, err := src.Explain(ctx, time.Hour)
		require.NoError(t, err)
		assert.InDelta(t, 700*time.Millisecond, r.Watched, float64(300*time.Millisecond))
		assert.NotNil(t, r.Ledger)
	})
}

// Explain sees the calling process from inside.
func TestExplainOneself(t *testing.T) {
	t.Parallel()
	r, err := Explain(t.Context(), 0)
	require.NoError(t, err)
	_, ok := r.Ledger.Row(RowUnused)
	assert.True(t, ok, "a class that only the runtime knows")
	rss, ok := r.Ledger.RSS.Get()
	require.True(t, ok)
	residual, ok := r.Ledger.Residual.Get()
	require.True(t, ok)
	assert.LessOrEqual(t, float64(max(residual, -residual)), max(0.1*float64(rss), 8*mebi), "it closes, as far as two moments can")
}
