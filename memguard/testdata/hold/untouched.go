// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"runtime"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// untouched: a ballast. It is live heap to the runtime and nothing to the
// kernel, since nobody ever wrote to it.
func untouched() (held.Holds, any, error) {
	ballast := make([]byte, amount)
	runtime.GC()
	return held.Holds{
		memguard.RowLive:      amount,
		memguard.RowUntouched: -amount,
	}, ballast, nil
}
