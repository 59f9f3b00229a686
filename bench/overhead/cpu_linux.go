// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// cpuOf is the user and system time of all threads of a process, those that have
// ended too. It is exact to the nanosecond, where /proc/PID/stat has ticks of 10 ms.
// The clock's number is made as by clock_getcpuclockid(3).
func cpuOf(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED of linux/posix-timers_types.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|sched, &t); err != nil {
		return 0, fmt.Errorf("the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}
