// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// owner is the user that a file belongs to.
func owner(name string) (uint64, bool) {
	fi, err := os.Stat(name)
	if err != nil {
		return 0, false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return uint64(st.Uid), true
}

// monotonic is the clock by which the runtime notes when goroutines began to
// wait, in nanoseconds; 0 if it cannot be read. It is the same in all processes of
// a time namespace.
func monotonic() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return ts.Nano()
}
