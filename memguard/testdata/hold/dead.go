// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"runtime"
	"runtime/debug"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// dead: garbage that no cycle has looked at. Garbage that a cycle has found and
// nobody has swept yet is in the same row; it lasts for milliseconds, too
// short to be looked at from outside.
func dead() (held.Holds, any, error) {
	debug.SetGCPercent(-1)
	runtime.GC()
	nodes()
	return held.Holds{memguard.RowDead: amount}, nil, nil
}
