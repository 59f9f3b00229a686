// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// unsupported is why there is no agent on this system: nothing.
var unsupported error

// peerOf asks the kernel who is at the other end (SO_PEERCRED, unix(7)): of an
// accepted connection who connected, of one that was dialled who listens. Both
// as of that moment, whoever has the socket now.
func peerOf(c *net.UnixConn) (peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var cred *syscall.Ucred
	var errno error
	if err := raw.Control(func(fd uintptr) {
		cred, errno = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return peer{}, err
	}
	if errno != nil {
		return peer{}, os.NewSyscallError("getsockopt SO_PEERCRED", errno)
	}
	return peer{pid: int(cred.Pid), uid: int(cred.Uid)}, nil
}

// owner is the user that a file belongs to.
func owner(st fs.FileInfo) (uid int, err error) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.New("its owner is not known")
	}
	return int(sys.Uid), nil
}

// dead reports whether no process has the pid.
func dead(pid int) bool { return pid > 0 && syscall.Kill(pid, 0) == syscall.ESRCH }

// answers reports whether somebody listens at a socket. It takes one to be
// there unless the kernel says that it is not.
func answers(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return true
	}
	return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}
