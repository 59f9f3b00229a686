// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"time"

	"github.com/memguard/memguard-go/scavenge/smaps"
)

// Row is one line of a ledger: so many bytes belong to Name.
type Row struct {
	Name  string       `json:"name"`
	Bytes Value[int64] `json:"bytes"`          // null when unknown; only go/untouched may be negative
	Why   string       `json:"why,omitempty"`  // why Bytes is unknown
	Note  string       `json:"note,omitempty"` // what the reader must know of the figure
}

// Ledger says which owner every resident byte of a process has. The rows that
// are known and the residual add up to RSS.
type Ledger struct {
	Time     time.Time     `json:"time"`
	PID      int           `json:"pid"`
	RSS      Bytes         `json:"rss"`
	Rows     []Row         `json:"rows"`
	Residual Value[int64]  `json:"residual"` // RSS less the sum of the rows
	Cgroup   *CgroupLedger `json:"cgroup"`   // nil when there is no memory cgroup to be seen
}

// Row returns the named row, false if the ledger has none or it is unknown.
func (l *Ledger) Row(name string) (int64, bool) { return row(l.Rows, name) }

// The names of a process ledger's rows.
const (
	RowHeap      = "go/heap"        // the heap's resident mappings as one, where the runtime's own figures are not seen
	RowLive      = "go/heap/live"   // marked by the last cycle
	RowDead      = "go/heap/dead"   // not marked by it: garbage, or allocated since
	RowUnused    = "go/heap/unused" // room in spans in use that holds no object
	RowFree      = "go/heap/free"   // idle, still resident
	RowStacks    = "go/stacks"      // goroutine stacks, and the stacks of threads
	RowMetadata  = "go/metadata"    // the runtime's own structures
	RowUntouched = "go/untouched"   // held by Go and never faulted in: negative
	RowRefill    = "thp/refill"     // heap resident beyond what Go thinks it holds
	RowBinary    = "binary"         // the executable and its data
	RowFile      = "file"           // other mapped files, shared libraries among them
	RowLibc      = "libc"           // brk heap and arenas of the C library
	RowAnon      = "anon/other"     // anonymous mappings of the program itself
	RowShmem     = "shmem"          // shared memory
	RowSpecial   = "special"        // vdso and the like
	RowLazyFree  = "lazyfree"       // given back with MADV_FREE, resident until the kernel needs it
	RowResidual  = "residual"
)

// NewLedger accounts for one sample. With the address space at hand
// (Sample.Process.Maps) every mapping is told apart; without it, on a tick, what
// is not the Go heap's is known only as anonymous or shared.
func NewLedger(s *Sample) *Ledger {
	l := &Ledger{Time: s.Time, PID: s.PID, RSS: s.Process.RSS, Cgroup: newCgroupLedger(s)}
	if s.Process.Maps != nil {
		l.fromMaps(s)
	} else {
		l.fromTick(s)
	}
	l.Residual = residual(l.RSS, l.Rows)
	return l
}

// add appends a row of n bytes.
func (l *Ledger) add(name string, n uint64, note string) {
	l.Rows = append(l.Rows, Row{Name: name, Bytes: Known(int64(n)), Note: note})
}

// unknown appends rows that could not be read.
func (l *Ledger) unknown(why string, names ...string) {
	for _, name := range names {
		l.Rows = append(l.Rows, Row{Name: name, Why: why})
	}
}

// fromMaps accounts with every mapping known.
func (l *Ledger) fromMaps(s *Sample) {
	maps := s.Process.Maps
	// resident is a kind's memory less what is only waiting to be taken back.
	var lazy uint64
	resident := func(kinds ...smaps.Kind) (sum uint64) {
		for _, k := range kinds {
			f := maps.ByKind(k)
			n, _ := f.Bytes(smaps.Rss) // a mapping without Rss is a syntax error of smaps, and shows as residual
			z, _ := f.Bytes(smaps.LazyFree)
			lazy += z
			sum += n - min(n, z)
		}
		return sum
	}
	anonNote := ""
	anon := resident(smaps.Anon)
	if s.Process.Go {
		metadata, more := resident(smaps.GoMetadata), uint64(0)
		if claimed, ok := plus(s.Runtime.Metadata, s.Runtime.OSStacks).Get(); ok && metadata > claimed {
			// By shape alone a mapping of the program can look like the runtime's.
			metadata, more = claimed, metadata-claimed
			anonNote = "mappings that look like the runtime's, beyond what it says it holds, are counted here"
		}
		anon += more
		l.heap(&s.Runtime, resident(smaps.GoHeap), resident(smaps.Stack))
		l.add(RowMetadata, metadata, "")
	} else {
		l.add(RowStacks, resident(smaps.Stack), "threads' and main stack")
	}
	l.add(RowBinary, resident(smaps.Binary), "")
	l.add(RowFile, resident(smaps.File), "")
	l.add(RowLibc, resident(smaps.Brk, smaps.LibcArena), "")
	l.add(RowAnon, anon, anonNote)
	l.add(RowShmem, resident(smaps.Shmem), "")
	l.add(RowSpecial, resident(smaps.Special), "")
	l.add(RowLazyFree, lazy, "")
}

