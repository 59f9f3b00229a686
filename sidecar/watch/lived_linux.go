// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"time"

	"golang.org/x/sys/unix"
)

// lived is how long ago a process began, by the clock of start times, which nobody sets
// (proc_pid_stat(5), starttime: in ticks of a hundredth of a second); 0 is unknown.
func lived(start uint64) time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	return max(time.Duration(now.Nano())-time.Duration(start)*(time.Second/100), 0)
}
