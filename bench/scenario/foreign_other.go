// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package scenario

import (
	"errors"
	"os"
)

// The lab needs a memory cgroup, so no victim comes as far as this elsewhere.
var errLinux = errors.New("scenario: needs Linux")

func newForeign(uint64) error       { return errLinux }
func newShm() (*os.File, error)     { return nil, errLinux }
func newLog() (*os.File, error)     { return nil, errLinux }
func hugeBlock(bytes uint64) []byte { return block(bytes) }
