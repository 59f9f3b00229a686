// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/memguard/memguard-go/sidecar/internal/ondisk"
)

// file is the file that is appended to and the older ones beside it. One goroutine at a
// time may use it.
//
// What is promised: every byte before size is part of a whole record and was synced. What
// a failed write left behind is cut off before the next one; what a kill left behind, when
// the file is opened again.
type file struct {
	config LogConfig
	lock   io.Closer
	f      *os.File
	size   int64              // bytes
	dirty  bool               // there may be more than size bytes
	born   time.Time          // of its first record
	swept  time.Time          // when older files were looked through
	torn   int64              // bytes that were set aside when it was opened
	ages   map[uint64]written // of older files, by number
}

// written is when an older file was written last: by its time stamp, and by our own
// clock as it seemed when that stamp was seen first.
type written struct{ stamp, own time.Time }

// sweepEvery is how often the age of older files is looked at when none is begun.
const sweepEvery = time.Hour

func openFile(c LogConfig) (*file, error) {
	if err := os.MkdirAll(filepath.Dir(c.Path), 0o700); err != nil {
		return nil, err
	}
	lock, err := ondisk.Lock(c.Path + ".lock")
	if errors.Is(err, ondisk.ErrHeld) {
		err = fmt.Errorf("%s.lock: another process writes this log", c.Path)
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) { // then two writers are not told apart
		return nil, err
	}
	l := &file{config: c, lock: lock, ages: map[uint64]written{}}
	if err := l.open(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := l.sweep(); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// open opens the active file, and heals its end.
func (l *file) open() error {
	f, err := os.OpenFile(l.config.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	fail := func(err error) error { return errors.Join(err, f.Close()) }
	st, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if !st.Mode().IsRegular() {
		return fail(fmt.Errorf("%s is not a regular file: it could not be synced", l.config.Path))
	}
	if st.Mode().Perm()&0o077 != 0 {
		if err := f.Chmod(0o600); err != nil {
			return fail(err)
		}
	}
	size, err := l.heal(f, st.Size())
	if err != nil {
		return fail(err)
	}
	if err := ondisk.SyncDir(filepath.Dir(l.config.Path)); err != nil {
		return fail(err)
	}
	if l.f != nil {
		l.f.Close()
	}
	l.f, l.size, l.dirty, l.born = f, size, false, birth(f)
	return nil
}

// maxTorn is more than one commit writes, in bytes: what is before it was synced by an
// earlier one.
const maxTorn = 2 * (maxWaiting + maxEvent)

// heal cuts the end of the file off that is no record, and returns the size of what is.
// A kill in the middle of a write leaves part of a line; a power cut may leave zeros.
func (l *file) heal(f *os.File, size int64) (int64, error) {
	for look := int64(64 << 10); ; look *= 2 {
		start := max(0, size-look)
		tail := make([]byte, size-start)
		if _, err := f.ReadAt(tail, start); err != nil && len(tail) > 0 {
			return 0, err
		}
		good, at, known := records(tail, start == 0)
		switch {
		case at >= 0:
			return 0, fmt.Errorf("%s: at byte %d there is no audit record: is it another file? Move it away", l.config.Path, start+int64(at))
		case known:
			return l.cutTorn(f, start+int64(good), tail[good:])
		case look > maxTorn:
			return 0, fmt.Errorf("%s: no audit record in the last %d bytes: is it another file? Move it away", l.config.Path, look)
		}
	}
}

// records returns how much of the end of a file is whole records. known is false if that
// cannot be told from so little of it, which is the whole file if all is true. at is where
// something stands that was never part of a record, or -1.
func records(tail []byte, all bool) (good, at int, known bool) {
	for good = len(tail); good > 0; {
		begin := bytes.LastIndexByte(bytes.TrimSuffix(tail[:good], []byte("\n")), '\n') + 1
		if begin == 0 && !all {
			return 0, -1, false
		}
		line := tail[begin:good]
		if line[len(line)-1] == '\n' && json.Valid(line) {
			break
		}
		if line[0] != '{' && line[0] != '\n' && line[0] != 0 {
			return 0, begin, false
		}
		good = begin
	}
	return good, -1, true
}

// cutTorn cuts off what was promised to nobody. It is kept if there is room for it.
func (l *file) cutTorn(f *os.File, size int64, torn []byte) (int64, error) {
	if len(torn) == 0 {
		return size, nil
	}
	l.torn = int64(len(torn))
	if aside, err := os.OpenFile(l.config.Path+".torn", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err == nil {
		_, _ = aside.Write(torn)
		_ = aside.Close()
	}
	if err := f.Truncate(size); err != nil {
		return 0, err
	}
	return size, f.Sync()
}

// birth is when the first record was written; now if there is none.
func birth(f *os.File) time.Time {
	line, _ := bufio.NewReader(io.NewSectionReader(f, 0, maxEvent)).ReadBytes('\n')
	var first struct {
		At MicroTime `json:"stageTimestamp"`
	}
	if json.Unmarshal(line, &first) != nil || first.At.IsZero() {
		return time.Now()
	}
	return own(first.At.Time)
}

// append writes whole lines and syncs them. rotation is what kept it from beginning a new
// file, or from removing old ones: the lines are written all the same.
func (l *file) append(lines []byte) (err, rotation error) {
	if err := l.settle(); err != nil {
		return err, nil
	}
	now := time.Now()
	full := l.size+int64(len(lines)) > l.config.MaxSize
	old := l.config.MaxAge > 0 && now.Sub(l.born) > l.config.MaxAge
	switch {
	case l.size > 0 && (full || old):
		rotation = l.rotate()
	case l.config.MaxAge > 0 && now.Sub(l.swept) > sweepEvery:
		rotation = l.sweep()
	}
	if l.size == 0 {
		l.born = now
	}
	l.dirty = true
	_, err = l.f.Write(lines)
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		// After a failed fsync the kernel takes the pages for written (fsync(2), Linux):
		// the next one would succeed without them. So they are cut off, not synced again.
		return errors.Join(err, l.cut()), rotation
	}
	l.size += int64(len(lines))
	l.dirty = false
	return nil, rotation
}

// settle makes sure that the file is what the last append left: somebody may have moved
// it away, or cut it.
func (l *file) settle() error {
	here, err := os.Stat(l.config.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	mine, statErr := l.f.Stat()
	if statErr != nil {
		return statErr
	}
	switch {
	case err != nil || !os.SameFile(here, mine) || mine.Size() < l.size:
		return l.open()
	case l.dirty:
		return l.cut()
	case mine.Size() > l.size:
		return l.open()
	}
	return nil
}

// cut takes away what a failed append left behind the last whole record.
func (l *file) cut() error {
	if err := l.f.Truncate(l.size); err != nil {
		return err
	}
	l.dirty = false
	return nil
}

// rotate begins a new file. It makes the new one before it moves the old one: on a full
// disk the old one goes on.
func (l *file) rotate() error {
	_, last, err := l.older()
	if err != nil {
		return err
	}
	fresh := l.config.Path + ".new"
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	dir, prefix, suffix := l.split()
	aside := filepath.Join(dir, fmt.Sprintf("%s%08d%s", prefix, last+1, suffix))
	if err := os.Rename(l.config.Path, aside); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := os.Rename(fresh, l.config.Path); err != nil {
		return errors.Join(err, f.Close(), os.Rename(aside, l.config.Path))
	}
	l.f.Close() // synced
	l.f, l.size, l.dirty = f, 0, false
	return errors.Join(ondisk.SyncDir(dir), l.sweep())
}

// split returns what the names of older files are made of: DIR/audit.log has
// DIR/audit-00000001.log beside it. They are numbered, because a clock may be set back.
func (l *file) split() (dir, prefix, suffix string) {
	dir, base := filepath.Split(l.config.Path)
	suffix = filepath.Ext(base)
	return filepath.Clean(dir), strings.TrimSuffix(base, suffix) + "-", suffix
}

// older returns the numbers of the older files, the oldest first, and the last one.
func (l *file) older() (numbers []uint64, last uint64, err error) {
	dir, prefix, suffix := l.split()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0, err
	}
	for _, e := range entries {
		s, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok {
			continue
		}
		if s, ok = strings.CutSuffix(s, suffix); !ok || len(s) < 8 {
			continue
		}
		if n, err := strconv.ParseUint(s, 10, 63); err == nil {
			numbers = append(numbers, n)
			last = max(last, n)
		}
	}
	slices.Sort(numbers)
	return numbers, last, nil
}

// sweep removes older files that are too many or too old.
func (l *file) sweep() error {
	l.swept = time.Now()
	numbers, _, err := l.older()
	if err != nil {
		return err
	}
	dir, prefix, suffix := l.split()
	var errs []error
	for i, n := range numbers {
		path := filepath.Join(dir, fmt.Sprintf("%s%08d%s", prefix, n, suffix))
		drop := len(numbers)-i > l.config.MaxBackups
		if !drop && l.config.MaxAge > 0 {
			st, err := os.Stat(path)
			drop = err == nil && l.age(n, st.ModTime()) > l.config.MaxAge
		}
		if drop {
			errs = append(errs, os.Remove(path))
		}
	}
	maps.DeleteFunc(l.ages, func(n uint64, _ written) bool { return !slices.Contains(numbers, n) })
	return errors.Join(errs...)
}

// own makes of a time of the wall clock one that goes on by the clock that nobody sets.
// What lies in the future, from before the clock was set back, is now.
func own(at time.Time) time.Time {
	now := time.Now()
	return now.Add(-max(now.Sub(at), 0))
}

// age is how old an older file is. A clock that is set while we run, rightly or not, is
// no reason to remove what cannot be had again, nor to keep it for longer.
func (l *file) age(n uint64, stamp time.Time) time.Duration {
	w, seen := l.ages[n]
	if !seen || !w.stamp.Equal(stamp) {
		w = written{stamp, own(stamp)}
		l.ages[n] = w
	}
	return time.Since(w.own)
}

func (l *file) close() error { return errors.Join(l.f.Close(), l.lock.Close()) }
