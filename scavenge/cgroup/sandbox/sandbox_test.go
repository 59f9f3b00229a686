// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCreator(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		dir string
		pid int // 0: not ours
	}{
		{"memguard-leak-123-1", 123},
		{"memguard-with-dashes-9-123-1", 123},
		{"memguard-123-1", 0}, // no name
		{"memguard-leak-0-1", 0},
		{"memguard-leak--1-1", 1}, // a name that ends in a dash
		{"memguard-leak-x-1", 0},
		{"memguard-leak-1-x", 0},
		{"memguard-leak-99999999999999999999-1", 0},
		{"memguard.service", 0},
		{"docker-leak-123-1", 0},
		{"", 0},
	} {
		pid, ok := creator(tt.dir)
		assert.Equal(t, tt.pid != 0, ok, tt.dir)
		if ok {
			assert.Equal(t, tt.pid, pid, tt.dir)
		}
	}
}

func FuzzCreator(f *testing.F) {
	f.Add("leak", 123, uint64(1))
	f.Add("a-1-2", 1, uint64(0))
	f.Fuzz(func(t *testing.T, name string, pid int, n uint64) {
		creator(name) // never panics
		if checkName(name) != nil || pid <= 0 {
			return
		}
		got, ok := creator(dirName(name, pid, n))
		if !ok || got != pid {
			t.Fatalf("creator(%q) = %d, %v, want %d", dirName(name, pid, n), got, ok, pid)
		}
	})
}
