// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/incident"
)

// The rows of a timeline, the lowest of the stack first. They add up to about what
// the cgroup is charged for; to the process's RSS where there is none.
var timelineRows = []string{
	memguard.RowLive, memguard.RowDead, memguard.RowUnused, memguard.RowFree, memguard.RowStacks, memguard.RowMetadata,
	memguard.RowAnon, RowOthers, memguard.RowShmem, memguard.RowKernel,
	memguard.RowCacheLocked, memguard.RowCacheActive, memguard.RowCacheInactive, memguard.RowFile,
}

// RowOthers is anonymous memory of the cgroup's other processes.
const RowOthers = "others"

// How long what is kept. The finest has every look, the others one in so much time:
// of a minute the one with the highest usage, which is what a day is looked at for.
const (
	fineKept   = 256
	secondKept = 600
	minuteKept = 24 * 60
)

// unit is that of a point: a page, so that 16 TiB fit into 32 bits.
const unit = 4096

const (
	unknown   = math.MaxUint32
	unlimited = unknown - 1 // of a limit: there is none
)

// point is a moment, compact: a day of it for fifty targets is a few megabytes.
type point struct {
	at           time.Duration // after the first point of all
	pid          int32
	usage, limit uint32
	rows         [14]uint32
}

// timeline is the memory of a target through all its lives. The zero timeline is empty.
type timeline struct {
	mu                   sync.Mutex
	born                 time.Time // the first point; what follows is by the monotonic clock
	fine, second, minute ring
}

// ring grows up to most points, and then each takes the oldest's place.
type ring struct {
	points []point
	next   int
}

func (r *ring) add(p point, most int) {
	if len(r.points) < most {
		r.points = append(r.points, p)
		return
	}
	r.points[r.next] = p
	r.next = (r.next + 1) % most
}

// last is the youngest; nil if there is none.
func (r *ring) last() *point {
	n := len(r.points)
	if n == 0 {
		return nil
	}
	return &r.points[(r.next+n-1)%n]
}

// from is the age of the oldest.
func (r *ring) from() time.Duration {
	if len(r.points) == 0 {
		return math.MaxInt64
	}
	return r.points[r.next].at
}

// each calls do for all before a time, the oldest first.
func (r *ring) each(before time.Duration, do func(*point)) {
	for i := range r.points {
		if p := &r.points[(r.next+i)%len(r.points)]; p.at < before {
			do(p)
		}
	}
}

// add takes in a ledger of that time.
func (t *timeline) add(at time.Time, pid int, l *memguard.Ledger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.born.IsZero() {
		t.born = at
	}
	p := pointOf(l)
	p.at, p.pid = at.Sub(t.born), int32(pid)
	if last := t.fine.last(); last != nil && p.at < last.at {
		return // two sources: the older look came later
	}
	t.fine.add(p, fineKept)
	if last := t.second.last(); last == nil || p.at-last.at >= 950*time.Millisecond {
		t.second.add(p, secondKept)
	}
	switch last := t.minute.last(); {
	case last == nil || p.at/time.Minute != last.at/time.Minute:
		t.minute.add(p, minuteKept)
	case p.usage != unknown && (last.usage == unknown || p.usage > last.usage):
		*last = p
	}
}

// pointOf takes of a ledger what is drawn.
func pointOf(l *memguard.Ledger) point {
	p := point{usage: pages(l.RSS.Get()), limit: unknown}
	rows := map[string]int64{}
	for _, r := range l.Rows {
		if n, ok := r.Bytes.Get(); ok {
			rows[r.Name] = n
		}
	}
	// What Go holds and never touched is in its rows, and is not there.
	untouched := -min(rows[memguard.RowUntouched], 0)
	for _, name := range []string{memguard.RowMetadata, memguard.RowFree, memguard.RowUnused, memguard.RowDead} {
		n := min(untouched, max(rows[name], 0))
		if _, ok := rows[name]; ok {
			rows[name] -= n
			untouched -= n
		}
	}
	if c := l.Cgroup; c != nil {
		p.usage, p.limit = pages(c.Usage.Get()), pages(c.Limit.Get())
		if c.Unlimited {
			p.limit = unlimited
		}
		rss, ok := l.RSS.Get()
		file, ok2 := rows[memguard.RowFile]
		// Files are page cache here, and shared memory has a row of its own there.
		delete(rows, memguard.RowFile)
		delete(rows, memguard.RowShmem)
		var anon int64
		known := false
		for _, r := range c.Rows {
			n, isKnown := r.Bytes.Get()
			if !isKnown {
				continue
			}
			switch r.Name {
			case memguard.RowShmem, memguard.RowCacheActive, memguard.RowCacheInactive, memguard.RowCacheLocked, memguard.RowKernel:
				rows[r.Name] = n
			case memguard.RowProcesses:
				anon, known = n, true
			}
		}
		if known && ok && ok2 {
			rows[RowOthers] = max(anon-(int64(rss)-file), 0)
		}
	}
	for i, name := range timelineRows {
		n, ok := rows[name]
		p.rows[i] = pages(uint64(max(n, 0)), ok)
	}
	return p
}

// limitOf is a limit, memguard.Unlimited where there is none.
func limitOf(n uint32) memguard.Bytes {
	if n == unlimited {
		return memguard.Known[uint64](memguard.Unlimited)
	}
	return size(n)
}

// pages is a size in units; too large is unknown.
func pages(n uint64, ok bool) uint32 {
	if !ok || n/unit >= unlimited {
		return unknown
	}
	return uint32(n / unit)
}

func size(n uint32) memguard.Bytes {
	if n == unknown {
		return memguard.Bytes{}
	}
	return memguard.Known(uint64(n) * unit)
}

// read returns the points since then, by the clock as it stands now: one that was
// set between does not put them into another order.
func (t *timeline) read(now, since time.Time) *incident.Timeline {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := &incident.Timeline{Rows: slices.Clone(timelineRows), Points: []incident.Point{}}
	age := now.Sub(t.born)
	wall := now.Round(0)
	add := func(p *point) {
		at := wall.Add(p.at - age)
		if at.Before(since) {
			return
		}
		q := incident.Point{Time: at, PID: int(p.pid), Usage: size(p.usage), Limit: limitOf(p.limit), Rows: make([]memguard.Value[int64], len(p.rows))}
		for i, n := range p.rows {
			if n != unknown {
				q.Rows[i] = memguard.Known(int64(n) * unit)
			}
		}
		out.Points = append(out.Points, q)
	}
	fine := t.fine.from()
	second := min(t.second.from(), fine)
	t.minute.each(second, add)
	t.second.each(fine, add)
	t.fine.each(math.MaxInt64, add)
	return out
}
