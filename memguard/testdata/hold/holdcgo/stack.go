// SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

package main

import (
	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// #include "hold.h"
import "C"

// threadStacks: C threads have gone deep. A stack does not shrink when they
// come back.
func threadStacks() (held.Holds, any, error) {
	const threads, deep = 50, amount / 50
	if C.hold_in_threads(threads, C.work{stack: deep}) != 0 {
		return nil, nil, errNoMemory
	}
	return held.Holds{memguard.RowStacks: threads * deep}, nil, nil
}
