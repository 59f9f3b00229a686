// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// hasLabels reports whether the process's label file has all of them.
func hasLabels(pid int, want *Label) (bool, error) {
	text, err := within(func() (string, error) { return readInRoot(pid, want.File) })
	if err != nil {
		return false, err
	}
	labels, err := parseLabels(text)
	for k, v := range want.Match {
		if got, ok := labels[k]; !ok || got != v {
			if err != nil {
				return false, fmt.Errorf("%s: %w", want.File, err)
			}
			return false, nil
		}
	}
	return true, nil
}

// readInRoot reads a file as the process sees it. Links of its making are followed
// inside its root only (openat2(2), RESOLVE_IN_ROOT), and never into what /proc
// links to.
func readInRoot(pid int, name string) (string, error) {
	root, err := unix.Open(procPath(pid, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: procPath(pid, "root"), Err: err}
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case err == unix.ENOSYS || err == unix.EPERM:
		return "", errors.New("openat2(2) is not to be had (Linux 5.6; seccomp): its links cannot be followed safely")
	case err == unix.ELOOP:
		return "", fmt.Errorf("%s: a loop of links, or one that leads into /proc", name)
	case err != nil:
		return "", &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return "", err
	} else if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxLabels+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxLabels {
		return "", fmt.Errorf("%s has more than %d KiB", name, maxLabels>>10)
	}
	return string(b), nil
}
