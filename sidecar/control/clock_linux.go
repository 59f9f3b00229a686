// SPDX-License-Identifier: Apache-2.0

package control

import (
	"time"

	"golang.org/x/sys/unix"
)

// steady is the time since the machine's start by the clock that nobody sets, not
// counting suspension (clock_gettime(2), CLOCK_MONOTONIC). Go's own monotonic times are
// of this clock too, here and in the service's guard, but begin anew with each process.
// 0 is unknown.
func steady() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
