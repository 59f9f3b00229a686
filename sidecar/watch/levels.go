// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/memguard/memguard-go/sidecar/incident"
)

// levels are the memory cgroups from the process's own up to the root, with their
// directories kept open: the process's view of them goes away with it.
type levels struct {
	version int
	dirs    []string
	open    []cgroupDir
	machine *machine
	kept    [5]levelReading // the last ones, by turns
	next    int
}

// levelReading is what the kernel counted at one time.
type levelReading struct {
	at      time.Time // before it was read
	levels  []counts
	machine memguard.Count
}

type counts struct {
	usage, limit memguard.Bytes
	kills, hits  memguard.Count
}

const (
	levelsRest = 10 * time.Second
	levelsNear = time.Second
	mostLevels = 32
	// The counters move before the death is seen: the memory of a large process
	// takes a moment to give back.
	levelsBefore = 3 * time.Second
)

// open finds the cgroups and reads them for the first time.
func (l *levels) begin(pid int) {
	defer l.keep()
	g, err := cgroup.Open("/proc", pid)
	if err != nil {
		return // the source says so
	}
	defer g.Close()
	r, _ := g.Read()
	l.version = g.Version()
	for _, level := range r.Levels[:min(len(r.Levels), mostLevels)] {
		dir, err := openCgroup(level.Dir)
		if err != nil {
			continue
		}
		l.open = append(l.open, dir)
		l.dirs = append(l.dirs, strings.TrimPrefix(level.Dir, fmt.Sprintf("/proc/%d/root", pid)))
	}
}

func (l *levels) close() {
	for _, d := range l.open {
		d.close()
	}
	l.open = nil
}

// look reads the counters when it is time.
func (l *levels) look(now time.Time, near bool) {
	every := levelsRest
	if near {
		every = levelsNear
	}
	last := &l.kept[(l.next+len(l.kept)-1)%len(l.kept)]
	if now.Sub(last.at) >= every {
		l.keep()
	}
}

func (l *levels) keep() {
	l.kept[l.next] = l.read(machineYoung)
	l.next = (l.next + 1) % len(l.kept)
}

// read reads the counters of all levels. What a level has not, or no longer, is
// unknown. The machine's count may be so old.
func (l *levels) read(young time.Duration) levelReading {
	r := levelReading{at: time.Now(), levels: make([]counts, len(l.open)), machine: l.machine.kills(young)}
	for i, d := range l.open {
		c := &r.levels[i]
		if l.version == 1 {
			c.usage, c.limit = d.number("memory.usage_in_bytes", ""), d.number("memory.limit_in_bytes", "")
			c.kills, c.hits = d.number("memory.oom_control", "oom_kill"), d.number("memory.failcnt", "")
		} else {
			c.usage, c.limit = d.number("memory.current", ""), d.number("memory.max", "")
			c.kills, c.hits = d.number("memory.events", "oom_kill"), d.number("memory.events.local", "oom")
			if _, ok := c.hits.Get(); !ok { // before Linux 5.2
				c.hits = d.number("memory.events", "oom")
			}
		}
		if n, ok := c.limit.Get(); ok && n >= 1<<62 { // how version 1 says that there is none
			c.limit = memguard.Known[uint64](memguard.Unlimited)
		}
	}
	return r
}

// number reads a file that is a number, or the number of one of its lines.
func (d cgroupDir) number(name, line string) memguard.Value[uint64] {
	var buf [1024]byte
	n, err := d.read(name, buf[:])
	if err != nil || n == len(buf) {
		return memguard.Value[uint64]{}
	}
	return parseNumber(buf[:n], line)
}

func parseNumber(text []byte, line string) memguard.Value[uint64] {
	for l := range bytes.Lines(text) {
		f := bytes.Fields(l)
		if line != "" {
			if len(f) != 2 || string(f[0]) != line {
				continue
			}
			f = f[1:]
		}
		if len(f) != 1 {
			break
		}
		if string(f[0]) == "max" {
			return memguard.Known[uint64](memguard.Unlimited)
		}
		n, err := strconv.ParseUint(string(f[0]), 10, 64)
		if err != nil {
			break
		}
		return memguard.Known(n)
	}
	return memguard.Value[uint64]{}
}

// evidence compares what was counted well before the end began with what is now.
func (l *levels) evidence(began time.Time, exact bool, after levelReading) ([]incident.Level, incident.Machine) {
	margin := levelsBefore
	if exact {
		margin = levelsBefore / 3
	}
	var before, last levelReading
	for i := range l.kept { // the oldest first
		k := l.kept[(l.next+i)%len(l.kept)]
		if k.at.IsZero() {
			continue
		}
		if before.at.IsZero() || began.Sub(k.at) >= margin {
			before = k
		}
		last = k
	}
	out := make([]incident.Level, 0, len(l.dirs))
	for i, dir := range l.dirs {
		level := incident.Level{Dir: dir}
		if i < len(last.levels) {
			level.Limit, level.Usage = last.levels[i].limit, last.levels[i].usage
		}
		if i < len(before.levels) {
			level.Before, level.HitBefore = before.levels[i].kills, before.levels[i].hits
		}
		if i < len(after.levels) {
			level.After, level.HitAfter = after.levels[i].kills, after.levels[i].hits
		}
		out = append(out, level)
	}
	return out, incident.Machine{Before: before.machine, After: after.machine}
}

// machine is the kernel's count of all processes that it has killed for lack of
// memory since the machine was started (/proc/vmstat, Linux 4.13).
type machine struct {
	mu sync.Mutex
	at time.Time
	n  memguard.Count
}

// machineYoung is how old the count may be: many targets ask at once.
const machineYoung = 100 * time.Millisecond

func (m *machine) kills(young time.Duration) memguard.Count {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.at.IsZero() && time.Since(m.at) < young {
		return m.n
	}
	m.at, m.n = time.Now(), memguard.Count{}
	b, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return m.n
	}
	if i := bytes.Index(b, []byte("\noom_kill ")); i >= 0 {
		m.n = parseNumber(b[i+1:], "oom_kill")
	}
	return m.n
}
