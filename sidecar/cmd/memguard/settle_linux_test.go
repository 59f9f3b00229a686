// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/memguard/memguard-go/scavenge/smaps"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A page that differs from the file is never given up: its content would be lost.
func TestPristine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "library")
	require.NoError(t, os.WriteFile(path, make([]byte, 64<<10), 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	page, err := unix.Mmap(int(f.Fd()), 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	require.NoError(t, err)
	defer func() { assert.NoError(t, unix.Munmap(page)) }()
	mapping := func() *smaps.Mapping {
		p, err := smaps.Read("/proc", os.Getpid(), smaps.Hints{Go: true})
		require.NoError(t, err)
		for i := range p.Mappings {
			if p.Mappings[i].Path == path {
				return &p.Mappings[i]
			}
		}
		require.FailNow(t, "not mapped")
		return nil
	}
	assert.False(t, pristine(mapping()), "it can be written to")
	require.NoError(t, unix.Mprotect(page, unix.PROT_READ))
	_ = page[0]
	assert.True(t, pristine(mapping()))
	require.NoError(t, unix.Mprotect(page, unix.PROT_READ|unix.PROT_WRITE))
	page[4096] = 1 // as a linker relocates
	require.NoError(t, unix.Mprotect(page, unix.PROT_READ))
	assert.False(t, pristine(mapping()), "a page is not as in the file")
}
