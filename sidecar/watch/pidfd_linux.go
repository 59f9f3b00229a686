// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// openPidfd opens a descriptor of a process, which becomes readable when it has
// ended (pidfd_open(2), Linux 5.3). It does not block: the runtime waits for it.
func openPidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd:"+strconv.Itoa(pid)), nil
}

// awaitPidfd waits until the process has ended, or the file is closed.
func awaitPidfd(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return c.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err != nil && err != unix.EINTR || n > 0
	})
}

// pidfdStatus is how the process ended, once its parent has asked: the kernel keeps
// it for who has a descriptor, whatever their rights (PIDFD_GET_INFO with
// PIDFD_INFO_EXIT, Linux 6.15; fs/pidfs.c).
func pidfdStatus(f *os.File) (status syscall.WaitStatus, ok bool) {
	if f == nil {
		return 0, false
	}
	c, err := f.SyscallConn()
	if err != nil {
		return 0, false
	}
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err2 := c.Control(func(fd uintptr) { err = unix.IoctlPidfdInfo(int(fd), &info) }); err2 != nil || err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return syscall.WaitStatus(info.Exit_code), true
}

// program is what a process runs: the file, not its name.
type program struct{ dev, inode uint64 }

// programOf looks at /proc/PID/exe, through which the kernel gives the file itself.
func programOf(pid int) (program, bool) {
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(pid)+"/exe", &st) != nil {
		return program{}, false
	}
	return program{uint64(st.Dev), st.Ino}, true
}
