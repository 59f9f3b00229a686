// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newForeign takes anonymous memory outside of Go's heap, writes to each page
// and keeps it: what malloc does in a C library. Huge pages are declined, so
// that the size is exact.
func newForeign(bytes uint64) error {
	const page = 4 * kib
	b, err := unix.Mmap(-1, 0, int((bytes+page-1)/page*page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("scenario: mmap %d bytes: %w", bytes, err)
	}
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: a kernel without huge pages
		return fmt.Errorf("scenario: madvise(MADV_NOHUGEPAGE): %w", err)
	}
	touch(b)
	return nil
}

// newShm is a file in /dev/shm that never has a name, so that nothing is left of
// it however the process ends.
func newShm() (*os.File, error) {
	return nameless("/dev/shm")
}

// nameless is a file in a directory that the kernel removes with its last
// descriptor (open(2), O_TMPFILE).
func nameless(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open with O_TMPFILE", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir+" (nameless)"), nil
}

// newLog is a nameless file on a disk: on a tmpfs its pages could not be dropped.
func newLog() (*os.File, error) {
	var errs []error
	for _, dir := range []string{os.TempDir(), "/var/tmp", "."} {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			errs = append(errs, &os.PathError{Op: "statfs", Path: dir, Err: err})
			continue
		}
		if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
			errs = append(errs, fmt.Errorf("%s is in memory", dir))
			continue
		}
		f, err := nameless(dir)
		if err == nil {
			return f, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("scenario: no disk for a log: %w", errors.Join(errs...))
}

// hugeBlock is block on transparent huge pages: it asks for them (madvise(2),
// MADV_HUGEPAGE) before the first write, as THP=always would do unasked. Where
// the kernel has none or never gives them, it is an ordinary block.
func hugeBlock(bytes uint64) []byte {
	b := make([]byte, bytes) // fresh from the kernel, not written to yet
	const huge = 2 * mib
	// The advice is for the huge page that the block lies in, even where it
	// reaches beyond it: Go's heap grows by more than that at a time.
	from := uintptr(unsafe.Pointer(unsafe.SliceData(b))) &^ (huge - 1)
	to := (uintptr(unsafe.Pointer(unsafe.SliceData(b))) + uintptr(bytes) + huge - 1) &^ (huge - 1)
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_HUGEPAGE)
	touch(b)
	return b
}
