// SPDX-License-Identifier: Apache-2.0

// Package sandbox runs commands in a memory cgroup of their own, with a limit
// that the kernel enforces by killing.
//
//	s, err := sandbox.New("leak", 256<<20)
//	if errors.Is(err, sandbox.ErrUnsupported) { ... } // and err says why
//	defer s.Close()
//	err = s.Start(cmd)
//	...
//	kills, err := s.Kills()
//
// Close kills what is left inside and removes the group. A creator that was
// killed itself leaves the group behind; the next Sweep removes it.
package sandbox

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrUnsupported says that no memory cgroup may be made here; the error around
// it has what was tried and why it failed.
var ErrUnsupported = errors.New("no memory cgroup may be made here")

// prefix begins the directory names of all sandboxes.
const prefix = "memguard-"

// dirName returns the name of the n-th sandbox of the process pid.
func dirName(name string, pid int, n uint64) string {
	return fmt.Sprintf("%s%s-%d-%d", prefix, name, pid, n)
}

// checkName refuses names that would not be one element of a path.
func checkName(name string) error {
	ok := len(name) > 0 && len(name) <= 100
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return fmt.Errorf("name %q: want 1 to 100 of a-z, A-Z, 0-9, '-', '_' and '.'", name)
	}
	return nil
}

// maxLimit is far above any machine, and below what the kernel takes for "no
// limit".
const maxLimit = 1 << 60

func checkLimit(limit uint64) error {
	if limit == 0 || limit > maxLimit {
		return fmt.Errorf("limit of %d bytes: want 1 to %d", limit, uint64(maxLimit))
	}
	return nil
}

// creator returns the pid in a directory name made by dirName.
func creator(dir string) (pid int, ok bool) {
	rest, ok := strings.CutPrefix(dir, prefix)
	if !ok {
		return 0, false
	}
	f := strings.Split(rest, "-")
	if len(f) < 3 { // name, pid, number; the name may have dashes
		return 0, false
	}
	if _, err := strconv.ParseUint(f[len(f)-1], 10, 64); err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(f[len(f)-2])
	return pid, err == nil && pid > 0
}
