// SPDX-License-Identifier: Apache-2.0

// Package procmem reads the memory of another process without stopping it.
package procmem

import (
	"errors"
	"fmt"
)

// ErrGone is that the process has ended, or has let its memory go.
var ErrGone = errors.New("no such process, or it has ended")

// Range is a piece of the other process's memory.
type Range struct {
	Addr uint64
	Len  int
}

// Error is a piece that could not be read.
type Error struct {
	Range
	Err error
}

func (e *Error) Error() string {
	return fmt.Sprintf("procmem: %d bytes at %#x: %v", e.Len, e.Addr, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Cost is what reading took.
type Cost struct {
	Calls uint64 `json:"syscalls"`
	Bytes uint64 `json:"bytes"`
}
