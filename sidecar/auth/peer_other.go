// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package auth

import (
	"errors"
	"net"
	"runtime"
)

// peersUnsupported says why peers cannot be configured.
var peersUnsupported = errors.New("auth: peers: on " + runtime.GOOS + " it cannot be told who is at the other end of a unix socket")

func callerOf(*net.UnixConn) (Caller, error) { return Caller{}, peersUnsupported }
