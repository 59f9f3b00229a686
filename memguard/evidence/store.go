// SPDX-License-Identifier: Apache-2.0

// Package evidence keeps what a person needs after the fact.
//
// A [Store] is a directory of files that never grows beyond its bounds. [Planner]
// and [Profiles] fill it on the way to a memory limit, with profiles that can be
// compared, and stop where taking one would itself kill. A [Recorder] saves the
// last seconds of the execution trace. A [Box] is the black box: the last records
// of a process, in a file that outlives it.
package evidence

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Store is a directory that never holds more than so many files and bytes, beside
// the one that is being written, and never fills its disk. Files that were put under
// the same time are a series: they are kept or removed together, the oldest first.
// The last series is the last to go, and then from its middle: what is compared is
// its first and its last. Times to come are those of a clock that was set back
// since, and count as older than all others. Other files in the directory are not
// touched, but for what killed writers have left: a temporary file that nobody holds
// a lock on (flock(2), so the directory is one machine's).
type Store struct {
	Dir      string // made with mode 0700 if it is not there
	MaxFiles int    // 0 is 16
	MaxBytes int64  // 0 is 256 MiB
	Spare    int64  // bytes of the disk that are left for others; 0 is 16 MiB

	mu sync.Mutex // one file at a time
}

const (
	defaultFiles = 16
	defaultBytes = 256 << 20
	defaultSpare = 16 << 20
	// prefix begins the names of the store's own files.
	prefix = "memguard-"
	// tempPrefix begins those that are being written.
	tempPrefix = ".tmp-" + prefix
	// stamp sorts by time, and is a file name everywhere.
	stamp = "20060102T150405.000000000Z"
)

var (
	// ErrFull is what Put gives when a file alone is larger than the store.
	ErrFull = errors.New("larger than the store may be")

	// ErrDisk is what Put gives when the disk would have less left than is to be
	// spared.
	ErrDisk = errors.New("the disk is nearly full")
)

// Put writes one file: memguard-TIME-NAME. It appears whole or not at all, with
// mode 0600. Then the oldest files beyond the bounds are removed. Only the machine's
// own end, as a loss of power, may take or cut what was put in the half minute before.
func (s *Store) Put(name string, write func(io.Writer) error) (path string, err error) {
	return s.PutAt(time.Now(), name, write)
}

// PutAt is Put with the time of a series. Within a series files sort by name, and
// those that begin alike up to the first hyphen are removed together.
func (s *Store) PutAt(series time.Time, name string, write func(io.Writer) error) (path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("evidence: name %q: want a file name", name)
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return "", fmt.Errorf("evidence: %w", err)
	}
	s.sweep()
	bound := &limited{left: s.maxBytes(), full: ErrFull}
	if free, ok := freeDisk(s.Dir); ok {
		spare := cmp.Or(s.Spare, defaultSpare)
		if free <= spare {
			return "", fmt.Errorf("evidence: %s: %w: %d bytes are free, %d are to be spared", name, ErrDisk, free, spare)
		}
		if free-spare < bound.left {
			bound.left, bound.full = free-spare, ErrDisk
		}
	}
	f, err := os.CreateTemp(s.Dir, tempPrefix) // mode 0600
	if err != nil {
		return "", fmt.Errorf("evidence: %w", err)
	}
	defer os.Remove(f.Name()) // gone already if all went well
	hold(f)                   // while it is empty: see sweep
	bound.w = f
	// No fsync(2): what a process has written outlives it, however it is killed, and to
	// wait for a disk that others keep busy takes seconds that it may not have.
	if err := write(bound); err != nil {
		f.Close()
		return "", fmt.Errorf("evidence: %s: %w", name, err)
	}
	path = filepath.Join(s.Dir, prefix+series.UTC().Format(stamp)+"-"+name)
	if err := publish(f, path); err != nil {
		return "", fmt.Errorf("evidence: %s: %w", name, err)
	}
	return path, s.prune(path, series)
}

// sweep removes what a write left behind that was killed. A service that dies of
// each capture would else fill the disk.
func (s *Store) sweep() {
	entries, _ := os.ReadDir(s.Dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			removeAbandoned(filepath.Join(s.Dir, e.Name()))
		}
	}
}

