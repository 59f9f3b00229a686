// SPDX-License-Identifier: Apache-2.0

package stderr

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/memguard/memguard-go/sidecar/target"
)

const (
	maxLives = 16                     // that are kept in a state directory, beside those that go on
	every    = 100 * time.Millisecond // between two writes to the files
	patience = 2 * time.Second        // for the last one
)

// Record keeps one life of a service in a state directory, for [OpenExec]. A disk
// that hangs does not hold anybody up: what comes meanwhile is dropped beyond a
// bound, and counted.
type Record struct {
	dir   string
	id    target.Identity
	wake  chan struct{}
	ended chan struct{}
	kept  []byte // the dump file; of who writes

	mu      sync.Mutex
	last    ring   // of what was printed and is not on disk yet
	dump    dump   // of all that was printed
	trace   []byte // lines about collections, the same
	closed  bool
	dropped uint64 // lines about collections, in bytes
}

// StateDir makes a state directory, or checks that nobody else may look into it.
func StateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if own, ok := st.Sys().(*syscall.Stat_t); ok && int(own.Uid) != os.Geteuid() {
		return fmt.Errorf("state directory %s belongs to uid %d", dir, own.Uid)
	}
	if m := st.Mode().Perm(); m&0o077 != 0 {
		return fmt.Errorf("state directory %s has mode %#o: others may look at what the service prints; name a directory below it, or chmod 700", dir, m)
	}
	return nil
}

// NewRecord begins a life in a directory that StateDir has checked, and removes
// the oldest ones. Close it.
func NewRecord(dir string, id target.Identity) (*Record, error) {
	forget(dir)
	r := &Record{
		dir:   filepath.Join(dir, fmt.Sprintf("%d-%d", id.PID, id.Start)),
		id:    id,
		wake:  make(chan struct{}, 1),
		ended: make(chan struct{}),
	}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		return nil, err
	}
	go r.write()
	return r, nil
}

// forget removes the lives that ended first.
func forget(dir string) {
	type ended struct {
		name string
		at   time.Time
	}
	var lives []ended
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		pid, start, ok := lifeOf(e.Name())
		if !ok || !e.IsDir() || (target.Identity{PID: pid, Start: start}).Alive() {
			continue
		}
		if st, err := e.Info(); err == nil {
			lives = append(lives, ended{e.Name(), st.ModTime()})
		}
	}
	sort.Slice(lives, func(i, j int) bool {
		a, b := &lives[i], &lives[j]
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.name, b.name)) < 0
	})
	for len(lives) >= maxLives {
		_ = os.RemoveAll(filepath.Join(dir, lives[0].name))
		lives = lives[1:]
	}
}

// printed takes what the service printed.
func (r *Record) printed(b []byte) {
	r.mu.Lock()
	r.last.add(b)
	r.dump.add(b)
	r.mu.Unlock()
	r.kick()
}

// collected takes a line about a collection.
func (r *Record) collected(line []byte) {
	r.mu.Lock()
	if len(r.trace)+len(line) <= maxTrace {
		r.trace = append(r.trace, line...)
	} else {
		r.dropped += uint64(len(line))
	}
	r.mu.Unlock()
	r.kick()
}

func (r *Record) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// write brings to disk what came.
func (r *Record) write() {
	defer close(r.ended)
	tail := segments{path: filepath.Join(r.dir, tailFile), size: TailSize}
	trace := segments{path: filepath.Join(r.dir, traceFile), size: maxTrace}
	defer tail.close()
	defer trace.close()
	written := uint64(0) // offset in the stream
	for {
		<-r.wake
		r.mu.Lock()
		last, lines, closed, total := r.last.bytes(), r.trace, r.closed, r.dump.total
		r.last, r.trace = ring{buf: r.last.buf[:0]}, nil
		r.mu.Unlock()
		lost := tail.add(last) + trace.add(lines)
		if total-written > uint64(len(last)) { // more than TailSize came at once
			tail.forget()
		}
		written = total
		r.mu.Lock()
		r.dropped += uint64(lost)
		begins := r.begins(tail.n+tail.before, total)
		r.mu.Unlock()
		r.keep(begins)
		if closed {
			return
		}
		time.Sleep(every)
	}
}

// begins is the dump file that belongs before the last n of total bytes; nil is none.
// The caller holds mu.
func (r *Record) begins(n int, total uint64) []byte {
	n += int(r.dump.total - total) // came meanwhile
	h, ok := r.dump.reaches(n)
	if !ok {
		return nil
	}
	lacks := r.dump.total - uint64(n) - h.from
	text := h.text[:min(lacks, uint64(len(h.text)))]
	return formatDump(text, lacks-uint64(len(text)))
}

// keep writes the dump file, or removes it.
func (r *Record) keep(begins []byte) {
	if bytes.Equal(begins, r.kept) {
		return
	}
	name := filepath.Join(r.dir, dumpFile)
	var err error
	if begins == nil {
		err = os.Remove(name)
	} else {
		err = replace(name, begins)
	}
	if err == nil {
		r.kept = begins
	}
}

// replace writes a file that is there whole or not at all.
func replace(name string, b []byte) error {
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// Close writes the rest, and how the process ended.
func (r *Record) Close(e Exit) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.kick()
	select {
	case <-r.ended:
	case <-time.After(patience):
		return fmt.Errorf("writing to %s takes longer than %v", r.dir, patience)
	}
	e.PID, e.Start = r.id.PID, r.id.Start
	e.Counts.Dropped += r.dropped
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return replace(filepath.Join(r.dir, exitFile), append(b, '\n'))
}

// segments is a file of a bounded size, and the one before it.
type segments struct {
	path   string
	size   int
	f      *os.File
	n      int // bytes in it
	before int // and in the one before
}

// add appends b and returns how much of it was lost.
func (s *segments) add(b []byte) (lost int) {
	if len(b) == 0 {
		return 0
	}
	if s.f != nil && s.n+len(b) > s.size {
		s.close()
		if err := os.Rename(s.path, s.path+old); err != nil {
			return len(b)
		}
		s.before, s.n = s.n, 0
	}
	if s.f == nil {
		f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return len(b)
		}
		s.f = f
	}
	n, _ := s.f.Write(b)
	s.n += n
	return len(b) - n
}

// forget removes the file before: what is in it does not lead up to the other.
func (s *segments) forget() {
	_ = os.Remove(s.path + old)
	s.before = 0
}

func (s *segments) close() {
	if s.f != nil {
		s.f.Close()
		s.f = nil
	}
}
