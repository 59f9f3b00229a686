// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin

package control

import (
	"os"
	"syscall"
)

// lock holds a file for this process alone; the kernel lets go of it when the
// process ends, however it does (flock(2)).
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// syncDir brings the names in a directory to disk.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
