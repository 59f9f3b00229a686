// SPDX-License-Identifier: Apache-2.0

package brink

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ReapsAtOnce reports whether the kernel takes the memory of what it killed for lack of
// memory away at once, so that holding the exit does not save it. Since 5.18 it waits
// two seconds (mm/oom_kill.c, OOM_REAPER_DELAY). It is false where that is unknown.
func ReapsAtOnce() bool {
	var u unix.Utsname
	return unix.Uname(&u) == nil && reapsAtOnce(unix.ByteSliceToString(u.Release[:]))
}

func reapsAtOnce(release string) bool {
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	return err == nil && err2 == nil && (a < 5 || a == 5 && b < 18)
}