// removeAbandoned removes a temporary file that nobody writes any more.
func removeAbandoned(path string) {
	if st, err := os.Lstat(path); err == nil && abandoned(path, st) {
		_ = os.Remove(path)
	}
}

// old says whether a temporary file is nobody's any more where no lock tells. One of
// a time to come is: the clock was set back.
func old(st fs.FileInfo) bool { return time.Since(st.ModTime()).Abs() > time.Hour }

// Files lists the store's files, the oldest series first.
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

// PutTime reads from a file's name the time under which it was put.
func PutTime(path string) (time.Time, bool) {
	rest, ok := strings.CutPrefix(filepath.Base(path), prefix)
	if !ok || len(rest) <= len(stamp) || rest[len(stamp)] != '-' {
		return time.Time{}, false
	}
	at, err := time.Parse(stamp, rest[:len(stamp)])
	return at, err == nil
}

// prune removes what is beyond the bounds, but never the file that was written
// just now, under the time of its series.
func (s *Store) prune(written string, series time.Time) error {
	names, err := s.Files()
	if err != nil {
		return err
	}
	now := time.Now()
	if series.After(now) { // the clock was set back amid it
		now = series
	}
	names = futureFirst(names, prefix, now)
	var sum int64
	sizes := map[string]int64{}
	for _, name := range names {
		if st, err := os.Lstat(name); err == nil { // else somebody else removed it
			sizes[name] = st.Size()
			sum += st.Size()
		}
	}
	var errs []error
	for _, group := range expendable(names, written) {
		if len(sizes) <= cmp.Or(s.MaxFiles, defaultFiles) && sum <= s.maxBytes() {
			break
		}
		for _, name := range group {
			if size, ok := sizes[name]; ok {
				errs = append(errs, os.Remove(name))
				sum -= size
				delete(sizes, name)
			}
		}
	}
	return errors.Join(errs...)
}

// futureFirst puts files of a time later than now before the others, given in the
// order of their names: the prefix, then the time.
func futureFirst(names []string, prefix string, now time.Time) []string {
	last := prefix + now.UTC().Format(stamp)
	first := slices.IndexFunc(names, func(name string) bool {
		name = filepath.Base(name)
		return name[:min(len(last), len(name))] > last
	})
	if first < 0 {
		return names
	}
	return slices.Concat(names[first:], names[:first])
}

// expendable puts names, sorted by age, into the order in which they may go, in groups
// that go together. The one that was written last stays.
func expendable(names []string, written string) (groups [][]string) {
	series := grouped(names, func(name string) string { return name[:min(len(prefix)+len(stamp), len(name))] })
	last := -1 // the last that is more than one file
	for i, files := range series {
		if len(files) > 1 {
			last = i
		}
	}
	var end [][]string
	for i, files := range series {
		switch {
		case i != last && !slices.Contains(files, written):
			groups = append(groups, files)
		default: // the middle, then the first, then the last file by file
			steps := grouped(files, func(name string) string {
				step, _, _ := strings.Cut(name[min(len(prefix)+len(stamp)+1, len(name)):], "-")
				return step
			})
			if n := len(steps); n > 1 {
				end = append(end, steps[1:n-1]...)
				end = append(end, steps[0])
				steps = steps[n-1:]
			}
			for _, name := range steps[0] {
				end = append(end, []string{name})
			}
		}
	}
	groups = append(groups, end...)
	for i, group := range groups {
		groups[i] = slices.DeleteFunc(slices.Clone(group), func(name string) bool { return name == written })
	}
	return groups
}

// grouped divides names where the key of their last element changes.
func grouped(names []string, key func(name string) string) (groups [][]string) {
	was := ""
	for _, name := range names {
		k := key(filepath.Base(name))
		if len(groups) == 0 || k != was {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], name)
		was = k
	}
	return groups
}

func (s *Store) maxBytes() int64 { return cmp.Or(s.MaxBytes, defaultBytes) }

// limited fails when more is written than may be kept.
type limited struct {
	w    io.Writer
	left int64
	full error
}

func (l *limited) Write(b []byte) (int, error) {
	if int64(len(b)) > l.left {
		return 0, l.full
	}
	n, err := l.w.Write(b)
	l.left -= int64(n)
	return n, err
}
