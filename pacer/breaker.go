// SPDX-License-Identifier: Apache-2.0

package pacer

import "fmt"

// State is the state of a circuit breaker. The zero State is Closed.
type State uint8

// The states.
const (
	Closed   State = iota // all is well, work flows
	HalfOpen              // some work is let through, to see whether it goes well again
	Open                  // work is refused
)

var stateNames = [...]string{Closed: "closed", HalfOpen: "half-open", Open: "open"}

// String returns "closed", "half-open" or "open".
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// MarshalText writes what String returns; a State that there is not is an error.
func (s State) MarshalText() ([]byte, error) {
	if int(s) >= len(stateNames) {
		return nil, fmt.Errorf("pacer: marshal: no breaker state %d", uint8(s))
	}
	return []byte(stateNames[s]), nil
}

// UnmarshalText reads what MarshalText writes, and nothing else.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if string(text) == name {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("pacer: unmarshal: no breaker state %q (want closed, half-open or open)", text)
}

// StateFunc returns the present state of somebody's breaker. It is called at
// every tick, from one goroutine, and should return at once.
type StateFunc func() State

// Table proposes a GC percent (GOGC) for each state of a breaker. An entry that
// is not positive proposes nothing: the baseline stays.
//
// It only proposes, see [Governor]: a higher percent makes the heap larger, and
// under memory pressure that is the wrong way.
type Table struct {
	Closed, HalfOpen, Open int
}

// DefaultTable is the usual recipe: collect more while trying carefully, and less
// while load is refused.
func DefaultTable() *Table { return &Table{Closed: 100, HalfOpen: 50, Open: 200} }

// percent is what t proposes in a state; ok is false if that is nothing, or there
// is no such state.
func (t *Table) percent(s State) (percent int, ok bool) {
	if t == nil {
		return 0, false
	}
	switch s {
	case Closed:
		percent = t.Closed
	case HalfOpen:
		percent = t.HalfOpen
	case Open:
		percent = t.Open
	}
	return percent, percent > 0
}
