// SPDX-License-Identifier: Apache-2.0

package memguard

import "strconv"

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

// Row returns the named row, false if the ledger has none or it is unknown.
func (l *CgroupLedger) Row(name string) (int64, bool) { return row(l.Rows, name) }

// The names of a cgroup ledger's rows, beside "process/<pid>".
const (
	RowCacheActive   = "pagecache/active"
	RowCacheInactive = "pagecache/inactive"
	RowKernel        = "kernel"         // slab, page tables, kernel stacks, sockets
	RowDeferredSplit = "deferred-split" // anonymous memory charged here that no process here has resident
	rowProcess       = "process/"       // and the pid: its anonymous memory
	RowProcesses     = "processes"      // anonymous memory as one, where the processes were not looked at
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
	add := func(name string, b Bytes, note string) {
		r := Row{Name: name, Note: note}
		if n, ok := b.Get(); ok {
			r.Bytes = Known(int64(n))
		} else {
			r.Why = "not in memory.stat"
		}
		l.Rows = append(l.Rows, r)
	}
	add(RowShmem, c.Shmem, "")
	add(RowCacheActive, c.ActiveFile, "")
	add(RowCacheInactive, c.InactiveFile, "dropped first")
	add(RowKernel, c.Kernel, "")
	l.Residual = residual(c.Usage, l.Rows)
	return l
}

// processes accounts for the anonymous memory: a row for each process, and what
// the cgroup is charged for beyond them.
func (l *CgroupLedger) processes(c *Cgroup) {
	charged, isCharged := c.Anon.Get()
	if c.Members == nil {
		r := Row{Name: RowProcesses, Why: "not in memory.stat"}
		if isCharged {
			r = Row{Name: RowProcesses, Bytes: Known(int64(charged)), Note: "anonymous memory of all processes"}
		}
		l.Rows = append(l.Rows, r)
		return
	}
	var sum uint64
	all := true
	for _, m := range c.Members {
		r := Row{Name: rowProcess + strconv.Itoa(m.PID), Why: m.Why}
		n, ok := m.Anon.Get()
		if ok {
			r.Bytes, r.Note = Known(int64(n)), "anonymous memory"
			sum += n
		}
		all = all && ok
		l.Rows = append(l.Rows, r)
	}
	split := Row{Name: RowDeferredSplit}
	switch {
	case !isCharged:
		split.Why = "not in memory.stat"
	case !all:
		split.Why = "not every process could be read"
	default:
		// Less than nothing means that a process brought memory from another
		// cgroup: the residual shows it.
		split.Bytes = Known(max(int64(charged)-int64(sum), 0))
		split.Note = "charged, but resident in no process here: huge pages not yet split, or pages of processes that have left"
	}
	l.Rows = append(l.Rows, split)
}
