// SPDX-License-Identifier: Apache-2.0

//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package ondisk

import (
	"errors"
	"io"
	"os"
)

// Lock opens a file and locks nothing: the error is errors.ErrUnsupported then, and
// the Closer is to be used all the same by who can do without a lock.
func Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return f, errors.ErrUnsupported
}

// SyncDir does nothing: a directory cannot be synced here.
func SyncDir(string) error { return nil }
