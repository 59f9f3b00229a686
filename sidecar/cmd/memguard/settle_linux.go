// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"runtime/debug"
	"time"

	"github.com/memguard/memguard-go/scavenge/smaps"
	"golang.org/x/sys/unix"
)

// settleAfter is when what only starting needed is behind.
const settleAfter = 10 * time.Second

// settle gives back, once, what starting took and nobody needs any more: the heap's
// free pages, and the mapping of the executable's own pages, three quarters of the
// sidecar's resident memory. Those stay in the kernel's page cache, and what is
// needed again comes back with a minor fault. The kernel does the same at the first
// sign of pressure; until then a sidecar would show, and be sized by, twice what it
// uses.
func settle(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(settleAfter):
	}
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for r := smaps.NewReader(f); r.Scan(); {
		if m := r.Mapping(); m.Path == exe && pristine(m) {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(m.Start), uintptr(m.Len()), unix.MADV_DONTNEED) // an advice: nothing is lost without
		}
	}
}

// pristine reports whether every page of a mapping is as it is in the file: it cannot
// be written to, and none was replaced by a copy, as a dynamic linker's relocations
// and a debugger's breakpoints are.
func pristine(m *smaps.Mapping) bool {
	anonymous, ok := m.Bytes(smaps.Anonymous)
	swapped, known := m.Bytes(smaps.Swap) // such a copy, too
	return ok && known && anonymous == 0 && swapped == 0 && m.Perms&smaps.PermWrite == 0
}
