// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// fileShared: a data file is mapped and read, as by a database that leaves
// caching to the kernel. It is resident, and nobody's loss if it is dropped.
func fileShared() (held.Holds, any, error) {
	return mapFile(unix.PROT_READ, unix.MAP_SHARED, memguard.RowCacheInactive, read)
}

// filePrivate: the same with MAP_PRIVATE, which changes nothing for who only reads.
func filePrivate() (held.Holds, any, error) {
	return mapFile(readWrite, unix.MAP_PRIVATE, memguard.RowCacheInactive, read)
}

// fileDirty: MAP_PRIVATE, and written to. Every page is the process's own copy now,
// which the kernel cannot drop, and the original is in the page cache as well.
// The mapping is still the file's.
func fileDirty() (held.Holds, any, error) {
	holds, b, err := mapFile(readWrite, unix.MAP_PRIVATE, memguard.RowCacheInactive, func(b []byte) error {
		touch(b)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	holds[memguard.RowProcesses] = amount
	return holds, b, nil
}

// fileLocked: the file is locked into memory, as by a program that keeps itself from
// being swapped out (mlockall(2)). It is on no list that the kernel reclaims from.
func fileLocked() (held.Holds, any, error) {
	return mapFile(unix.PROT_READ, unix.MAP_SHARED, memguard.RowCacheLocked, func(b []byte) error {
		if err := unix.Mlock(b); err != nil { // RLIMIT_MEMLOCK
			return fmt.Errorf("mlock: %w: %w", err, errors.ErrUnsupported)
		}
		return nil
	})
}

// mapFile maps a file of the given amount, in the working directory, and uses it.
// The file has no blocks on disk, but its pages are page cache like any other.
func mapFile(prot, flags int, cache string, use func([]byte) error) (held.Holds, []byte, error) {
	f, err := os.CreateTemp(".", "hold-*")
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if err := f.Truncate(amount); err != nil {
		return nil, nil, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, amount, prot, flags)
	if err != nil {
		return nil, nil, err
	}
	if err := use(b); err != nil {
		return nil, nil, err
	}
	return held.Holds{memguard.RowFile: amount, cache: amount}, b, nil
}

// read makes every page of b resident.
func read(b []byte) error {
	for i := 0; i < len(b); i += 4096 {
		if b[i] != 0 {
			return fmt.Errorf("a new file has %d at %d", b[i], i)
		}
	}
	return nil
}
