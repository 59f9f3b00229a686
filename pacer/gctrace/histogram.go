// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"math/bits"
	"time"
)

// histogram counts pauses in buckets that are as fine as the runtime prints
// them: 1 µs up to 100 µs, then two significant digits up to 10 ms, then 1 ms
// up to 1 s (fmtNSAsMS in runtime/mgc.go). So its quantiles are exact for
// pauses read from a trace. Longer pauses share buckets of at most 1/16 of
// their length, and max is always exact.
type histogram struct {
	count   uint64
	over    uint64 // longer than longPause
	max     time.Duration
	buckets [longest + 16*34]uint64 // 1 s to 2^63 ns is 34 doublings
}

// longPause is the pause that is too long, after Go's goal since 1.8 that
// a collection's stops stay well below a millisecond.
const longPause = 500 * time.Microsecond

// The first bucket of each step.
const (
	tens    = 100                // 100 µs, by 10 µs
	tenths  = tens + 90          // 1 ms, by 0.1 ms
	wholes  = tenths + 90        // 10 ms, by 1 ms
	longest = wholes + 1000 - 10 // 1 s, by 1/16 of a doubling
)

func bucket(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	switch {
	case us < 100:
		return int(us)
	case us < 1000:
		return tens + int(us-100)/10
	case us < 10_000:
		return tenths + int(us-1000)/100
	case us < 1_000_000:
		return wholes + int(us-10_000)/1000
	}
	s := us / 1_000_000 << 4 // in 1/16 s: the bits below the leading one are the step
	s |= us % 1_000_000 * 16 / 1_000_000
	doubling := bits.Len64(s) - 5
	return longest + 16*doubling + int(s>>doubling&15)
}

// value returns the lowest pause of the bucket.
func value(bucket int) time.Duration {
	switch {
	case bucket < tens:
		return time.Duration(bucket) * time.Microsecond
	case bucket < tenths:
		return time.Duration(bucket-tens+10) * 10 * time.Microsecond
	case bucket < wholes:
		return time.Duration(bucket-tenths+10) * 100 * time.Microsecond
	case bucket < longest:
		return time.Duration(bucket-wholes+10) * time.Millisecond
	}
	step := bucket - longest
	return time.Duration(16+step%16) << (step / 16) * (time.Second / 16)
}

func (h *histogram) add(d time.Duration) {
	h.count++
	if d > longPause {
		h.over++
	}
	h.max = max(h.max, d)
	h.buckets[bucket(d)]++
}

// quantile returns the smallest pause that a share of at least permille/1000
// of all pauses do not exceed. It is 0 without pauses.
func (h *histogram) quantile(permille uint64) time.Duration {
	hi, lo := bits.Mul64(h.count, permille)
	rank, rest := bits.Div64(hi, lo, 1000)
	if rest > 0 {
		rank++
	}
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; n > 0 && seen >= rank {
			return min(value(i), h.max)
		}
	}
	return h.max
}
