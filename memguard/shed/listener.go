// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"io"
	"math"
	"net"
	"net/http"
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
// An [http.Server] knows which of its connections have a request under way: set its
// ConnState to [Limiter.ConnState]. Of others, and without that, a connection has one
// from what it sends until the server has answered anything. That is wrong of two
// requests at a time (HTTP/2) and of an answer in pieces (a Flush, server-sent events),
// which may be cut off after a second; and half a request holds its place for ever.
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
	c.answered()
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

// ConnState tells of the connections of an [http.Server] which have a request under
// way, in HTTP/2 too: those are not closed for new ones. It is for the server's field of
// that name, and does nothing with connections that are not from [Limiter.Listener]. A
// hijacked connection (WebSocket) has a request under way until it is closed.
func (l *Limiter) ConnState(nc net.Conn, state http.ConnState) {
	for {
		switch c := nc.(type) {
		case interface{ is(http.ConnState) }: // ours
			c.is(state)
			return
		case interface{ NetConn() net.Conn }: // crypto/tls
			nc = c.NetConn()
		default:
			return
		}
	}
}

// conn is a connection that was let in.
type conn struct {
	net.Conn
	l     *Limiter
	once  sync.Once
	told  atomic.Bool  // since is known by ConnState, and not by what is read and written
	since atomic.Int64 // by Limiter.clock, when it became quiet; busy if it is not
}

// busy is that a request is under way.
const busy = math.MaxInt64

func (c *conn) is(state http.ConnState) {
	c.told.Store(true) // before anybody reads, for the server tells of a new one first
	if state == http.StateNew || state == http.StateIdle {
		c.since.Store(c.l.clock.Load())
	} else {
		c.since.Store(busy)
	}
}

// asks is that something is on its way, or was read: the handler has not answered.
func (c *conn) asks() {
	if !c.told.Load() && c.since.Load() != busy {
		c.since.Store(busy)
	}
}

func (c *conn) answered() {
	if !c.told.Load() {
		c.since.Store(c.l.clock.Load())
	}
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.asks()
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	c.asks() // to a slow peer it takes long
	n, err := c.Conn.Write(p)
	c.answered()
	return n, err
}

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
	c.asks()
	n, err := c.tcp.ReadFrom(r)
	c.answered()
	return n, err
}

func (c *tcpConn) CloseWrite() error { return c.tcp.CloseWrite() }
