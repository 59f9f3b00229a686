// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// In an overload the connections fill the memory before any handler runs: each
// has a goroutine with 8 KiB of stack, two buffers of 4 KiB, its request and the
// kernel's socket. They are counted as work is, and bounded where the model binds:
// to a part of the room, or to what work was not seen to need.
//
// What is too much is accepted and closed at once, with a reset. Not to accept
// (as netutil.LimitListener) costs the server nothing, but then a connection
// waits in the kernel's backlog behind thousands of others, whose clients may
// have given up, and when that is full SYNs are dropped, and sent again after a
// second. To answer 503 would need to read the request first, and to know that it
// is HTTP and not TLS.

const (
	connectionsLeast = 16      // always let in
	connectionShare  = 1. / 16 // of the room, if work needs all of it
	connectionAll    = 0.95    // of the room, if work needs none
	quietAfter       = time.Second
	quietTries       = 16 // connections that are looked at to find a quiet one
)

// connect takes a connection in, or says that there is no room for one.
func (c *core) connect(now time.Duration) bool {
	if c.crowded(now, 1) {
		return false
	}
	c.connections++
	return true
}

// crowded reports whether connections, with so many more, hold more than is theirs.
// Those on which work is in flight were let in with it: a route that leaks would
// otherwise close the door to all others. Work may come to need twice what it was
// seen to hold.
func (c *core) crowded(now time.Duration, more int) bool {
	if !c.bounded(now) || !c.near || c.connections < connectionsLeast {
		return false
	}
	room := c.room()
	waiting := c.connections - min(c.inFlight, c.connections)
	return float64(waiting+more)*c.connection > max(room*connectionShare, room*connectionAll-2*c.peak)
}

// Listener bounds the connections of a listener by the memory that they hold. Far
// from the limit it bounds nothing. Near to it, a connection for which there is no
// room takes the place of one that has been quiet for a second, without a request
// that its handler is still at work on; if none is found, it is closed at once.
//
// A connection that has sent something counts as one whose request is under way until
// the server has written: give it a ReadHeaderTimeout of a few seconds, for half a
// request would hold its place for ever.
//
// It works for anything that reads and writes: HTTP/1, HTTP/2, TLS around it. A
// connection on which the server only sends now and then (server-sent events,
// WebSocket) looks quiet.
func (l *Limiter) Listener(inner net.Listener) net.Listener { return &listener{Listener: inner, l: l} }

type listener struct {
	net.Listener
	l *Limiter
}

// Accept waits for a connection for which there is room.
func (n *listener) Accept() (net.Conn, error) {
	for {
		inner, err := n.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := n.l.connect(inner); c != nil {
			return c, nil
		}
		if tcp, ok := inner.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset leaves nothing behind in the kernel
		}
		_ = inner.Close()
	}
}

// connect returns nil if there is no room for the connection.
func (l *Limiter) connect(inner net.Conn) net.Conn {
	now := l.now()
	l.clock.Store(int64(now))
	c := &conn{Conn: inner, l: l}
	c.wrote()
	l.mu.Lock()
	l.lookLocked(now)
	ok := l.core.connect(now)
	var quiet *conn
	if !ok {
		if quiet = l.quiet(now); quiet != nil {
			l.forget(quiet)
			l.refused.closed++
			ok = l.core.connect(now)
		}
	}
	if ok {
		l.conns[c] = struct{}{}
	} else {
		l.refused.connections++
	}
	l.mu.Unlock()
	if quiet != nil {
		_ = quiet.Conn.Close()
	}
	if !ok {
		return nil
	}
	if tcp, isTCP := inner.(*net.TCPConn); isTCP {
		return &tcpConn{c, tcp}
	}
	return c
}

// quiet finds a connection that has waited for its peer for some time.
func (l *Limiter) quiet(now time.Duration) *conn {
	var found *conn
	least, tries := now-quietAfter, quietTries
	for c := range l.conns { // begins anywhere
		if since := time.Duration(c.since.Load()); since <= least {
			found, least = c, since
		}
		if tries--; tries == 0 {
			break
		}
	}
	return found
}

func (l *Limiter) forget(c *conn) {
	if _, ok := l.conns[c]; ok {
		delete(l.conns, c)
		l.core.connections--
	}
}

// conn is a connection that was let in.
type conn struct {
	net.Conn
	l     *Limiter
	once  sync.Once
	since atomic.Int64 // by Limiter.clock, when it became quiet; asked if it is not
}

// asked is that something was read since the last write: the handler has not answered.
const asked = math.MaxInt64

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.since.Load() != asked {
		c.since.Store(asked)
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.wrote()
	return n, err
}

func (c *conn) wrote() { c.since.Store(c.l.clock.Load()) }

func (c *conn) Close() error {
	c.once.Do(func() {
		c.l.mu.Lock()
		defer c.l.mu.Unlock()
		c.l.forget(c)
	})
	return c.Conn.Close()
}

// tcpConn has what net/http looks for in a *net.TCPConn: sendfile, and closing one
// direction before the other.
type tcpConn struct {
	*conn
	tcp *net.TCPConn
}

func (c *tcpConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.tcp.ReadFrom(r)
	c.wrote()
	return n, err
}

func (c *tcpConn) CloseWrite() error { return c.tcp.CloseWrite() }
