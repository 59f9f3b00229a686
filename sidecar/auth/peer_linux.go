// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

func callerOf(c *net.UnixConn) (Caller, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *unix.Ucred
	var errno error
	if err := raw.Control(func(fd uintptr) {
		cred, errno = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Caller{}, err
	}
	if errno != nil {
		return Caller{}, os.NewSyscallError("getsockopt SO_PEERCRED", errno)
	}
	return Caller{UID: int(cred.Uid), PID: int(cred.Pid)}, nil
}

// peersUnsupported says why peers cannot be configured: they can.
var peersUnsupported error
