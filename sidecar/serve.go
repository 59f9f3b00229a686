// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/memguard/memguard-go/sidecar/auth"
	"github.com/memguard/memguard-go/sidecar/config"
	"github.com/memguard/memguard-go/sidecar/metrics"
	"github.com/memguard/memguard-go/sidecar/page"
)

// Bounds of what clients may hold.
const (
	maxConns       = 2048 // at once, of each listener; event streams among them
	maxHeaderBytes = 16 << 10
	headerTimeout  = 10 * time.Second
	answerTimeout  = 30 * time.Second // to write an answer that is no stream
	idleTimeout    = 2 * time.Minute
	closeTimeout   = 3 * time.Second
)

// server is one listener and what answers at it.
type server struct {
	addr     string
	listener net.Listener
	http     *http.Server
}

// listen opens the listeners.
func (s *Sidecar) listen(ctx context.Context) (servers []*server, err error) {
	defer func() {
		if err != nil {
			for _, v := range servers {
				v.listener.Close()
			}
		}
	}()
	handler, err := s.handler()
	if err != nil {
		return nil, err
	}
	c := s.config.Load()
	if c.Web.Listen != config.None {
		l, err := net.Listen("tcp", c.Web.Listen)
		if err != nil {
			return nil, fmt.Errorf("web.listen: %w", err)
		}
		h, scheme := handler, "http"
		if c.Loopback() {
			h = localHost(h)
		}
		if s.web.TLS() {
			scheme = "https"
		}
		s.log.Info("listening", "url", scheme+"://"+l.Addr().String()+"/")
		servers = append(servers, s.server(ctx, l.Addr().String(), s.web.Listener(l), s.web.Handler(h)))
	}
	if c.Web.Socket != "" {
		l, err := listenUnix(c.Web.Socket, len(c.Auth.Peers) > 0)
		if err != nil {
			return servers, fmt.Errorf("web.socket: %w", err)
		}
		s.log.Info("listening", "socket", c.Web.Socket)
		servers = append(servers, s.server(ctx, c.Web.Socket, l, handler))
	}
	return servers, nil
}

func (s *Sidecar) server(ctx context.Context, addr string, l net.Listener, h http.Handler) *server {
	return &server{addr, l, &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext:       auth.ConnContext,
		ConnState:         new(crowd).state,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // streams end with us
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}}
}

// serve answers until ctx ends, and then those requests that are under way.
func (v *server) serve(ctx context.Context) error {
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		late, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if v.http.Shutdown(late) != nil {
			v.http.Close()
		}
	})
	defer stop()
	if err := v.http.Serve(v.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-over // what they do is still to be recorded
	return nil
}

// handler is everything under one roof.
func (s *Sidecar) handler() (http.Handler, error) {
	exposition, err := metrics.Handler(s.log, s.metrics, s.audit)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/apis/", s.control)
	mux.Handle("/openapi/", s.control)
	mux.Handle("GET /metrics", soon(s.control.Guarded(exposition)))
	mux.Handle("GET /livez", soon(http.HandlerFunc(s.livez)))
	mux.Handle("GET /readyz", soon(http.HandlerFunc(s.readyz)))
	mux.Handle("/-/reload", soon(s.control.Guarded(http.HandlerFunc(s.reload))))
	mux.Handle("/", soon(page.Handler(s.config.Load().Namespace)))
	return mux, nil
}

// soon bounds how long a client may take to send its body and to read the answer.
func soon(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Now().Add(answerTimeout)) // not with every kind of ResponseWriter
		_ = rc.SetWriteDeadline(time.Now().Add(answerTimeout))
		next.ServeHTTP(w, r)
	})
}

// localHost answers those alone who know us by the name or address of this
// machine. Else a page of some site, whose name is made to point to 127.0.0.1,
// could read what is open on loopback (DNS rebinding).
func localHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.Trim(r.Host, "[]")
		}
		if host != "localhost" && !strings.HasSuffix(host, ".localhost") && net.ParseIP(host) == nil {
			http.Error(w, "ask for localhost or an address: this listens on loopback only", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// crowd closes connections beyond maxConns as soon as they come.
type crowd struct{ n atomic.Int64 }

func (c *crowd) state(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if c.n.Add(1) > maxConns {
			conn.Close()
		}
	case http.StateClosed, http.StateHijacked:
		c.n.Add(-1)
	}
}

// listenUnix makes the socket: for our own user alone, in a directory of ours, or,
// with others, for all that reach it; the kernel tells who they are.
func listenUnix(path string, others bool) (net.Listener, error) {
	mode := os.FileMode(0o600)
	if others {
		mode = 0o666
	} else if err := privateDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s: another process answers there", path)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
		_ = os.Remove(path) // one that a killed sidecar left
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// privateDir makes a directory of mode 0700, or checks that it is one.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %#o: want 0700, for what is in it is not for others", dir, st.Mode().Perm())
	}
	return nil
}
