// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"syscall"
	"time"
)

// processCPU is the user and system time of all threads, those that have ended
// too. It is exact: the kernel counts nanoseconds and hands out microseconds,
// where /proc/PID/stat has ticks of 10 ms (getrusage(2), proc(5)).
func processCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
