// SPDX-License-Identifier: Apache-2.0

package overhead

import "slices"

// interval is a figure from many rounds, and where it lies with 95 % confidence.
type interval struct {
	Typical float64  `json:"typical"`
	Low     *float64 `json:"low,omitempty"` // nil where there are too few rounds to say
	High    *float64 `json:"high,omitempty"`
}

const (
	confidence  = 0.95
	leastRounds = 6 // with 5 not even all of them on one side are 95 %
)

// estimate is the Hodges-Lehmann estimate of the median of differences between
// pairs, with the interval that belongs to Wilcoxon's signed-rank test: the
// shifts which that test would not refuse. Hollander, Wolfe, Chicken:
// Nonparametric Statistical Methods, 3.2 and 3.3. It assumes that a difference is
// as likely to be too high as too low, and
// nothing of how far: one round that a busy machine spoiled moves it little.
func estimate(differences []float64) interval {
	n := len(differences)
	walsh := make([]float64, 0, n*(n+1)/2) // the averages of all pairs, each with itself too
	for i, a := range differences {
		for _, b := range differences[i:] {
			walsh = append(walsh, (a+b)/2)
		}
	}
	slices.Sort(walsh)
	m := len(walsh)
	iv := interval{Typical: (walsh[(m-1)/2] + walsh[m/2]) / 2}
	if k := rank(n); k > 0 {
		iv.Low, iv.High = &walsh[k-1], &walsh[m-k]
	}
	return iv
}

// rank says which of the averages, from either end, is the end of the interval:
// the largest k for which the signed-rank statistic of n pairs is below k with a
// probability of at most half of what confidence leaves. 0 is that there is none.
func rank(n int) (k int) {
	// Each of the ranks 1 to n counts or does not, as a coin falls: p[w] is the
	// probability that they add up to w.
	p := make([]float64, n*(n+1)/2+1)
	p[0] = 1
	for i := 1; i <= n; i++ {
		for w := len(p) - 1; w >= 0; w-- {
			p[w] /= 2
			if w >= i {
				p[w] += p[w-i] / 2
			}
		}
	}
	below := 0.0
	for k = 0; below+p[k] <= (1-confidence)/2; k++ {
		below += p[k]
	}
	return k
}

// difference is an estimate of how much the new figures are above the old ones.
func difference(old, new []float64) interval {
	d := make([]float64, len(old))
	for i := range old {
		d[i] = new[i] - old[i]
	}
	return estimate(d)
}

// each applies a rising function to all of it.
func (iv interval) each(f func(float64) float64) interval {
	iv.Typical = f(iv.Typical)
	if iv.Low != nil {
		low, high := f(*iv.Low), f(*iv.High)
		iv.Low, iv.High = &low, &high
	}
	return iv
}

// median of some figures; at least one.
func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
