// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bytes"
	"testing"

	"github.com/memguard/memguard-go/memguard"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTextUnknown writes a snapshot in which nothing is known: nothing may look
// like a zero.
func TestTextUnknown(t *testing.T) {
	t.Parallel()
	s := &Snapshot{Unknown: []memguard.Blind{{What: "heap", Why: "a\x1b[31mreason"}}}
	s.Goroutines.Clusters = []Cluster{{Count: 1, State: "running", Start: "main.\x1b[2J", StackWhy: "it runs"}}
	var b bytes.Buffer
	require.NoError(t, s.WriteText(&b, 80, false))
	assert.NotContains(t, b.String(), "\x1b")
	assert.NotContains(t, b.String(), "0.0 KiB\n")
	assert.Contains(t, b.String(), "GOROUTINES: unknown")
	assert.ErrorIs(t, s.WriteHeap(&b), ErrNotTaken)
}
