// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/internal/ondisk"
)

// Limits bound a store.
type Limits struct {
	Count int   // incidents; 0 is 100
	Bytes int64 // of all their files; 0 is 256 MiB
}

const (
	defaultCount      = 100
	defaultStoreBytes = 256 << 20
	// mostReport bounds a report as JSON. One with everything in it has under 1 MiB.
	mostReport = 16 << 20

	reportFile  = "report.json"
	summaryFile = "summary.json"
	unfinished  = ".tmp-"
	unposted    = ".post-" // with the key of a webhook: what it has yet to be told
	stamp       = "20060102T150405.000000000Z"
)

// Errors of a Store, in the sense of errors.Is.
var (
	ErrNoIncident = errors.New("no such incident")
	ErrInUse      = errors.New("another process writes to the store")
	ErrReadOnly   = errors.New("the store was opened to be read")
)

// Store is a directory of incidents that never grows beyond its bounds: the oldest
// go first. Each incident is a directory of its own, and appears whole or not at
// all, whatever ends the process that writes it. Everything is private to its user
// (0700 and 0600). The methods may be called from several goroutines; other
// processes may read meanwhile.
type Store struct {
	dir    string
	limits Limits
	lock   io.Closer // nil: only to be read

	mu    sync.Mutex
	hooks []string          // keys of webhooks that are to be told of what is added
	added func()            // called after each
	lost  map[string]uint64 // by key: removed before the webhook was told
}

// Summary is an incident in one line.
type Summary struct {
	ID        string            `json:"id"`
	Time      time.Time         `json:"time"` // of the end
	Target    string            `json:"target"`
	PID       int               `json:"pid"`
	Namespace string            `json:"namespace,omitempty"`
	Pod       string            `json:"pod,omitempty"`
	Container string            `json:"container,omitempty"`
	Node      string            `json:"node,omitempty"`
	Cause     Cause             `json:"cause"`
	Severity  memguard.Severity `json:"severity,omitempty"` // absent is none
	Verdict   string            `json:"verdict"`
	Limit     memguard.Bytes    `json:"limit"`
	Usage     memguard.Bytes    `json:"usage"`
	Bytes     int64             `json:"bytes"` // in the store, with all files
}

// Summary is the report in one line.
func (r *Report) Summary() Summary {
	return Summary{
		ID: r.ID, Time: r.Ended, Target: r.Target, PID: r.Process.PID, Namespace: r.Where.Namespace, Pod: r.Where.Pod,
		Container: cmp.Or(r.Where.Container, r.Where.ContainerID), Node: r.Where.Node,
		Cause: r.Cause, Severity: r.Severity, Verdict: r.Verdict, Limit: r.Limit, Usage: r.Usage,
	}
}

