// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command holdold holds live heap and as much memory that it has mapped by
// itself, and says on a line how much each is in bytes. It needs nothing but the
// standard library as it was in Go 1.16, so that old toolchains can build it: what their
// programs look like is seen from outside.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
)

func main() {
	const amount = 100 << 20
	b, err := syscall.Mmap(-1, 0, amount, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		fmt.Fprintln(os.Stderr, "holdold:", err)
		os.Exit(1)
	}
	touch(b)
	blocks := make([][]byte, amount/(16<<10))
	for i := range blocks {
		blocks[i] = make([]byte, 16<<10)
		touch(blocks[i])
	}
	runtime.GC()
	fmt.Println(amount)
	io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(blocks)
}

func touch(b []byte) {
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
}