// heap accounts for the heap's arenas: rss bytes of them are resident.
func (l *Ledger) heap(r *Runtime, rss, threads uint64) {
	claimed, ok := r.heapClaimed().Get()
	if !ok {
		why := "the runtime's own figures cannot be seen from outside the process"
		l.add(RowHeap, rss, "live, dead, unused and free heap and goroutine stacks as one: "+why)
		l.unknown(why, RowLive, RowDead, RowUnused, RowFree)
		l.add(RowStacks, threads, "threads' and main stack; goroutine stacks are in "+RowHeap)
		l.unknown(why, RowUntouched, RowRefill)
		return
	}
	l.classes(r, threads)
	untouched, refill := Row{Name: RowUntouched}, Row{Name: RowRefill}
	if d := int64(rss) - int64(claimed); d < 0 {
		untouched.Bytes, refill.Bytes = Known(d), Known[int64](0)
		untouched.Note = "counted in the rows above, but never faulted in"
	} else {
		untouched.Bytes, refill.Bytes = Known[int64](0), Known(d)
	}
	l.Rows = append(l.Rows, untouched, refill)
}

// classes appends the heap's and the stacks' rows as the runtime counts them.
func (l *Ledger) classes(r *Runtime, threads uint64) {
	objects, _ := r.Objects.Get()
	unused, _ := r.Unused.Get()
	free, _ := r.Free.Get()
	stacks, _ := r.Stacks.Get()
	if live, ok := r.Live.Get(); ok {
		live = min(live, objects)
		l.add(RowLive, live, "")
		l.add(RowDead, objects-live, "not marked by the last cycle: garbage, or allocated since")
	} else {
		l.unknown("no collection has completed yet", RowLive)
		l.add(RowDead, objects, "no collection has completed yet: live objects are in here")
	}
	l.add(RowUnused, unused, "")
	l.add(RowFree, free, "")
	l.add(RowStacks, stacks+threads, "")
}

// fromTick accounts with the runtime's figures and the size of RSS alone.
func (l *Ledger) fromTick(s *Sample) {
	const why = "needs smaps, which is not read on a tick"
	shared, ok := s.Process.Shared.Get()
	anon, ok2 := s.Process.anon().Get()
	claimed, ok3 := s.Runtime.heapClaimed().Get()
	metadata, ok4 := plus(s.Runtime.Metadata, s.Runtime.OSStacks).Get()
	if !ok || !ok2 {
		l.unknown("the resident size is unknown", RowFile, RowAnon)
		return
	}
	if !ok3 || !ok4 {
		l.add(RowFile, shared, "executable, files and shared memory as one")
		l.add(RowAnon, anon, "all anonymous memory as one")
		return
	}
	l.classes(&s.Runtime, 0)
	l.add(RowMetadata, metadata, "as mapped; a part of it was never touched")
	other := int64(anon) - int64(claimed) - int64(metadata)
	l.Rows = append(l.Rows, Row{Name: RowUntouched, Bytes: Known(min(other, 0)), Note: "net of anonymous memory that is not Go's"})
	l.add(RowFile, shared, "executable, files and shared memory as one")
	l.add(RowAnon, uint64(max(other, 0)), "all anonymous memory that is not Go's, less go/untouched")
	l.unknown(why, RowRefill, RowBinary, RowLibc, RowShmem, RowSpecial, RowLazyFree)
}

// row finds a row by name.
func row(rows []Row, name string) (int64, bool) {
	for _, r := range rows {
		if r.Name == name {
			return r.Bytes.Get()
		}
	}
	return 0, false
}

// residual is what the known rows leave of the kernel's figure.
func residual(total Bytes, rows []Row) Value[int64] {
	n, ok := total.Get()
	if !ok {
		return Value[int64]{}
	}
	rest := int64(n)
	for _, r := range rows {
		b, _ := r.Bytes.Get()
		rest -= b
	}
	return Known(rest)
}
