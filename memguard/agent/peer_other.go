// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package agent

import (
	"errors"
	"io/fs"
	"net"
	"runtime"
)

// unsupported says why: an agent that cannot tell who connects does not listen, and a
// client that cannot tell who answers does not ask.
var unsupported = errors.New("on " + runtime.GOOS + " it cannot be told who is at the other end of a socket: there is no agent")

func peerOf(*net.UnixConn) (peer, error)     { return peer{}, unsupported }
func owner(fs.FileInfo) (uid int, err error) { return 0, unsupported }
func dead(int) bool                          { return false }
func answers(string) bool                    { return true }
func sockets(int) ([]string, error)          { return nil, unsupported }
func gone(int) bool                          { return false }
