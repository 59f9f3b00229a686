// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const hugePage = 2 * mib // of amd64, and of arm64 with pages of 4 KiB

func measureAdvice() (f adviceFigures, err error) {
	f.Mapped = 64 * mib
	before, err := readResident()
	if err != nil {
		return f, err
	}
	mapping, err := unix.Mmap(-1, 0, int(f.Mapped)+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return f, fmt.Errorf("mmap: %w", err)
	}
	aligned := mapping[hugePage-int(uintptr(unsafe.Pointer(&mapping[0]))%hugePage):][:f.Mapped]
	if err := unix.Madvise(aligned, unix.MADV_HUGEPAGE); err != nil {
		return f, fmt.Errorf("%w: madvise(MADV_HUGEPAGE): %w", errNotHere, err)
	}
	for at := 0; at < len(aligned); at += os.Getpagesize() {
		aligned[at] = 1
	}
	since := func() (resident, error) {
		now, err := readResident()
		return resident{
			RSS:      now.RSS - min(now.RSS, before.RSS),
			LazyFree: now.LazyFree - min(now.LazyFree, before.LazyFree),
			Huge:     now.Huge - min(now.Huge, before.Huge),
			Virtual:  now.Virtual - min(now.Virtual, before.Virtual),
		}, err
	}
	var errs [4]error
	f.Touched, errs[0] = since()
	if err := unix.Madvise(aligned, unix.MADV_FREE); err != nil {
		return f, fmt.Errorf("madvise(MADV_FREE): %w", err)
	}
	f.Free, errs[1] = since()
	if err := unix.Madvise(aligned, unix.MADV_DONTNEED); err != nil {
		return f, fmt.Errorf("madvise(MADV_DONTNEED): %w", err)
	}
	f.Gone, errs[2] = since()
	errs[3] = unix.Munmap(mapping)
	return f, errors.Join(errs[:]...)
}

func measureRefill() (f refillFigures, err error) {
	// One block of 64 KiB in each 2 MiB stays.
	all := blocks(96 * mib)
	r, err := readResident()
	if err != nil {
		return f, err
	}
	f.Full = r.RSS
	for i := range all {
		if i%32 != 0 {
			all[i] = nil
		}
	}
	debug.FreeOSMemory()
	debug.SetGCPercent(-1) // and nothing else changes
	if r, err = readResident(); err != nil {
		return f, err
	}
	f.Freed, f.Released = r.RSS, readHeap().Released

	// The heap is made of arenas of 64 MiB, aligned (runtime/malloc.go, heapArenaBytes).
	const arena = 64 * mib
	advised := map[uintptr]bool{}
	for i := 0; i < len(all); i += 32 {
		at := uintptr(unsafe.Pointer(&all[i][0])) &^ (arena - 1)
		if advised[at] {
			continue
		}
		advised[at] = true
		// ENOMEM is for the parts of the arena that are not mapped; the others are advised.
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, at, arena, unix.MADV_HUGEPAGE)
		if errno != 0 && errno != unix.ENOMEM {
			return f, fmt.Errorf("%w: madvise(MADV_HUGEPAGE): %w", errNotHere, errno)
		}
	}
	begin := time.Now()
	eventually(30*time.Second, func() bool {
		r, err = readResident()
		return err != nil || r.RSS > f.Freed+(f.Full-f.Freed)/2
	})
	f.Took, f.Refilled, f.Huge, f.Still = time.Since(begin).Seconds(), r.RSS, r.Huge, readHeap().Released
	runtime.KeepAlive(all)
	return f, err
}
