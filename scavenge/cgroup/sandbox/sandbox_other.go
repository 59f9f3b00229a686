// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package sandbox

import (
	"fmt"
	"os/exec"
	"runtime"
)

// Sandbox is a memory cgroup with a limit. Only Linux has any.
type Sandbox struct{}

var errOther = fmt.Errorf("sandbox: %w: %s has no cgroups", ErrUnsupported, runtime.GOOS)

// New fails: there are cgroups on Linux only.
func New(name string, limit uint64) (*Sandbox, error) { return nil, errOther }

// Sweep finds nothing to remove.
func Sweep() (removed int, err error) { return 0, nil }

// Dir returns nothing.
func (s *Sandbox) Dir() string { return "" }

// Version returns 0: no version.
func (s *Sandbox) Version() int { return 0 }

// Start fails as New does.
func (s *Sandbox) Start(cmd *exec.Cmd) error { return errOther }

// SetLimit fails as New does.
func (s *Sandbox) SetLimit(limit uint64) error { return errOther }

// Kills fails as New does.
func (s *Sandbox) Kills() (uint64, error) { return 0, errOther }

// Peak fails as New does.
func (s *Sandbox) Peak() (uint64, error) { return 0, errOther }

// Close does nothing.
func (s *Sandbox) Close() error { return nil }
