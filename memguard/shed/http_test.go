// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// body fails the test when it is read.
type body struct{ t *testing.T }

func (b body) Read([]byte) (int, error) { b.t.Error("the body was read"); return 0, io.EOF }

func TestHandler(t *testing.T) {
	t.Parallel()
	l, leaves := full(t, Config{Wait: -1})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /items/{id}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.PathValue("id")) })
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("on purpose") })
	mux.HandleFunc("/tree/{x}/", func(http.ResponseWriter, *http.Request) {})
	h := l.Handler(mux)
	l.core.route("POST /items/{id}").cost = 10 * mib

	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/items/1", body{t}))
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	after, err := strconv.Atoi(w.Header().Get("Retry-After"))
	require.NoError(t, err)
	assert.True(t, 1 <= after && after <= 3)
	assert.Equal(t, refusedBody, w.Body.String())

	leaves[0]()
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/items/1", strings.NewReader("x")))
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Equal(t, "1", w.Body.String())
	assert.Panics(t, func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/panic", nil)) })
	assert.Equal(t, 8, l.core.inFlight, "a handler that panics has left")

	// What strangers ask for makes no routes.
	for i := range 100 {
		for _, path := range []string{"/nothing/", "/tree/", "//", "/tree/x/../"} {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path+strconv.Itoa(i), nil))
		}
	}
	var names []string
	for _, r := range l.Snapshot().Routes {
		names = append(names, r.Route)
	}
	assert.Equal(t, []string{otherName, "work", "POST /items/{id}", "/panic"}, names)
}

// The handler may stand inside the mux, and its caller may name the work.
func TestHandlerRoute(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "GET /a"},
		{Config{Work: func(r *http.Request) Work { return Work{Route: r.Method, Priority: High} }}, "GET"},
		{Config{Work: func(r *http.Request) Work { return Work{Priority: High} }}, "GET /a"},
	} {
		l := New(tt.cfg)
		mux := http.NewServeMux()
		mux.Handle("GET /a", l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/a", nil))
		routes := l.Snapshot().Routes
		require.Len(t, routes, 1)
		assert.Equal(t, tt.want, routes[0].Route)
	}
}

// A request whose context ends while it waits, by a timeout above or as the server
// ends, has not been answered by anybody: its client is not told 200.
func TestHandlerContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, _ := full(t, Config{Wait: time.Second})
		h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it runs") }))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
		r.Pattern = "work"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Error(t, ctx.Err())
		assert.Equal(t, http.StatusServiceUnavailable, w.Code)
		assert.NotEmpty(t, w.Header().Get("Retry-After"))
		time.Sleep(10 * time.Millisecond) // whoever tended the queue has gone
	})
}

func dial(t *testing.T, ln net.Listener) {
	t.Helper()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
}

// refused reports whether a new connection is closed by the other side.
func refused(t *testing.T, ln net.Listener) bool {
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return true
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err = c.Read(make([]byte, 1))
	var timeout net.Error
	return err != nil && !(errors.As(err, &timeout) && timeout.Timeout())
}

func TestListener(t *testing.T) {
	t.Parallel()
	l := New(Config{})
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ln := l.Listener(inner)
	defer ln.Close()
	accepted := make(chan net.Conn, 100)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	m := tight()
	l.Update(m)
	l.mu.Lock()
	l.core.connection, l.core.peak = 0.4*mib, 90*mib // room for 16
	l.mu.Unlock()
	var ours []net.Conn
	for range connectionsLeast {
		dial(t, ln)
		ours = append(ours, <-accepted)
	}
	assert.True(t, refused(t, ln), "one too many")
	s := l.Snapshot()
	assert.Equal(t, connectionsLeast, s.Connections)
	assert.EqualValues(t, 1, s.ConnectionsRefused)

	// A connection that has long been quiet makes room; one whose handler is at work does not.
	past := int64(l.now() - quietAfter)
	for _, c := range ours[1:] {
		c.(*tcpConn).since.Store(busy)
	}
	assert.True(t, refused(t, ln))
	ours[0].(*tcpConn).since.Store(past)
	dial(t, ln)
	<-accepted
	_, err = ours[0].Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	ours[0].Close()
	s = l.Snapshot()
	assert.Equal(t, connectionsLeast, s.Connections)
	assert.EqualValues(t, 1, s.ConnectionsClosed)

	ours[1].Close()
	ours[1].Close()
	assert.Equal(t, connectionsLeast-1, l.Snapshot().Connections)

	// Far from the limit there is no bound.
	m.Usage = 10 * mib
	l.Update(m)
	for range 50 {
		dial(t, ln)
		<-accepted
	}
}

// net/http finds in our connections what it looks for in a net.TCPConn.
func TestListenerServes(t *testing.T) {
	t.Parallel()
	l := New(Config{})
	s := httptest.NewUnstartedServer(l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, "http_test.go")
	})))
	s.Listener = l.Listener(s.Listener)
	s.Start()
	resp, err := http.Get(s.URL)
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	assert.Contains(t, string(text), "TestListenerServes")
	assert.Equal(t, 1, l.Snapshot().Connections)
	http.DefaultClient.CloseIdleConnections()
	s.Close()
	assert.Zero(t, l.Snapshot().Connections)
	var c net.Conn = &tcpConn{}
	assert.Implements(t, (*io.ReaderFrom)(nil), c)
	assert.Implements(t, (*interface{ CloseWrite() error })(nil), c)
}

