// SPDX-License-Identifier: Apache-2.0

package pacer

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestState(t *testing.T) {
	t.Parallel()
	for s, name := range map[State]string{Closed: "closed", HalfOpen: "half-open", Open: "open"} {
		assert.Equal(t, name, s.String())
		text, err := s.MarshalText()
		require.NoError(t, err)
		var back State
		require.NoError(t, back.UnmarshalText(text))
		assert.Equal(t, s, back)
	}
	assert.Equal(t, "State(7)", State(7).String())
	_, err := State(7).MarshalText()
	assert.EqualError(t, err, "pacer: marshal: no breaker state 7")
	s := Open
	assert.EqualError(t, s.UnmarshalText([]byte("halfopen")), `pacer: unmarshal: no breaker state "halfopen" (want closed, half-open or open)`)
	assert.Equal(t, Open, s, "kept")
}

func FuzzState(f *testing.F) {
	for _, s := range []string{"closed", "half-open", "open", "", "OPEN", "State(7)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s State
		if s.UnmarshalText([]byte(text)) == nil && s.String() != text {
			t.Errorf("%q was read as %v", text, s)
		}
	})
}
