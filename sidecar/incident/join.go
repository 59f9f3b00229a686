// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/evidence"
)

// Bounds of what is taken from a service's directory into a report.
const (
	mostFile     = 8 << 20
	mostCaptured = 5 // files: two heap profiles, and what was taken with the last
	mostBoxes    = 64
)

// join finds the black box of the process among those of its service, and what its
// guard captured. All of that is somebody else's directory.
func (r *Report) join(e *Evidence) (*BlackBox, []File) {
	var found *BlackBox
	for _, dir := range e.Boxes {
		boxes, err := evidence.Boxes(dir)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				r.blind("black box", err)
			}
			continue
		}
		for _, path := range boxes[max(len(boxes)-mostBoxes, 0):] {
			bb, err := readEnded(path, e)
			switch {
			case err != nil:
				r.blind("black box", err)
			case bb.Cause == StillRunning, !e.lived(bb.Started):
				// Another process's. The pid in the box is that of its own namespace, and no help.
			case found == nil || bb.PID == e.Process.PID || found.PID != e.Process.PID && bb.Started.After(found.Started):
				found = bb
			}
		}
	}
	if found == nil {
		return nil, nil
	}
	r.BlackBox = &Box{
		Verdict: tame(found.Verdict, mostText), Cause: found.Cause, Path: tame(named(found.Box), mostName),
		Service: tame(found.Service, mostName), Build: tame(found.Build, mostName), Records: tame(found.completeness(), mostText),
	}
	return found, r.captured(found)
}

// named is a path that a reader can follow, of one through a descriptor of ours
// (/proc/self/fd/N) that is gone with us.
func named(path string) string {
	dir, file := filepath.Split(path)
	if to, err := os.Readlink(filepath.Clean(dir)); err == nil && filepath.IsAbs(to) {
		return filepath.Join(to, file)
	}
	return path
}

// begun is when the process began by the clock as it stood at its end: it may have been
// set since Process.Started was noted.
func (e *Evidence) begun() time.Time {
	if e.Lived > 0 {
		return e.Ended.Add(-e.Lived)
	}
	return e.Process.Started
}

// lived reports whether the process may have begun something then, by the clock as it
// stood: it has begun itself a little before.
func (e *Evidence) lived(at time.Time) bool {
	first, last := e.begun(), e.Ended
	if s := e.Process.Started; !s.IsZero() { // by the clock of before it was set
		if s.Before(first) {
			first = s
		}
		if s = s.Add(e.Lived); s.After(last) {
			last = s
		}
	}
	return !at.Before(first.Add(-2*time.Second)) && !at.After(last)
}

// letGo is how long a box may look as if its process still had it open. Its file is
// mapped, and what the OOM killer ends is unmapped by others, after its end.
const letGo = 2 * time.Second

// readEnded reads a box that may be that of the process that has ended.
func readEnded(path string, e *Evidence) (*BlackBox, error) {
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		bb, err := Read(path, Options{Last: time.Minute})
		if err != nil || bb.Cause != StillRunning || !e.lived(bb.Started) || time.Since(begin) > letGo {
			return bb, err
		}
	}
}

// captured reads the pair of heap profiles to compare, and the rest of the last
// capture.
func (r *Report) captured(bb *BlackBox) (files []File) {
	var want []string
	if n := len(bb.Pairs); n > 0 {
		want = append(want, bb.Pairs[n-1].Base.Path, bb.Pairs[n-1].Later.Path)
	}
	for _, path := range slices.Backward(bb.Files) {
		if len(want) < mostCaptured && !slices.Contains(want, path) {
			want = append(want, path)
		}
	}
	slices.Sort(want)
	root, err := os.OpenRoot(filepath.Dir(bb.Box))
	if err != nil {
		r.blind("captured profiles", err)
		return nil
	}
	defer root.Close()
	for _, path := range want {
		b, err := regular(root, filepath.Base(path))
		if err != nil {
			r.blind("captured profiles", err)
			continue
		}
		f := File{Name: "captured-" + strings.TrimPrefix(filepath.Base(path), "memguard-"), What: "captured by its own guard", Content: b}
		if c, ok := evidence.ParseFile(path); ok {
			kind := "taken"
			if name, ok := strings.CutSuffix(c.Name, ".pb.gz"); ok {
				kind = name + " profile taken"
			}
			f.Name = fmt.Sprintf("captured-%s-%02d-%02dpct-%s", c.Series.UTC().Format("150405.000"), c.Number, c.Score, c.Name)
			f.What = fmt.Sprintf("%s by its own guard at %d %% of the limit", kind, c.Score)
		}
		f.Name = fileName(f.Name)
		files = append(files, f)
	}
	return files
}

