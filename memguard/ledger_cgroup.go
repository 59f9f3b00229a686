// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"cmp"
	"strconv"
)

// CgroupLedger says what a memory cgroup is charged for. The rows that are
// known and the residual add up to Usage.
type CgroupLedger struct {
	Path      string       `json:"path"`
	Version   int          `json:"version"`
	Usage     Bytes        `json:"usage"`
	Limit     Bytes        `json:"limit"` // null when unknown, and when there is none
	Unlimited bool         `json:"unlimited"`
	Rows      []Row        `json:"rows"`
	Residual  Value[int64] `json:"residual"` // Usage less the sum of the rows
}

const notInStat = "not in memory.stat"

// Row returns the named row, false if the ledger has none or it is unknown.
func (l *CgroupLedger) Row(name string) (int64, bool) { return row(l.Rows, name) }

// The names of a cgroup ledger's rows, beside "process/<pid>".
const (
	RowCacheActive   = "pagecache/active"
	RowCacheInactive = "pagecache/inactive"
	RowCacheLocked   = "pagecache/locked" // by mlock(2), or the like
	RowKernel        = "kernel"           // slab, page tables, kernel stacks, sockets
	RowDeferredSplit = "deferred-split"   // anonymous memory charged here that no process here has resident
	rowProcess       = "process/"         // and the pid: its anonymous memory
	RowProcesses     = "processes"        // anonymous memory as one, where the processes were not looked at
)

func newCgroupLedger(s *Sample) *CgroupLedger {
	c := &s.Cgroup
	if c.Version == 0 {
		return nil
	}
	l := &CgroupLedger{Path: c.Path, Version: c.Version, Usage: c.Usage}
	if n, ok := c.Limit.Get(); ok && n == Unlimited {
		l.Unlimited = true
	} else {
		l.Limit = c.Limit
	}
	l.processes(c)
	add := func(name string, b Bytes, why, note string) {
		r := Row{Name: name, Bytes: signed(b), Why: why}
		if _, ok := r.Bytes.Get(); ok {
			r.Why, r.Note = "", note
		}
		l.Rows = append(l.Rows, r)
	}
	add(RowShmem, c.Shmem, notInStat, "")
	active, inactive, locked := c.pageCache()
	add(RowCacheActive, active, notInStat, "")
	add(RowCacheInactive, inactive, notInStat, "dropped first")
	add(RowCacheLocked, locked, notInStat, "")
	add(RowKernel, c.Kernel, "the kernel does not tell it here, or does not count it in the usage (root of version 1)", "")
	l.Residual = residual(c.Usage, l.Rows)
	return l
}

// pageCache tells how much page cache is on the reclaim lists. The inactive list
// also has anonymous memory on it that was given back with MADV_FREE, which the
// processes' rows hold already; locked pages are on neither.
func (c *Cgroup) pageCache() (active, inactive, locked Bytes) {
	file, ok := c.File.Get()
	unevictable, ok2 := c.Unevictable.Get()
	a, ok3 := c.ActiveFile.Get()
	i, ok4 := c.InactiveFile.Get()
	if !ok || !ok2 || !ok3 || !ok4 {
		return c.ActiveFile, c.InactiveFile, Bytes{}
	}
	a = min(a, file)
	i = min(i, file-a)
	return Known(a), Known(i), Known(min(unevictable, file-a-i))
}

// processes accounts for the anonymous memory: a row for each process, and what
// the cgroup is charged for beyond them.
func (l *CgroupLedger) processes(c *Cgroup) {
	charged, isCharged := signed(c.Anon).Get()
	if c.Members == nil {
		r := Row{Name: RowProcesses, Why: notInStat}
		if isCharged {
			r = Row{Name: RowProcesses, Bytes: Known(charged), Note: "anonymous memory of all processes"}
		}
		l.Rows = append(l.Rows, r)
		return
	}
	sum := Known[uint64](0)
	for _, m := range c.Members {
		r := Row{Name: rowProcess + strconv.Itoa(m.PID), Bytes: signed(m.Anon), Why: cmp.Or(m.Why, "its size cannot be")}
		if _, ok := r.Bytes.Get(); ok {
			r.Why, r.Note = "", "anonymous memory"
		}
		sum = plus(sum, m.Anon)
		l.Rows = append(l.Rows, r)
	}
	split := Row{Name: RowDeferredSplit}
	beyond, ok := minus(c.Anon, sum).Get()
	switch {
	case !isCharged:
		split.Why = notInStat
	case !ok:
		split.Why = "not every process could be read"
	default:
		// Less than nothing means that a process brought memory from another
		// cgroup: the residual shows it.
		split.Bytes = Known(max(beyond, 0))
		split.Note = "charged, but resident in no process here: huge pages not yet split, or pages of processes that have left"
	}
	l.Rows = append(l.Rows, split)
}
