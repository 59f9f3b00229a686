// SPDX-License-Identifier: Apache-2.0

package stderr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Open opens what a service's standard error is sent to: a regular file, which need
// not be there yet and is followed through rotation and truncation, from its last
// TailSize bytes on; a FIFO that is there; or, for "unix:PATH", a unix stream socket
// at which Run listens, for several writers one after another or at once. Run reads it.
func Open(where string) (*Stream, error) {
	if path, ok := strings.CutPrefix(where, "unix:"); ok {
		if path == "" {
			return nil, errors.New("stderr: unix: the path of the socket is missing")
		}
		return &Stream{input: func(ctx context.Context) (io.ReadCloser, error) { return listen(ctx, path) }}, nil
	}
	if where == "" {
		return nil, errors.New("stderr: no file, FIFO or unix:PATH is named")
	}
	st, err := os.Stat(where)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && st.Mode().IsRegular():
		return &Stream{input: func(ctx context.Context) (io.ReadCloser, error) {
			return &follower{ctx: ctx, path: where, end: TailSize}, nil
		}}, nil
	case err != nil:
		return nil, fmt.Errorf("stderr: %w", err)
	case st.Mode()&fs.ModeNamedPipe != 0:
		return &Stream{input: func(ctx context.Context) (io.ReadCloser, error) { return openFIFO(ctx, where) }}, nil
	}
	return nil, fmt.Errorf("stderr: %s is neither a regular file nor a FIFO; a socket to listen at is written unix:%s", where, where)
}

// poll is how often a file is looked at. There is no inotify: it does not work on
// network file systems, and misses what happens inside a container's own mount.
const poll = 200 * time.Millisecond

// follower reads a file that grows, and the one that takes its name.
type follower struct {
	ctx   context.Context
	path  string
	end   int64 // how much of a file that is there already is read; below 0: all
	begun bool  // the first look is over
	f     *os.File
	off   int64
	last  []byte // what stands before off, at most lastSize; nil: not read by us
}

// lastSize is more than a line of the runtime's, two of which can end alike.
const lastSize = 512

// Read waits for more; the end of the context is the end of the file.
func (w *follower) Read(p []byte) (int, error) {
	for {
		n, err := w.try(p)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-w.ctx.Done():
			return 0, io.EOF
		case <-time.After(poll):
		}
	}
}

// try reads what is there. An error of the file is as good as no file: it may come back.
func (w *follower) try(p []byte) (int, error) {
	first := !w.begun
	w.begun = true
	for range 2 { // the old file's rest, then the new one
		if w.f == nil {
			if !w.open(first) {
				return 0, nil
			}
		}
		if w.rewritten() {
			w.off, w.last = 0, nil
		}
		if n := w.next(p); n > 0 {
			return n, nil
		}
		st, err := w.f.Stat()
		now, nowErr := os.Stat(w.path)
		if err == nil && (nowErr != nil || os.SameFile(st, now)) {
			return 0, nil // moved away and nothing new yet: its writer may still have it open
		}
		if n := w.next(p); n > 0 { // written before the new one was there
			return n, nil
		}
		w.f.Close()
		w.f = nil
	}
	return 0, nil
}

func (w *follower) next(p []byte) int {
	n, _ := w.f.ReadAt(p, w.off)
	w.off += int64(n)
	w.last = append(w.last, p[:n]...)
	w.last = append(w.last[:0], w.last[max(0, len(w.last)-lastSize):]...)
	return n
}

// rewritten reports whether the file was truncated (copytruncate, or ">file"): what
// was read last stands there no more. Its size does not tell of one that has grown
// again between two looks. If nothing but zeros stands there, who writes to it goes on
// where it was (it has not opened the file to append), and there is a hole before that.
func (w *follower) rewritten() bool {
	if len(w.last) == 0 {
		return false
	}
	was := make([]byte, len(w.last))
	n, err := w.f.ReadAt(was, w.off-int64(len(was)))
	if n == len(was) && len(bytes.Trim(was, "\x00")) == 0 {
		w.last = nil
		return false
	}
	return (err == nil || errors.Is(err, io.EOF)) && !bytes.Equal(was[:n], w.last)
}

func (w *follower) open(first bool) bool {
	f, err := openRegular(w.path)
	if err != nil {
		return false
	}
	w.f, w.off, w.last = f, 0, nil
	if st, err := f.Stat(); first && err == nil && w.end >= 0 {
		w.off = max(0, st.Size()-w.end)
	}
	return true
}

func (w *follower) Close() error {
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}

// maxWriters bounds who may be connected at once.
const maxWriters = 64

// listen makes one stream of all connections. Each hands over whole lines, so that
// two services at one socket do not tear each other's.
func listen(ctx context.Context, path string) (io.ReadCloser, error) {
	if st, err := os.Lstat(path); err == nil && st.Mode()&fs.ModeSocket != 0 {
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("somebody listens at %s already", path)
		}
		_ = os.Remove(path) // of one who was killed
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	var conns sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		defer stop()
		room := make(chan struct{}, maxWriters)
		for {
			c, err := l.Accept()
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
					time.Sleep(poll) // out of file descriptors: try again
					continue
				}
				conns.Wait()
				pw.Close()
				return
			}
			select {
			case room <- struct{}{}:
			default:
				c.Close()
				continue
			}
			conns.Go(func() {
				defer func() { <-room }()
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				wholeLines(pw, c)
			})
		}
	}()
	return &pipeEnd{pr, l}, nil
}

type pipeEnd struct {
	*io.PipeReader
	l net.Listener
}

func (p *pipeEnd) Close() error { p.l.Close(); return p.PipeReader.Close() }

// wholeLines copies up to the last end of a line, each in one Write; a line of more
// than 64 KiB goes in parts.
func wholeLines(w io.Writer, r io.Reader) {
	buf := make([]byte, 0, 64<<10)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		cut := strings.LastIndexByte(string(buf), '\n') + 1
		if cut == 0 && len(buf) == cap(buf) || err != nil {
			cut = len(buf)
		}
		if cut > 0 {
			if _, werr := w.Write(buf[:cut]); werr != nil {
				return
			}
			buf = buf[:copy(buf[:cap(buf)], buf[cut:])]
		}
		if err != nil {
			return
		}
	}
}
