// SPDX-License-Identifier: Apache-2.0

// Package reread keeps what was made of files of settings, and makes it again when one of
// them changes.
package reread

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Every is how often the files are looked at, at most. A file is compared by its
	// content: a time stamp does not tell a file that is written twice within one tick of
	// the kernel's clock, and Kubernetes swaps a link instead of writing.
	Every = time.Second
	// MaxFile bounds what is read of one file, in bytes.
	MaxFile = 1 << 20
)

// Value is something made of files. Use [New]. It is safe for concurrent use and has no
// goroutine: whoever uses it looks at the files.
type Value[T any] struct {
	parse   func(read Read) (T, error)
	current atomic.Pointer[T]
	err     atomic.Pointer[error]

	due  atomic.Int64 // since began, in nanoseconds: look again then
	mu   sync.Mutex   // held by who looks
	seen map[string]mark
}

// began makes times monotonic: a clock that is set does not stop the looking.
var began = time.Now()

// mark is what a file was when it was read: a hash, or why it could not be.
type mark struct {
	sum [sha256.Size]byte
	err string
}

// Read reads a file of at most [MaxFile] bytes, and remembers that it was read.
type Read func(path string) ([]byte, error)

// New calls parse, and calls it again when a file changed that it read. Where parse fails
// later, the value stays what it was. At the first time its error is New's.
func New[T any](parse func(read Read) (T, error)) (*Value[T], error) {
	v := &Value[T]{parse: parse}
	v.remake()
	if err := v.err.Load(); err != nil {
		return nil, *err
	}
	v.due.Store(int64(time.Since(began) + Every))
	return v, nil
}

// Get returns the value as of at most [Every] ago.
func (v *Value[T]) Get() T {
	v.look()
	return *v.current.Load()
}

// Err says why the files as they are now cannot be used; nil if they are.
func (v *Value[T]) Err() error {
	v.look()
	if err := v.err.Load(); err != nil {
		return *err
	}
	return nil
}

// look makes the value again if it is time to look and a file changed. Who comes
// meanwhile gets the old one.
func (v *Value[T]) look() {
	now := time.Since(began)
	if int64(now) < v.due.Load() || !v.mu.TryLock() {
		return
	}
	defer v.mu.Unlock()
	for path, was := range v.seen {
		if _, is := readFile(path); is != was {
			v.remake()
			break
		}
	}
	v.due.Store(int64(time.Since(began) + Every))
}

func (v *Value[T]) remake() {
	v.seen = map[string]mark{}
	made, err := v.parse(func(path string) ([]byte, error) {
		b, p := readFile(path)
		v.seen[path] = p
		if p.err != "" {
			return nil, errors.New(p.err)
		}
		return b, nil
	})
	if err != nil {
		v.err.Store(&err)
		return
	}
	v.current.Store(&made)
	v.err.Store(nil)
}

// readFile reads a regular file: a pipe would be waited for.
func readFile(path string) ([]byte, mark) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, mark{err: err.Error()}
	}
	if !st.Mode().IsRegular() {
		return nil, mark{err: path + ": not a regular file"}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, mark{err: err.Error()}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, mark{err: err.Error()}
	}
	if len(b) > MaxFile {
		return nil, mark{err: fmt.Sprintf("%s: larger than %d bytes", path, MaxFile)}
	}
	return b, mark{sum: sha256.Sum256(b)}
}