// isQuiet reports whether an hour from now some connection may be closed for a new one.
func isQuiet(l *Limiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.quiet(l.now()+time.Hour) != nil
}

// A peer that reads slowly is at work, however long a write takes.
func TestListenerSlowPeer(t *testing.T) {
	t.Parallel()
	l := New(Config{})
	server, peer := net.Pipe()
	c := l.connect(server)
	assert.True(t, isQuiet(l), "it has said nothing")
	wrote := make(chan error)
	go func() {
		_, err := c.Write(make([]byte, 1000))
		wrote <- err
	}()
	_, err := io.ReadFull(peer, make([]byte, 1))
	require.NoError(t, err)
	assert.False(t, isQuiet(l), "a write is under way")
	_, err = io.ReadFull(peer, make([]byte, 999))
	require.NoError(t, err)
	require.NoError(t, <-wrote)
	assert.True(t, isQuiet(l))
}

// A server tells which connections have a request under way: one that was answered in
// part, and one of two on the same connection.
func TestConnState(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP2=%v", http2), func(t *testing.T) {
			t.Parallel()
			l := New(Config{})
			end := make(chan struct{})
			mux := http.NewServeMux()
			mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "begun ")
				_ = http.NewResponseController(w).Flush()
				<-end
				_, _ = io.WriteString(w, "done")
			})
			mux.HandleFunc("/quick", func(http.ResponseWriter, *http.Request) {})
			s := httptest.NewUnstartedServer(mux)
			s.Listener, s.EnableHTTP2 = l.Listener(s.Listener), http2
			s.Config.ConnState = l.ConnState
			s.StartTLS()
			defer s.Close()
			slow, err := s.Client().Get(s.URL + "/slow")
			require.NoError(t, err)
			assert.Equal(t, http2, slow.ProtoMajor == 2)
			if http2 {
				quick, err := s.Client().Get(s.URL + "/quick")
				require.NoError(t, err)
				require.NoError(t, quick.Body.Close())
				assert.Equal(t, 1, l.Snapshot().Connections, "both on one")
			}
			assert.False(t, isQuiet(l))
			close(end)
			body, err := io.ReadAll(slow.Body)
			require.NoError(t, err)
			assert.Equal(t, "begun done", string(body))
			require.Eventually(t, func() bool { return isQuiet(l) }, time.Minute, time.Millisecond)
		})
	}
}

// A request whose handler was found already is not routed once more, where nothing
// tells the difference. Nor is any other difference to be seen.
func TestHandlerRoutesOnce(t *testing.T) {
	t.Parallel()
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Method+" "+r.URL.Path+" | "+r.Pattern+" | "+r.PathValue("id"))
	})
	build := func(wrap func(*http.ServeMux) http.Handler) http.Handler {
		mux := http.NewServeMux()
		for _, pattern := range []string{"GET /static", "/any", "POST /items/{id}", "/tree/", "GET example.com/host", "GET /root/{$}", "/files/{id...}"} {
			mux.Handle(pattern, echo)
		}
		inner := http.NewServeMux()
		inner.Handle("GET /outer/1/static", echo)
		outer := http.NewServeMux()
		outer.Handle("/outer/{id}/", wrap(inner))
		outer.Handle("/", wrap(mux))
		outer.Handle("example.com/", wrap(mux))
		return outer
	}
	plain := build(func(m *http.ServeMux) http.Handler { return m })
	l := New(Config{})
	limited := build(func(m *http.ServeMux) http.Handler { return l.Handler(m) })
	direct := http.NewServeMux()
	direct.Handle("GET /static", echo)
	for _, h := range [][2]http.Handler{{plain, limited}, {direct, l.Handler(direct)}} {
		for _, target := range []string{
			"/static", "/any", "/items/7", "/tree", "/tree/a/b", "//static", "/static/../any", "/root/", "/files/a/b", "/nothing", "*",
			"http://example.com/host", "http://example.com/static", "/outer/1/static", "/outer/1/none", "/st%61tic",
		} {
			for _, method := range []string{"GET", "POST", "HEAD", "CONNECT", "OPTIONS"} {
				answer := func(h http.Handler) *httptest.ResponseRecorder {
					r := httptest.NewRequest(method, "/", nil)
					r.RequestURI = target
					if target != "*" {
						u, err := url.ParseRequestURI(target)
						require.NoError(t, err)
						r.URL = u
						r.Host = u.Host
					}
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					return w
				}
				want, got := answer(h[0]), answer(h[1])
				assert.Equal(t, want.Code, got.Code, "%s %s", method, target)
				assert.Equal(t, want.Body.String(), got.Body.String(), "%s %s", method, target)
				assert.Equal(t, want.Header(), got.Header(), "%s %s", method, target)
			}
		}
	}
}
