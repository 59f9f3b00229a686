// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"net"
)

// Caller is the process at the other end of a unix socket, as of the moment it
// connected.
type Caller struct {
	UID int
	PID int // 0: not visible in this pid namespace
}

type callerKey struct{}

// ConnContext is for http.Server.ConnContext: it asks the kernel who connected
// (SO_PEERCRED, unix(7)) and lets requests of that connection know. Of a connection that
// is not a unix socket's it says nothing.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	who, err := callerOf(u)
	if err != nil {
		return ctx // nobody is known by it, and nothing is allowed
	}
	return context.WithValue(ctx, callerKey{}, who)
}

// CallerOf returns who is at the other end of the request's unix socket; ok is false for
// other connections, and on systems that do not tell.
func CallerOf(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(Caller)
	return c, ok
}
