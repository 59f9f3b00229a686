// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// Each takes back its own look, in whatever order; the latest that stands is asked.
func TestSetLookUndoneInAnyOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Wait: -1})
		l.Update(Memory{Limit: 1 << 30, Usage: 1 << 20})
		asked := ""
		look := func(name string) func() (uint64, bool) {
			return func() (uint64, bool) { asked = name; return 1 << 20, true }
		}
		asks := func() string {
			asked = ""
			time.Sleep(lookEveryFar)
			leave, err := l.Enter(t.Context(), Work{})
			assert.NoError(t, err)
			leave()
			return asked
		}
		assert.Empty(t, asks())
		first := l.SetLook(look("first"))
		assert.Equal(t, "first", asks())
		second := l.SetLook(look("second"))
		assert.Equal(t, "second", asks())
		first()
		assert.Equal(t, "second", asks(), "the old guard ends after the new one has begun")
		third := l.SetLook(look("third"))
		third()
		third()
		assert.Equal(t, "second", asks())
		second()
		assert.Empty(t, asks())
	})
}