// regular reads a file of a directory that somebody else writes: no link out of it,
// no FIFO, and not more than a report takes.
func regular(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", name)
	case st.Size() > mostFile:
		return nil, fmt.Errorf("%s: %d bytes are more than the %d that a report takes", name, st.Size(), mostFile)
	}
	return io.ReadAll(io.LimitReader(f, mostFile))
}

// timeline bounds the one that was watched, and lets the black box go on where it
// ends: its last moments are closer to the end, ten milliseconds apart.
func (r *Report) timeline(e *Evidence, bb *BlackBox) {
	t := &Timeline{Rows: []string{}, Points: []Point{}}
	begun := e.begun()
	if e.Timeline != nil {
		for _, name := range e.Timeline.Rows[:min(len(e.Timeline.Rows), mostRows)] {
			t.Rows = append(t.Rows, tame(name, mostName))
		}
		for _, p := range e.Timeline.Points {
			if p.PID == e.Process.PID && !p.Time.Before(begun.Add(-time.Second)) {
				p.Rows = p.Rows[:min(len(p.Rows), len(t.Rows))]
				t.Points = append(t.Points, p)
			}
		}
	}
	if bb != nil {
		if len(t.Points) < 2 {
			t = bb.timeline(e.Process.PID)
		} else {
			last := t.Points[len(t.Points)-1].Time
			for _, m := range bb.Moments {
				if m.Time.After(last) && !m.Time.After(e.Ended) {
					t.Points = append(t.Points, Point{Time: m.Time, PID: e.Process.PID, Usage: m.Usage, Limit: m.Limit})
				}
			}
		}
	}
	for i := range t.Points {
		t.Points[i].Time = tameTime(t.Points[i].Time)
	}
	sort.SliceStable(t.Points, func(i, j int) bool { return t.Points[i].Time.Before(t.Points[j].Time) })
	t.thin(mostPoints)
	if len(t.Points) > 0 {
		r.Timeline = t
	}
}

// timeline is the black box's moments as one.
func (bb *BlackBox) timeline(pid int) *Timeline {
	t := &Timeline{Rows: []string{"go/heap/live", "go/stacks", "go/other", "not go"}, Points: []Point{}}
	for _, m := range bb.Moments {
		p := Point{Time: m.Time, PID: pid, Usage: m.Usage, Limit: m.Limit, Rows: make([]memguard.Value[int64], len(t.Rows))}
		live, ok := m.Live.Get()
		stacks, ok2 := m.Stacks.Get()
		mapped, ok3 := m.Mapped.Get()
		usage, ok4 := m.Usage.Get()
		if ok && ok2 && ok3 && ok4 {
			go1 := min(mapped, usage)
			stacks = min(stacks, go1)
			live = min(live, go1-stacks)
			for i, n := range []uint64{live, stacks, go1 - live - stacks, usage - go1} {
				p.Rows[i] = memguard.Known(int64(min(n, 1<<62)))
			}
		}
		t.Points = append(t.Points, p)
	}
	return t
}

// thin keeps at most so many points: of each stretch of time the one with the
// highest usage, and always the last of all.
func (t *Timeline) thin(most int) {
	n := len(t.Points)
	if n <= most {
		return
	}
	first, last := t.Points[0].Time, t.Points[n-1].Time
	step := last.Sub(first)/time.Duration(most-1) + 1
	var kept []Point
	slot := time.Duration(-1)
	for _, p := range t.Points[:n-1] {
		s := p.Time.Sub(first) / step
		u, _ := p.Usage.Get()
		switch {
		case s != slot:
			kept, slot = append(kept, p), s
		default:
			if v, _ := kept[len(kept)-1].Usage.Get(); u > v {
				kept[len(kept)-1] = p
			}
		}
	}
	t.Points = append(kept, t.Points[n-1])
}
