// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Value is a figure that may be unknown. The zero Value is unknown, so a field
// that nobody filled cannot be mistaken for a measured zero.
type Value[T int64 | uint64 | float64] struct {
	v  T
	ok bool
}

// Bytes is a byte count that may be unknown.
type Bytes = Value[uint64]

// Count is a number of things that may be unknown.
type Count = Value[uint64]

// ParseBytes reads a size as GOMEMLIMIT takes it: a number of bytes, with an optional
// suffix B, KiB, MiB, GiB or TiB (parseByteCount in runtime/string.go).
func ParseBytes(s string) (uint64, error) {
	shift := 0
	num, isByte := strings.CutSuffix(s, "B")
	for i, unit := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if rest, ok := strings.CutSuffix(num, unit); ok && isByte {
			num, shift = rest, 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(num, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("memguard: size %q: want bytes, such as 512MiB", s)
	}
	return uint64(n) << shift, nil
}

// Known returns a Value that is known to be v.
func Known[T int64 | uint64 | float64](v T) Value[T] { return Value[T]{v, true} }

// Get returns the figure and whether it is known. The figure is zero when it is not.
func (v Value[T]) Get() (T, bool) { return v.v, v.ok }

// MarshalJSON writes the figure, or null when it is unknown.
func (v Value[T]) MarshalJSON() ([]byte, error) {
	if !v.ok {
		return []byte("null"), nil
	}
	return json.Marshal(v.v)
}

// UnmarshalJSON reads a figure; null is unknown.
func (v *Value[T]) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*v = Value[T]{}
		return nil
	}
	var n T
	if err := json.Unmarshal(b, &n); err != nil {
		*v = Value[T]{} // what could not be read is not a zero
		return err
	}
	*v = Known(n)
	return nil
}

// plus returns the sum of all terms, unknown if one of them is or it does not fit.
func plus(terms ...Bytes) Bytes {
	var sum uint64
	for _, t := range terms {
		n, ok := t.Get()
		if !ok || n > math.MaxUint64-sum {
			return Bytes{}
		}
		sum += n
	}
	return Known(sum)
}

// minus returns a-b as a signed figure, unknown if one of them is.
func minus(a, b Bytes) Value[int64] {
	x, ok := signed(a).Get()
	y, ok2 := signed(b).Get()
	if !ok || !ok2 {
		return Value[int64]{}
	}
	return Known(x - y) // neither is negative: it fits
}

// signed returns b as a signed figure. One of 8 EiB or more is no byte count
// that a kernel can mean, and is unknown.
func signed(b Bytes) Value[int64] {
	n, ok := b.Get()
	if !ok || n > math.MaxInt64 {
		return Value[int64]{}
	}
	return Known(int64(n))
}
