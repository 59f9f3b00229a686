// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

// Config says how an agent is served.
type Config struct {
	// Logger, if set, gets a line for each order, each connection that is refused,
	// and each failure.
	Logger *slog.Logger
}

// Server serves one guard.
type Server struct {
	guard *memguard.Guard
	log   *slog.Logger
	path  string
	http  http.Server
	done  chan struct{} // accepting has ended
	born  time.Time
	asked atomic.Int64 // the last request, in nanoseconds after born

	quick, reports, streams, orders gate
	report                          struct {
		sync.Mutex
		last *memguard.Report
		at   time.Time     // when it was taken
		took time.Duration // to take it
	}
}

const (
	mostConnections = 256
	mostStreams     = 128
	mostHeader      = 8 << 10
	readTimeout     = 10 * time.Second // of a request, its body included
	writeTimeout    = 30 * time.Second // from the request's end to the answer's
	endingQuiet     = 2 * time.Second  // without a question, when the guard has ended
	endingMost      = 15 * time.Second // then it is over for those who go on asking
)

// Serve makes the socket and answers until Close, or until the guard has ended and
// those who ask have been told. It fails where the directory
// is not private, where another agent answers at the socket, and on systems that
// cannot tell who connects.
func Serve(g *memguard.Guard, cfg Config) (*Server, error) {
	if g == nil {
		return nil, errors.New("agent: there is no guard to serve")
	}
	if unsupported != nil {
		return nil, fmt.Errorf("agent: %w", unsupported)
	}
	dir, err := makeDir()
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	s, err := serve(g, dir, cfg)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return s, nil
}

// serve is Serve in a directory that is private.
func serve(g *memguard.Guard, dir string, cfg Config) (*Server, error) {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	sweep(dir)
	path := filepath.Join(dir, strconv.Itoa(os.Getpid())+".sock")
	inner, err := listen(path)
	if err != nil {
		return nil, err
	}
	s := &Server{
		guard: g, log: log, path: path, done: make(chan struct{}), born: time.Now(),
		quick: make(gate, 8), reports: make(gate, 4), streams: make(gate, mostStreams), orders: make(gate, 4),
	}
	s.http = http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    mostHeader,
		ErrorLog:          silent,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*conn).peer)
		},
	}
	go func() {
		defer close(s.done)
		err := s.http.Serve(&listener{inner: inner, log: log})
		if !errors.Is(err, http.ErrServerClosed) {
			log.Error("memguard: the agent no longer listens", slog.Any("error", err))
		}
	}()
	go s.endWith(g)
	return s, nil
}

// endWith ends the server after its guard: when nobody has asked for a moment, for
// whoever asks, or waits for an event, is to be told that it has ended.
func (s *Server) endWith(g *memguard.Guard) {
	select {
	case <-g.Done():
	case <-s.done:
		return
	}
	timer := time.NewTimer(endingQuiet)
	defer timer.Stop()
	for ended := time.Now(); ; {
		select {
		case <-s.done:
			return
		case <-timer.C:
		}
		quiet := time.Since(s.born) - time.Duration(s.asked.Load())
		if quiet >= endingQuiet || time.Since(ended) >= endingMost {
			_ = s.Close()
			return
		}
		timer.Reset(endingQuiet - quiet)
	}
}

// silent takes what net/http says of connections that broke: it is of no use to
// the service.
var silent = log.New(io.Discard, "", 0)

// listen makes the socket.
func listen(path string) (*net.UnixListener, error) {
	if n := len(path); n > mostPath {
		return nil, fmt.Errorf("%s: the name of a socket has %d bytes at most, not %d: set XDG_RUNTIME_DIR or TMPDIR to a shorter directory", path, mostPath, n)
	}
	switch _, err := os.Lstat(path); {
	case err != nil: // it is not there, or Listen says why
	case answers(path):
		return nil, fmt.Errorf("%s: an agent answers there already: of this process, or of one in another PID namespace that shares the directory", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Path is the name of the socket.
func (s *Server) Path() string { return s.path }

// Close stops answering and removes the socket. Answers under way are cut off.
// Closing again does nothing more.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}
