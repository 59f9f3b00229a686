// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"math/bits"
	"runtime"
	"runtime/debug"
	"sync"
	"unsafe"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// stacks: 10,000 goroutines are parked deep in a recursion. Each uses nearly
// all of a stack of 32 KiB: the sizes of stacks are powers of two.
func stacks() (held.Holds, any, error) {
	const goroutines = 10_000
	debug.SetGCPercent(-1) // a cycle while they start would change the size that stacks start with
	used := make([]uintptr, goroutines)
	var parked sync.WaitGroup
	parked.Add(goroutines)
	never := make(chan struct{})
	for i := range used {
		go func() {
			var top byte
			descend(&top, func(n uintptr) {
				used[i] = n
				parked.Done()
				<-never
			})
		}()
	}
	parked.Wait()
	runtime.GC()
	var sum int64
	for _, n := range used {
		sum += 1 << bits.Len64(uint64(n))
	}
	return held.Holds{memguard.RowStacks: sum}, never, nil
}

// descend calls itself until 28 KiB of stack lie between top and its frame, then
// calls bottom. Both ends move along when the stack is copied, since top is a
// pointer.
//
//go:noinline
func descend(top *byte, bottom func(used uintptr)) byte {
	var frame [512]byte
	frame[0] = *top
	if n := uintptr(unsafe.Pointer(top)) - uintptr(unsafe.Pointer(&frame)); n >= 28<<10 {
		bottom(n)
		return frame[len(frame)-1]
	}
	return frame[0] + descend(top, bottom)
}
