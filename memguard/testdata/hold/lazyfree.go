// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"os"
	"runtime/debug"
	"strings"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// lazyFree: heap that was given back with MADV_FREE, the default of Go 1.12 to
// 1.15. It stays resident until the kernel is short of memory.
func lazyFree() (held.Holds, any, error) {
	if !strings.Contains(os.Getenv("GODEBUG"), "madvdontneed=0") { // read at start only
		return nil, nil, errors.New("needs GODEBUG=madvdontneed=0")
	}
	spike := make([][]byte, amount/(64<<10))
	for i := range spike {
		spike[i] = make([]byte, 64<<10)
		touch(spike[i])
	}
	clear(spike)
	debug.FreeOSMemory()
	return held.Holds{memguard.RowLazyFree: amount, memguard.RowProcesses: amount}, nil, nil
}
