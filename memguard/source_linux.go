// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// readAt is one pread at offset 0: files of /proc give all they have.
func readAt(f *os.File, b []byte) (int, error) {
	for {
		n, err := syscall.Pread(int(f.Fd()), b, 0)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// gone reports whether err is how /proc says that a process has ended.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}
