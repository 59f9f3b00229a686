// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup"
)

// What is kept of a run, and how often is looked.
const (
	lookEvery    = 50 * time.Millisecond  // between two samples of the cgroup
	showEvery    = 200 * time.Millisecond // between two calls of show
	maxLines     = 200                    // of what a victim prints
	maxEvents    = 2000                   // of a guard
	maxArtefacts = 200                    // files that a victim leaves
)

// hear takes a line of what a part wrote to its standard output and error.
func (x *run) hear(life int, line string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := parseEvent(line, x.start); ok {
		if len(x.r.Events) < maxEvents {
			e.life = life
			x.r.Events = append(x.r.Events, e)
		}
		return
	}
	// The first half of the room keeps the beginning, the other the end.
	if len(x.r.Stderr) < maxLines {
		x.r.Stderr = append(x.r.Stderr, line)
		return
	}
	x.r.Stderr[maxLines/2+x.tail%(maxLines/2)] = line
	x.tail++
}

// worked takes a line of a victim's report of its own work.
func (x *run) worked(line string) {
	var done, refused uint64
	if n, err := fmt.Sscan(line, &done, &refused); n != 2 || err != nil {
		return // cut by the kill
	}
	if x.scenario.Load != nil {
		return // what counts is what its clients received
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.r.Done, x.r.Refused = done, refused
	x.point(Work{Done: done, Refused: refused})
}

func (x *run) tallied(t *Tally) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.r.Load, x.r.Done, x.r.Refused = t, t.Good, t.Refused
	x.point(Work{Done: t.Good, Refused: t.Refused, Lost: t.Wrong + t.Late + t.Failed + t.Unsent, P99: t.Recent})
}

// point keeps w, at most one in half of loadEvery. The last is always right.
func (x *run) point(w Work) {
	w.At = seconds(time.Since(x.start))
	if n := len(x.r.Work); n > 1 && w.At-x.r.Work[n-2].At < loadEvery.Seconds()/2 {
		x.r.Work = x.r.Work[:n-1]
	}
	x.r.Work = append(x.r.Work, w)
}

// watch samples the cgroup.
func (x *run) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var shown time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		reading, err := x.group.Read()
		usage, ok := reading.Usage.Value()
		if err != nil || !ok {
			continue // the next one may do
		}
		now := time.Now()
		u := Usage{At: seconds(now.Sub(x.start)), Usage: usage}
		inactive, ok1 := reading.Stat.Bytes(cgroup.InactiveFile)
		active, ok2 := reading.Stat.Bytes(cgroup.ActiveFile)
		if ok1 && ok2 {
			held := usage - min(usage, inactive+active)
			u.Held = &held
		}
		x.mu.Lock()
		x.r.Memory = append(x.r.Memory, u)
		m := moment{now.Sub(x.start), usage, 0, x.r.Done}
		x.mu.Unlock()
		if x.show != nil && now.Sub(shown) >= showEvery {
			m.kills, _ = reading.Events.OOMKill.Value() // for the eye only
			x.show(m)
			shown = now
		}
	}
}

// judge reads the kernel's counters after the end and fills in what follows
// from the rest.
func (x *run) judge() (err error) {
	r := x.r
	if r.Kills, err = x.sandbox.Kills(); err != nil {
		return err // without it there is no outcome
	}
	if peak, err := x.sandbox.Peak(); err == nil {
		r.Peak = &peak
	}
	r.Outcome = Alive
	switch {
	case r.Error != "":
		r.Outcome = Failed
	case r.Kills > 0:
		r.Outcome = Killed
	case len(r.Deaths) > 0:
		r.Outcome = Died
	}
	r.Goodput = float64(r.Done) / r.Planned
	r.CPU = seconds(x.cpu)
	x.order()
	return filepath.WalkDir(x.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || len(r.Artefacts) == maxArtefacts {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(x.dir, path)
		r.Artefacts = append(r.Artefacts, File{name, fi.Size()})
		return err
	})
}

// order puts the end of a Stderr that was full in order again.
func (x *run) order() {
	if x.tail == 0 {
		return
	}
	begin, end := x.r.Stderr[:maxLines/2:maxLines/2], x.r.Stderr[maxLines/2:]
	n := x.tail % len(end)
	begin = append(begin, fmt.Sprintf("[... %d lines ...]", x.tail))
	x.r.Stderr = append(append(begin, end[n:]...), end[:n]...)
}
