// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd || netbsd || openbsd

package ondisk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Lock makes a file, if it is not there, and takes the lock on it, which the kernel
// lets go when the process ends, however it does (flock(2)). The error wraps ErrHeld
// while another process has it. Where files cannot be locked, the error is
// errors.ErrUnsupported, and the Closer is to be used all the same by who can do
// without a lock.
func Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = fmt.Errorf("%s: %w", path, ErrHeld)
		}
		return nil, errors.Join(err, f.Close())
	}
	return locked{f}, nil
}

type locked struct{ f *os.File }

// Close unlocks first: the lock belongs to the open file, which a child that has been
// forked and has not called exec yet still has.
func (l locked) Close() error {
	return errors.Join(syscall.Flock(int(l.f.Fd()), syscall.LOCK_UN), l.f.Close())
}

// SyncDir makes what was created and renamed in a directory last (fsync(2)).
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
