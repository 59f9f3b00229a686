// SPDX-License-Identifier: Apache-2.0

// Package evidence keeps what a person needs after the fact: files in a bounded
// store, and the last seconds of the execution trace.
package evidence

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Store is a directory that never holds more than so many files and bytes. The
// oldest go first. Other files in the directory are not touched.
type Store struct {
	Dir      string // made with mode 0700 if it is not there
	MaxFiles int    // 0 is 16
	MaxBytes int64  // 0 is 256 MiB

	mu sync.Mutex // one file at a time
}

const (
	defaultFiles = 16
	defaultBytes = 256 << 20
	// prefix begins the names of the store's own files.
	prefix = "memguard-"
	// stamp sorts by time, and is a file name everywhere.
	stamp = "20060102T150405.000000000Z"
)

// ErrFull is what Put gives when a file alone is larger than the store.
var ErrFull = errors.New("larger than the store may be")

// Put writes one file: memguard-TIME-NAME. It appears whole or not at all, with
// mode 0600. Then the oldest files beyond the bounds are removed.
func (s *Store) Put(name string, write func(io.Writer) error) (path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("evidence: name %q: want a file name", name)
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return "", fmt.Errorf("evidence: %w", err)
	}
	f, err := os.CreateTemp(s.Dir, ".tmp-"+prefix) // mode 0600
	if err != nil {
		return "", fmt.Errorf("evidence: %w", err)
	}
	defer os.Remove(f.Name()) // gone already if all went well
	err = write(&limited{f, s.maxBytes()})
	if err := cmp.Or(err, f.Sync(), f.Close()); err != nil {
		f.Close()
		return "", fmt.Errorf("evidence: %s: %w", name, err)
	}
	path = filepath.Join(s.Dir, prefix+time.Now().UTC().Format(stamp)+"-"+name)
	if err := os.Rename(f.Name(), path); err != nil {
		return "", fmt.Errorf("evidence: %w", err)
	}
	return path, s.prune()
}

// Files lists the store's files, the oldest first.
func (s *Store) Files() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && e.Type().IsRegular() {
			names = append(names, filepath.Join(s.Dir, e.Name()))
		}
	}
	slices.Sort(names) // by time
	return names, nil
}

// prune removes the oldest files beyond the bounds, and what a write left behind
// that was killed.
func (s *Store) prune() error {
	left, _ := filepath.Glob(filepath.Join(s.Dir, ".tmp-"+prefix+"*"))
	for _, name := range left {
		// A young one may be another process's that shares the directory.
		if st, err := os.Lstat(name); err == nil && time.Since(st.ModTime()) > time.Hour {
			_ = os.Remove(name)
		}
	}
	names, err := s.Files()
	if err != nil {
		return err
	}
	var sum int64
	var errs []error
	for i, name := range slices.Backward(names) { // the newest is kept
		st, err := os.Lstat(name)
		if err != nil {
			continue // somebody else removed it
		}
		sum += st.Size()
		if len(names)-i > cmp.Or(s.MaxFiles, defaultFiles) || sum > s.maxBytes() {
			errs = append(errs, os.Remove(name))
		}
	}
	return errors.Join(errs...)
}

func (s *Store) maxBytes() int64 { return cmp.Or(s.MaxBytes, defaultBytes) }

// limited fails when more is written than may be kept.
type limited struct {
	w    io.Writer
	left int64
}

func (l *limited) Write(b []byte) (int, error) {
	if int64(len(b)) > l.left {
		return 0, ErrFull
	}
	n, err := l.w.Write(b)
	l.left -= int64(n)
	return n, err
}
