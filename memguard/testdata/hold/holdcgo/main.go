// SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

// Command holdcgo holds memory in one known state, most of it C's. See package
// held.
package main

import (
	"runtime"

	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// amount is what every case holds, or nearly.
const amount = 200 * held.MiB

func main() {
	runtime.LockOSThread() // the main thread's memory comes from the program break
	held.Main(map[string]held.Case{
		"c-arenas":    arenas,
		"c-big-arena": bigArena,
		"c-freed":     freed,
		"c-brk":       programBreak,
		"c-mmap":      bigBlocks,
		"c-stacks":    threadStacks,
		"c-and-go":    both,
	})
}
