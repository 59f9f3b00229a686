// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package cgroup

import (
	"errors"
	"fmt"
	"runtime"
)

// Group is the memory cgroup of a process. Only Linux has any.
type Group struct{}

// Open fails: there are cgroups on Linux only.
func Open(proc string, pid int) (*Group, error) {
	return nil, fmt.Errorf("cgroup: open pid %d: %w", pid, errOther)
}

// OpenDir fails: there are cgroups on Linux only.
func OpenDir(dir string) (*Group, error) {
	return nil, fmt.Errorf("cgroup: open %s: %w", dir, errOther)
}

var errOther = fmt.Errorf("%w on %s: %w", ErrNoController, runtime.GOOS, errors.ErrUnsupported)

// Close does nothing.
func (g *Group) Close() error { return nil }

// Version returns 0: no version.
func (g *Group) Version() int { return 0 }

// Path returns nothing.
func (g *Group) Path() string { return "" }

// Dir returns nothing.
func (g *Group) Dir() string { return "" }

// Usage fails as Open does.
func (g *Group) Usage() (uint64, error) { return 0, errOther }

// Read fails as Open does, and knows nothing.
func (g *Group) Read() (Reading, error) { return Reading{}, errOther }

// Pids fails as Open does.
func (g *Group) Pids() ([]int, error) { return nil, errOther }
