// SPDX-License-Identifier: Apache-2.0

//go:build !race

package memguard

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Admission reads it, up to a thousand times a second. (Under the race detector
// syscall.Pread lets its buffer escape.)
func TestProcessResidentNowAllocatesNothing(t *testing.T) {
	f, err := os.Open("/proc/self/statm")
	require.NoError(t, err)
	defer f.Close()
	g := &glance{statm: f}
	assert.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = g.residentNow() }))
}
