// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package overhead

import (
	"errors"
	"time"
)

// cpuOf fails: without a memory cgroup there is nothing to measure.
func cpuOf(int) (time.Duration, error) { return 0, errors.New("the CPU time is read on Linux only") }
