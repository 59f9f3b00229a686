// SPDX-License-Identifier: Apache-2.0

package watch

import "golang.org/x/sys/unix"

// cgroupDir is the directory of a cgroup, open. Its files are read with plain
// calls: package os would have the poller watch each of them.
type cgroupDir int

func openCgroup(name string) (cgroupDir, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return cgroupDir(fd), err
}

func (d cgroupDir) read(name string, b []byte) (int, error) {
	fd, err := unix.Openat(int(d), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.Pread(fd, b, 0)
}

func (d cgroupDir) close() { _ = unix.Close(int(d)) }
