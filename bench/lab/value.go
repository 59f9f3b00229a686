// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"strconv"
)

// Seconds is a time in seconds that may be unknown: a latency without an answer
// is not zero. The zero Seconds is unknown, null in JSON.
type Seconds struct {
	s  float64
	ok bool
}

// Value returns the seconds, and whether they are known.
func (s Seconds) Value() (seconds float64, ok bool) { return s.s, s.ok }

// MarshalJSON writes a number or null.
func (s Seconds) MarshalJSON() ([]byte, error) {
	if !s.ok {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, s.s, 'g', 6, 64), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*s = Seconds{}
		return nil
	}
	s.ok = true
	return json.Unmarshal(b, &s.s)
}
