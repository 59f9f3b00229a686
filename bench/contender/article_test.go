// SPDX-License-Identifier: Apache-2.0

package contender

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestArticleStep(t *testing.T) {
	t.Parallel()
	var state int32
	for _, at := range []struct {
		share float64
		want  int32
	}{
		{0.50, 0}, {0.69, 0}, {0.70, 1}, {0.66, 1}, {0.64, 0}, {0.90, 2}, {0.81, 2}, {0.79, 1}, {0.82, 1}, {0.86, 2}, {0.10, 0},
	} {
		state = step(state, at.share)
		assert.Equal(t, at.want, state, "at %v", at.share)
	}
}

func TestArticleSheds(t *testing.T) {
	t.Parallel()
	const n = 100000
	for state, want := range []float64{1, articleHalfIn, articleOpenIn} {
		b := &breaker{}
		b.state.Store(int32(state))
		in := 0
		for range n {
			if b.admit() {
				in++
			}
		}
		assert.InDelta(t, want, float64(in)/n, 0.01)
	}
}

func TestAll(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range All {
		assert.False(t, seen[c.Name], c.Name)
		seen[c.Name] = true
		assert.NotEmpty(t, c.Setup, c.Name)
		if c.Env != nil {
			assert.Equal(t, []string{"GOMEMLIMIT=900"}, c.Env(1000), c.Name)
		}
	}
	assert.True(t, seen["plain"] && seen["memguard"], "what run uses without --guard")
}
