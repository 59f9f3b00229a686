// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

const (
	readWrite = unix.PROT_READ | unix.PROT_WRITE
	private   = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
)

// anon: the program maps memory by itself, past the runtime, as databases do
// for their block cache. To the kernel it looks like the runtime's own tables.
func anon() (held.Holds, any, error) {
	b, err := unix.Mmap(-1, 0, amount, readWrite, private)
	if err != nil {
		return nil, nil, err
	}
	touch(b)
	return held.Holds{memguard.RowAnon: amount}, b, nil
}

// anonMany: the same in pieces of 1 MiB with a gap between two of them, which
// keeps the kernel from making them one mapping.
func anonMany() (held.Holds, any, error) {
	const piece, gap = 1 << 20, 4096
	const size = amount / piece * (gap + piece)
	p, err := unix.MmapPtr(-1, 0, nil, size, readWrite, private)
	if err != nil {
		return nil, nil, err
	}
	for at := 0; at < size; at += gap + piece {
		if err := unix.MunmapPtr(unsafe.Add(p, at), gap); err != nil {
			return nil, nil, err
		}
		touch(unsafe.Slice((*byte)(unsafe.Add(p, at+gap)), piece))
	}
	return held.Holds{memguard.RowAnon: amount}, nil, nil
}

// anonAligned: the program's own mapping has the shape of the heap's: it begins
// and ends on multiples of 64 MiB, at an address where the runtime might have
// put an arena. Only who knows the address of a heap object can tell them apart.
func anonAligned() (held.Holds, any, error) {
	const arena, size = 64 << 20, 192 << 20
	for at := uintptr(0x100_0000_0000); at < 0x7000_0000_0000; at += 0x100_0000_0000 {
		p, err := unix.MmapPtr(-1, 0, unsafe.Add(nil, at), size, readWrite, private|unix.MAP_FIXED_NOREPLACE)
		if err == nil && uintptr(p)%arena == 0 {
			b := unsafe.Slice((*byte)(p), size)
			touch(b)
			return held.Holds{memguard.RowAnon: size}, b, nil
		}
	}
	return nil, nil, fmt.Errorf("no free address of %d bytes on a multiple of %d", size, arena)
}
