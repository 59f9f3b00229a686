// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// peer is who is at the other end of a socket.
type peer struct{ pid, uid int }

func (p peer) String() string { return fmt.Sprintf("uid %d, pid %d", p.uid, p.pid) }

type peerKey struct{}

// mostLeaving is how many who may not come are told so at once. The others are
// hung up on.
const mostLeaving = 16

// listener lets in who may come, and no more than there is room for.
type listener struct {
	inner   *net.UnixListener
	log     *slog.Logger
	open    atomic.Int64 // connections
	leaving atomic.Int64 // that are told why not
}

// conn is a connection of somebody who may come.
type conn struct {
	net.Conn
	peer  peer
	leave func()
}

func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// Accept waits for a connection of the service's own user, or of root.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.inner.AcceptUnix()
		if err != nil {
			return nil, err
		}
		who, err := peerOf(c)
		switch {
		case err != nil:
			l.log.Warn("memguard: agent: a connection is refused: who it is cannot be told", slog.Any("error", err))
			c.Close()
		case who.uid != os.Geteuid() && who.uid != 0:
			l.log.Warn("memguard: agent: a connection is refused: it is of another user", slog.Int("uid", who.uid), slog.Int("pid", who.pid))
			l.turnAway(c, http.StatusForbidden, refusal{
				Code: codeForbidden, Error: fmt.Sprintf("user %d may not ask", who.uid), Do: fmt.Sprintf("ask as user %d or as root", os.Geteuid()),
			})
		case l.open.Load() >= mostConnections:
			l.turnAway(c, http.StatusServiceUnavailable, tooMany)
		default:
			l.open.Add(1)
			return &conn{Conn: c, peer: who, leave: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
		}
	}
}

func (l *listener) Close() error   { return l.inner.Close() }
func (l *listener) Addr() net.Addr { return l.inner.Addr() }

// turnAway says why and hangs up. The answer comes after the request: before, it
// would be none, and who is hung up on while asking does not look for one.
func (l *listener) turnAway(c *net.UnixConn, status int, why refusal) {
	if l.leaving.Add(1) > mostLeaving {
		l.leaving.Add(-1)
		c.Close()
		return
	}
	go func() {
		defer l.leaving.Add(-1)
		defer c.Close()
		body := encode(answer{refusal: why})
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Read(make([]byte, mostHeader))
		_, _ = c.Write(append([]byte("HTTP/1.1 "+strconv.Itoa(status)+" "+http.StatusText(status)+
			"\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"), body...))
		_ = c.CloseWrite()
		_, _ = io.CopyN(io.Discard, c, mostHeader) // closing with something unread would take the answer back
	}()
}
