// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// List tells what there is, the newest first.
func (s *Store) List() ([]Summary, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, fmt.Errorf("incident: store: %w", err)
	}
	all := []Summary{}
	for _, id := range slices.Backward(ids) {
		var sum Summary
		err := s.read(id, summaryFile, &sum)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !s.has(id): // removed meanwhile
			continue
		case err != nil: // damaged by somebody: it is there, and counts
			sum = Summary{Cause: NotKnown, Verdict: "This incident cannot be read: " + tame(err.Error(), mostText)}
			sum.Time, _ = time.Parse(stamp, id[:len(stamp)])
			sum.Bytes = s.size(id)
		}
		sum.ID = id
		all = append(all, sum)
	}
	return all, nil
}

// Get reads a report. The error wraps ErrNoIncident if there is none of that ID.
func (s *Store) Get(id string) (*Report, error) {
	var r Report
	if err := s.read(id, reportFile, &r); err != nil {
		return nil, s.fails(id, err)
	}
	r.ID = id
	return &r, nil
}

// Files reads the files of a report.
func (s *Store) Files(id string) (files []File, err error) {
	r, err := s.Get(id)
	if err != nil {
		return nil, err
	}
	for _, n := range r.Files {
		b, err := s.File(id, n.Name)
		if err != nil {
			return nil, err
		}
		files = append(files, File{n.Name, n.What, b})
	}
	return files, nil
}

// File reads one file of an incident, also its report.json. The error wraps
// ErrNoIncident if there is no such incident, and fs.ErrNotExist if it has no such
// file.
func (s *Store) File(id, name string) ([]byte, error) {
	if name == "" || fileName(name) != name {
		return nil, s.fails(id, &fs.PathError{Op: "open", Path: tame(name, mostName), Err: fs.ErrNotExist})
	}
	b, err := s.bytes(id, name, s.most())
	if err != nil {
		return nil, s.fails(id, err)
	}
	return b, nil
}

// most bounds a file that is read: one that we wrote is not larger.
func (s *Store) most() int64 { return max(s.limits.Bytes, 1<<30) }

// Size is how much the store holds: incidents, and bytes in all their files.
func (s *Store) Size() (incidents int, bytes int64, err error) {
	all, err := s.List()
	for _, i := range all {
		bytes += i.Bytes
	}
	return len(all), bytes, err
}

// fails says what could not be read.
func (s *Store) fails(id string, err error) error {
	if !validID(id) || !s.has(id) {
		return fmt.Errorf("incident: %s: %w", tame(id, mostName), ErrNoIncident)
	}
	return fmt.Errorf("incident: %s: %w", id, err)
}

func (s *Store) has(id string) bool {
	st, err := os.Lstat(filepath.Join(s.dir, id))
	return err == nil && st.IsDir()
}

// ids are sorted by time.
func (s *Store) ids() (ids []string, err error) {
	entries, err := os.ReadDir(s.dir) // sorted
	for _, e := range entries {
		if e.IsDir() && validID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}

func (s *Store) read(id, name string, v any) error {
	b, err := s.bytes(id, name, mostReport)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func (s *Store) bytes(id, name string, most int64) ([]byte, error) {
	if !validID(id) {
		return nil, ErrNoIncident
	}
	f, err := os.Open(filepath.Join(s.dir, id, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return b, err
}

// size is what the files of an incident take.
func (s *Store) size(id string) (sum int64) {
	entries, _ := os.ReadDir(filepath.Join(s.dir, id))
	for _, e := range entries {
		if st, err := e.Info(); err == nil {
			sum += st.Size()
		}
	}
	return sum
}

// validID reports whether a text is an ID as newID makes them: never a path.
func validID(id string) bool {
	if len(id) <= len(stamp)+1 || len(id) > len(stamp)+1+mostFileName || id[len(stamp)] != '-' {
		return false
	}
	_, err := time.Parse(stamp, id[:len(stamp)])
	name := id[len(stamp)+1:]
	return err == nil && fileName(name) == name
}

// mostFileName bounds the names of files.
const mostFileName = 100

// fileName makes a file name of a text: lower-case letters, digits, - and ., and no
// dot at the beginning.
func fileName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '-', r == '.':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, s[:min(len(s), mostFileName)])
	return strings.TrimLeft(s, ".")
}

// escapeGlob makes a directory stand for itself in a pattern.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
}
