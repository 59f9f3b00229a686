// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are at most 1/16 wider than where
// they begin, so that a quantile is right within 6 %. It never grows: whatever
// comes, it is 4 KiB. The zero histogram is empty.
type histogram struct {
	n      uint64
	bucket [40 * sub]uint32 // to 2^39 µs, six days
}

const sub = 16 // buckets for each doubling

func index(us uint64) int {
	if us < sub {
		return int(us)
	}
	shift := bits.Len64(us) - 5 // us>>shift is 16 to 31
	return min(shift*sub+int(us>>shift), 40*sub-1)
}

// upper is the end of bucket i, in microseconds.
func upper(i int) uint64 {
	if i < sub {
		return uint64(i) + 1
	}
	shift := i/sub - 1
	return (uint64(i%sub+sub) + 1) << shift
}

func (h *histogram) add(d time.Duration) {
	h.n++
	h.bucket[index(uint64(max(d, 0).Microseconds()))]++
}

// quantile returns what the share q of the durations did not exceed, false if
// there were none.
func (h *histogram) quantile(q float64) (time.Duration, bool) {
	if h.n == 0 {
		return 0, false
	}
	rank := max(uint64(q*float64(h.n)+0.999999), 1)
	var seen uint64
	for i, n := range h.bucket {
		if seen += uint64(n); seen >= rank {
			return time.Duration(upper(i)) * time.Microsecond, true
		}
	}
	return time.Duration(upper(len(h.bucket)-1)) * time.Microsecond, true
}

func (h *histogram) merge(o *histogram) {
	h.n += o.n
	for i, n := range o.bucket {
		h.bucket[i] += n
	}
}

func (h *histogram) seconds(q float64) Seconds {
	d, ok := h.quantile(q)
	return Seconds{d.Seconds(), ok}
}