// OpenStore opens the store in a directory to write to it, and makes the directory
// if it is not there. What an earlier process left half-written is removed. The
// error wraps ErrInUse while another process has it open.
func OpenStore(dir string, l Limits) (*Store, error) {
	l = Limits{cmp.Or(l.Count, defaultCount), cmp.Or(l.Bytes, defaultStoreBytes)}
	if l.Count < 0 || l.Bytes < 0 {
		return nil, fmt.Errorf("incident: store %s: limits of %d incidents and %d bytes", dir, l.Count, l.Bytes)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("incident: store: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("incident: store: %w", err)
	}
	lock, err := ondisk.Lock(filepath.Join(dir, ".lock"))
	if errors.Is(err, ondisk.ErrHeld) {
		err = ErrInUse
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, fmt.Errorf("incident: store %s: %w", dir, err)
	}
	s := &Store{dir: dir, limits: l, lock: lock, lost: map[string]uint64{}}
	left, err := filepath.Glob(filepath.Join(escapeGlob(dir), unfinished+"*"))
	for _, name := range left {
		err = errors.Join(err, os.RemoveAll(name))
	}
	if err == nil {
		err = s.prune("") // the limits may be lower than they were
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("incident: store: %w", err)
	}
	return s, nil
}

// ReadStore opens the store in a directory to be read, also while another process
// writes to it.
func ReadStore(dir string) (*Store, error) {
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = &fs.PathError{Op: "open", Path: dir, Err: errors.New("not a directory")}
	}
	if err != nil {
		return nil, fmt.Errorf("incident: store: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Close lets another process write to the store.
func (s *Store) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// Add keeps a report and its files, and sets the report's ID. When it returns they
// are on disk; when it fails nothing is there of them, and nothing older is lost: a
// full disk is an error that wraps syscall.ENOSPC. Files for which the bounds of the
// store leave no room are left out, and the report says so. Then the oldest
// incidents beyond the bounds are removed.
func (s *Store) Add(r *Report, files []File) (id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return "", fmt.Errorf("incident: store: %w", ErrReadOnly)
	}
	kept := *r
	kept.ID = s.newID(r)
	if kept.Files, files, err = s.fit(&kept, files); err != nil {
		return "", fmt.Errorf("incident: store: %w", err)
	}
	if err := s.write(&kept, files); err != nil {
		return "", fmt.Errorf("incident: store: %s: %w", kept.ID, err)
	}
	*r = kept
	if s.added != nil {
		s.added()
	}
	// It is kept. That an old one could not be removed is for the next time.
	_ = s.prune(kept.ID)
	return kept.ID, nil
}

// setBack is by how much a report may be older than the newest one: it was made a
// little later, or at the same time. Beyond it the clock was set back.
const setBack = time.Minute

// newID is unused, and sorts by the time of the end; after the newest one if the clock
// was set back since that, or it would be the next one to be removed for its age.
func (s *Store) newID(r *Report) string {
	at := r.Ended.UTC()
	if at.Year() < 1970 || at.Year() > 9999 { // a stamp has four digits
		at = time.Now().UTC()
	}
	if ids, err := s.ids(); err == nil && len(ids) > 0 {
		newest, err := time.Parse(stamp, ids[len(ids)-1][:len(stamp)])
		if err == nil && newest.After(at.Add(setBack)) && newest.Year() < 9999 {
			at = newest.Add(time.Nanosecond)
		}
	}
	for ; ; at = at.Add(time.Nanosecond) {
		id := at.Format(stamp) + "-" + cmp.Or(strings.Trim(fileName(r.Target), ".-"), "unnamed")
		if _, err := os.Lstat(filepath.Join(s.dir, id)); errors.Is(err, fs.ErrNotExist) || err != nil {
			return id
		}
	}
}

// fit leaves out the files that do not fit into the store beside the report.
func (s *Store) fit(r *Report, files []File) (named []Named, kept []File, err error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, nil, err
	}
	left := s.limits.Bytes - 2*int64(len(b)) // indented, and with a summary
	if left < 0 || len(b) > mostReport/2 {
		return nil, nil, fmt.Errorf("a report of %d bytes is more than the store takes", len(b))
	}
	named, names := []Named{}, map[string]bool{}
	for _, f := range files {
		f.Name = fileName(f.Name)
		for n := 2; names[f.Name]; n++ {
			f.Name = fmt.Sprintf("%d-%s", n, strings.TrimPrefix(f.Name, fmt.Sprintf("%d-", n-1)))
		}
		if size := int64(len(f.Content)); size <= left {
			left -= size
			names[f.Name] = true
			named, kept = append(named, Named{f.Name, f.What, len(f.Content)}), append(kept, f)
		} else {
			r.Unknown = append(slices.Clone(r.Unknown), memguard.Blind{What: f.Name, Why: fmt.Sprintf("its %d bytes are more than the store has room for", size)})
		}
	}
	return named, kept, nil
}

// write makes the incident's directory beside its place, and moves it there when
// all of it is on disk.
func (s *Store) write(r *Report, files []File) (err error) {
	tmp, err := os.MkdirTemp(s.dir, unfinished) // mode 0700
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(tmp)
		}
	}()
	report, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	sum := r.Summary()
	sum.Bytes = int64(len(report))
	for _, f := range files {
		sum.Bytes += int64(len(f.Content))
	}
	summary, err := json.Marshal(sum)
	if err != nil {
		return err
	}
	files = append(slices.Clone(files), File{Name: reportFile, Content: report}, File{Name: summaryFile, Content: summary})
	for _, key := range s.hooks {
		files = append(files, File{Name: unposted + key})
	}
	for _, f := range files {
		if err := writeSynced(filepath.Join(tmp, f.Name), f.Content); err != nil {
			return err
		}
	}
	if err := ondisk.SyncDir(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(s.dir, r.ID)); err != nil {
		return err
	}
	return ondisk.SyncDir(s.dir)
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

// prune removes the oldest incidents beyond the bounds, but not the one just added.
func (s *Store) prune(added string) error {
	all, err := s.List()
	if err != nil {
		return err
	}
	var sum int64
	for _, i := range all {
		sum += i.Bytes
	}
	left := len(all)
	slices.Reverse(all) // the oldest first
	// A service that comes and goes every second, as it means to, does not drive out
	// the report of the one kill that matters.
	sort.SliceStable(all, func(i, j int) bool {
		return min(all[i].Severity, memguard.Warning) < min(all[j].Severity, memguard.Warning)
	})
	for _, i := range all {
		if left <= s.limits.Count && sum <= s.limits.Bytes {
			break
		}
		if i.ID == added {
			continue
		}
		for _, key := range s.pendingOf(i.ID) {
			s.lost[key]++
		}
		// Out of sight first, so that no half of it is ever seen.
		gone := filepath.Join(s.dir, unfinished+i.ID)
		if err := os.Rename(filepath.Join(s.dir, i.ID), gone); err != nil {
			return err
		}
		if err := os.RemoveAll(gone); err != nil {
			return err
		}
		sum -= i.Bytes
		left--
	}
	return nil
}
