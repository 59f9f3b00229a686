// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// memfd: shared memory without a name in any file system.
func memfd() (held.Holds, any, error) {
	fd, err := unix.MemfdCreate("hold", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, err
	}
	return share(os.NewFile(uintptr(fd), "memfd"))
}

// devShm: POSIX shared memory (shm_open(3)), its name removed at once.
func devShm() (held.Holds, any, error) {
	f, err := os.CreateTemp("/dev/shm", "memguard-hold-*")
	if err != nil {
		return nil, nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, nil, err
	}
	return share(f)
}

func share(f *os.File) (held.Holds, any, error) {
	defer f.Close()
	if err := f.Truncate(amount); err != nil {
		return nil, nil, err
	}
	return shared(int(f.Fd()), unix.MAP_SHARED)
}

// sharedAnon: memory to be shared with children that are forked.
func sharedAnon() (held.Holds, any, error) {
	return shared(-1, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
}

func shared(fd, flags int) (held.Holds, any, error) {
	b, err := unix.Mmap(fd, 0, amount, readWrite, flags)
	if err != nil {
		return nil, nil, err
	}
	touch(b)
	return held.Holds{memguard.RowShmem: amount}, b, nil
}
