// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
	"github.com/memguard/memguard-go/scavenge/smaps"
)

// hugePage is the size of a transparent huge page with 4 KiB pages.
const hugePage = 2 << 20

// thp: live heap in huge pages, as everywhere on a machine where they are
// "always" on. Only this piece of the heap is advised to have them; nothing of
// the machine is changed.
func thp() (held.Holds, any, error) {
	b, err := huge(make([]byte, amount+hugePage))
	if err != nil {
		return nil, nil, err
	}
	runtime.GC()
	return held.Holds{memguard.RowLive: amount}, b, nil
}

// thpRefill: heap was given back all around what survives, and then the kernel
// made huge pages of the rest, gaps and all. khugepaged does that in the
// background within minutes (its max_ptes_none of 511 lets it); MADV_COLLAPSE
// does it now.
func thpRefill() (held.Holds, any, error) {
	const block = 64 << 10
	debug.SetGCPercent(-1) // one cycle, when they are dropped
	blocks := make([][]byte, amount/block)
	for i := range blocks {
		blocks[i] = make([]byte, block)
		touch(blocks[i])
	}
	window := func(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) / hugePage }
	survivors := map[uintptr][]byte{}
	for _, b := range blocks {
		if w := window(b); survivors[w] == nil {
			survivors[w] = b
		}
	}
	clear(blocks)
	debug.FreeOSMemory()
	var refilled int64
	for _, b := range survivors {
		start := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) % hugePage)
		page := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), start)), hugePage)
		if err := collapse(page); err != nil {
			return nil, nil, err
		}
		refilled += hugePage - block
	}
	return held.Holds{memguard.RowRefill: refilled}, survivors, nil
}

// collapse makes one huge page of what is resident of b and of new zeroed pages.
func collapse(b []byte) error {
	err := unix.EAGAIN // somebody else looks at one of the pages just now
	for try := 0; try < 1000 && err == unix.EAGAIN; try++ {
		err, _ = unix.Madvise(b, unix.MADV_COLLAPSE).(unix.Errno)
	}
	switch err {
	case 0:
		return nil
	case unix.EINVAL:
		return fmt.Errorf("madvise(MADV_COLLAPSE), since Linux 6.1: %w: %w", err, errors.ErrUnsupported)
	}
	return fmt.Errorf("madvise(MADV_COLLAPSE): %w", err)
}

// thpSplit: a large part of huge pages has been given back. The kernel unmaps it
// at once, and frees nothing until it is short of memory and splits them: the
// cgroup stays charged for what no process has.
func thpSplit() (held.Holds, any, error) {
	const block = 64 << 10
	b, err := unix.Mmap(-1, 0, amount+hugePage, readWrite, private)
	if err != nil {
		return nil, nil, err
	}
	if b, err = huge(b); err != nil {
		return nil, nil, err
	}
	for i := 0; i < len(b); i += hugePage {
		if err := unix.Madvise(b[i+block:i+hugePage], unix.MADV_DONTNEED); err != nil {
			return nil, nil, err
		}
	}
	return held.Holds{
		memguard.RowAnon:          amount / hugePage * block,
		memguard.RowProcesses:     amount / hugePage * block,
		memguard.RowDeferredSplit: amount / hugePage * (hugePage - block),
	}, b, nil
}

// huge returns the part of b that begins on a huge page and is a page shorter,
// once the kernel has backed it with huge pages.
func huge(b []byte) ([]byte, error) {
	b = b[hugePage-uintptr(unsafe.Pointer(unsafe.SliceData(b)))%hugePage:][:len(b)-hugePage]
	if err := unix.Madvise(b, unix.MADV_HUGEPAGE); err != nil {
		return nil, fmt.Errorf("madvise(MADV_HUGEPAGE): %w: %w", err, errors.ErrUnsupported)
	}
	touch(b)
	rollup, err := smaps.ReadRollup("/proc", os.Getpid())
	if n, ok := rollup.Bytes(smaps.AnonHugePages); err != nil || !ok || n < uint64(len(b))/10*9 {
		return nil, fmt.Errorf("the kernel gave %d bytes of huge pages: switched off, or memory is fragmented (%v): %w", n, err, errors.ErrUnsupported)
	}
	return b, nil
}
