// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package procmem

import "errors"

// Mem is the memory of another process; only Linux lets it be read like this.
type Mem struct{ Cost Cost }

var errSystem = errors.New("procmem: needs Linux")

// Open says that this system cannot.
func Open(int) (*Mem, error) { return nil, errSystem }

// Close does nothing.
func (m *Mem) Close() error { return nil }

// How names the way of reading.
func (m *Mem) How() string { return "" }

// Read says that this system cannot.
func (m *Mem) Read(uint64, []byte) error { return errSystem }

// ReadAll says that this system cannot.
func (m *Mem) ReadAll([]Range, []byte) error { return errSystem }
