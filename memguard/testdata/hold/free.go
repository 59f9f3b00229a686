// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"runtime"
	"runtime/debug"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// free: idle heap after a spike. The scavenger passes over memory that was in
// dense use until the second cycle after it (mgcscavenge.go,
// scavChunkHiOccFrac), and with GC off no second cycle comes.
func free() (held.Holds, any, error) {
	debug.SetGCPercent(-1)
	spike := make([][]byte, amount/(64<<10))
	for i := range spike {
		spike[i] = make([]byte, 64<<10)
		touch(spike[i])
	}
	clear(spike)
	runtime.GC()
	return held.Holds{memguard.RowFree: amount}, nil, nil
}

// touch makes every page of b resident and its own.
func touch(b []byte) {
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
}
