// SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

package main

import (
	"errors"
	"runtime"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// #include "hold.h"
// #cgo LDFLAGS: -pthread
import "C"

// small is a piece below glibc's first threshold for mapping a block of its own
// (128 KiB).
const small = 64 << 10

var errNoMemory = errors.New("malloc: no memory")

// arenas: sixteen threads allocate at the same time, each from an arena of its own.
func arenas() (held.Holds, any, error) {
	const threads = 16
	if C.hold_in_threads(threads, C.work{bytes: amount / threads, piece: small, keep: 1}) != 0 {
		return nil, nil, errNoMemory
	}
	return held.Holds{memguard.RowLibc: amount}, nil, nil
}

// bigArena: one thread has it all, so that its arena takes several heaps of 64 MiB.
func bigArena() (held.Holds, any, error) {
	if C.hold_in_threads(1, C.work{bytes: amount, piece: small, keep: 1}) != 0 {
		return nil, nil, errNoMemory
	}
	return held.Holds{memguard.RowLibc: amount}, nil, nil
}

// freed: all but one of 50 small pieces are freed again, and malloc keeps the
// pages: only what is free at an arena's end can be given back without malloc_trim(3).
func freed() (held.Holds, any, error) {
	const threads = 4
	if C.hold_in_threads(threads, C.work{bytes: amount / threads, piece: 2 << 10, keep: 50}) != 0 {
		return nil, nil, errNoMemory
	}
	return held.Holds{memguard.RowLibc: amount}, nil, nil
}

// programBreak: the main thread's arena is the program break, "[heap]".
func programBreak() (held.Holds, any, error) {
	if C.hold_here(C.work{bytes: amount, piece: small, keep: 1}) != 0 {
		return nil, nil, errNoMemory
	}
	return held.Holds{memguard.RowLibc: amount}, nil, nil
}

// bigBlocks: blocks above the threshold are mappings of their own. Nothing
// tells them from the program's own mappings, except in a glibc that names them
// (2.39 with glibc.mem.decorate_maps=1).
func bigBlocks() (held.Holds, any, error) {
	if C.hold_here(C.work{bytes: amount, piece: 1 << 20, keep: 1}) != 0 {
		return nil, nil, errNoMemory
	}
	return held.Holds{memguard.RowAnon: amount}, nil, nil
}

// both: one half is in C's arenas and the other on the Go heap.
func both() (held.Holds, any, error) {
	const threads = 16
	if C.hold_in_threads(threads, C.work{bytes: amount / 2 / threads, piece: small, keep: 1}) != 0 {
		return nil, nil, errNoMemory
	}
	b := make([]byte, amount/2)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	runtime.GC()
	return held.Holds{memguard.RowLibc: amount / 2, memguard.RowLive: amount / 2}, b, nil
}
