// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"runtime"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// nodeSize is a size class, and eight of it fill a span of 8 KiB.
const nodeSize = 1024

// node fills its size class with the word in front of it that the runtime
// keeps the type in (runtime/mbitmap.go, mallocHeaderSize).
type node struct {
	next *node
	_    [nodeSize - 16]byte
}

// live: everything that was allocated is reachable.
func live() (held.Holds, any, error) {
	list := nodes()
	runtime.GC() // what is live is known only after a cycle
	return held.Holds{memguard.RowLive: amount, memguard.RowProcesses: amount}, list, nil
}

func nodes() (list *node) {
	for range amount / nodeSize {
		list = &node{next: list}
	}
	return list
}
