// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The critical values of Wilcoxon's signed-rank test, two-sided at 5 %, as every
// book of tables has them: one less than rank.
func TestRank(t *testing.T) {
	t.Parallel()
	for n, critical := range map[int]int{6: 0, 7: 2, 8: 3, 9: 5, 10: 8, 12: 13, 15: 25, 20: 52, 25: 89} {
		assert.Equal(t, critical+1, rank(n), n)
	}
	for n := range leastRounds {
		assert.Zero(t, rank(n), n)
	}
}

func TestEstimate(t *testing.T) {
	t.Parallel()
	iv := estimate([]float64{3, 1, 2})
	assert.Equal(t, interval{Typical: 2}, iv)

	// Six are the fewest with an interval, and that has all of them.
	iv = estimate([]float64{5, 1, 2, 3, 4, 6})
	require.NotNil(t, iv.Low)
	assert.Equal(t, []float64{1, 3.5, 6}, []float64{*iv.Low, iv.Typical, *iv.High})

	// One spoiled round hardly moves it.
	spoiled := estimate([]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1e9})
	assert.Less(t, spoiled.Typical, 8.)
	assert.Less(t, *spoiled.High, 12.)
}

// The interval has the truth in it as often as it says, whatever the noise is like.
func TestEstimateCovers(t *testing.T) {
	t.Parallel()
	const trials, n, truth = 4000, 12, 0.25
	for name, noise := range map[string]func(*rand.Rand) float64{
		"normal":       (*rand.Rand).NormFloat64,
		"heavy tails":  func(r *rand.Rand) float64 { return math.Tan(math.Pi * (r.Float64() - 0.5)) },
		"nearly quiet": func(r *rand.Rand) float64 { return 1e-9 * (r.Float64() - 0.5) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(1, 2))
			covered := 0
			for range trials {
				d := make([]float64, n)
				for i := range d {
					d[i] = truth + noise(r)
				}
				if iv := estimate(d); *iv.Low <= truth && truth <= *iv.High {
					covered++
				}
			}
			assert.InDelta(t, 0.957, float64(covered)/trials, 0.012) // 1 - 2 P(W <= 13), n = 12
		})
	}
}

func TestDifference(t *testing.T) {
	t.Parallel()
	assert.InDelta(t, 30, difference([]float64{10, 20, 40, 80, 10, 20}, []float64{20, 40, 80, 160, 20, 40}).Typical, 15)
}
