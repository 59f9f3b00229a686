// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
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
	RowThreads   = "stacks"         // of threads, in a program that is not Go
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

// add appends a row; why says what an unknown one lacks.
func (l *Ledger) add(name string, b Bytes, why, note string) {
	r := Row{Name: name, Bytes: signed(b), Why: why}
	if _, ok := r.Bytes.Get(); ok {
		r.Why, r.Note = "", note
	}
	l.Rows = append(l.Rows, r)
}

// unknown appends rows that could not be read.
func (l *Ledger) unknown(why string, names ...string) {
	for _, name := range names {
		l.add(name, Bytes{}, why, "")
	}
}

// Why a row is unknown.
const (
	noRss      = "smaps does not tell the resident size of every such mapping"
	noResident = "the resident size is unknown"
	noMaps     = "needs smaps, which was not read"
	noLazyFree = "smaps has no LazyFree: a kernel before 4.12"
	noClasses  = "this Go release does not tell all of its memory classes"
	outside    = "the runtime's own figures cannot be seen from outside the process"
)

// fromMaps accounts with every mapping known.
func (l *Ledger) fromMaps(s *Sample) {
	maps := s.Process.Maps
	total := maps.Total()
	_, hasLazy := total.Bytes(smaps.LazyFree)
	var lazy uint64
	// resident is a kind's memory less what is only waiting to be taken back.
	resident := func(kinds ...smaps.Kind) Bytes {
		sum := Known[uint64](0)
		for _, k := range kinds {
			f := maps.ByKind(k)
			n, ok := f.Bytes(smaps.Rss)
			if !ok {
				return Bytes{}
			}
			if z, ok := f.Bytes(smaps.LazyFree); ok && hasLazy {
				z = min(z, n)
				lazy += z // fits: the sum over all mappings does
				n -= z
			}
			sum = plus(sum, Known(n))
		}
		return sum
	}
	anonNote := ""
	anon := resident(smaps.Anon)
	if s.Process.Go {
		metadata := resident(smaps.GoMetadata)
		claimed, ok := plus(s.Runtime.Metadata, s.Runtime.OSStacks).Get()
		if n, ok2 := metadata.Get(); ok && ok2 && n > claimed {
			// By shape alone a mapping of the program can look like the runtime's.
			metadata, anon = Known(claimed), plus(anon, Known(n-claimed))
			anonNote = "mappings that look like the runtime's, beyond what it says it holds, are counted here"
		}
		l.heap(&s.Runtime, resident(smaps.GoHeap), resident(smaps.Stack))
		l.add(RowMetadata, metadata, noRss, "")
	} else {
		l.add(RowThreads, resident(smaps.Stack), noRss, "threads' and main stack")
	}
	l.add(RowBinary, resident(smaps.Binary), noRss, "")
	l.add(RowFile, resident(smaps.File), noRss, copiesNote(maps.ByKind(smaps.File)))
	l.add(RowLibc, resident(smaps.Brk, smaps.LibcArena), noRss, "")
	l.add(RowAnon, anon, noRss, anonNote)
	l.add(RowShmem, resident(smaps.Shmem), noRss, "")
	l.add(RowSpecial, resident(smaps.Special), noRss, "")
	if hasLazy {
		l.add(RowLazyFree, Known(lazy), noLazyFree, "")
	} else {
		l.unknown(noLazyFree, RowLazyFree)
	}
}

// copiesNote warns of mapped files that are mostly the process's own: a page of a
// private mapping that is written to is anonymous from then on.
func copiesNote(files smaps.Fields) string {
	copies, ok := files.Bytes(smaps.Anonymous)
	rss, ok2 := files.Bytes(smaps.Rss)
	if !ok || !ok2 || copies <= rss/2 {
		return ""
	}
	return "most of it is private copies of pages that were written to, which cannot be dropped"
}

// heap accounts for the heap's arenas: rss bytes of them are resident.
func (l *Ledger) heap(r *Runtime, rss, threads Bytes) {
	claimed := r.heapClaimed()
	if _, ok := claimed.Get(); !ok {
		why := r.whyNoClasses()
		l.add(RowHeap, rss, noRss, "live, dead, unused and free heap and goroutine stacks as one")
		l.unknown(why, RowLive, RowDead, RowUnused, RowFree)
		l.add(RowStacks, threads, noRss, "threads' and main stack; goroutine stacks are in "+RowHeap)
		l.unknown(why, RowUntouched, RowRefill)
		return
	}
	l.classes(r, threads)
	beyond, ok := minus(rss, claimed).Get()
	if !ok {
		l.unknown(noRss, RowUntouched, RowRefill)
		return
	}
	untouched := Row{Name: RowUntouched, Bytes: Known(min(beyond, 0))}
	if beyond < 0 {
		untouched.Note = "counted in the rows above, but never faulted in"
	}
	l.Rows = append(l.Rows, untouched, Row{Name: RowRefill, Bytes: Known(max(beyond, 0))})
}

// whyNoClasses says why the memory classes are unknown.
func (r *Runtime) whyNoClasses() string {
	if r.Origin == FromRuntime {
		return noClasses
	}
	return outside
}

// classes appends the heap's and the stacks' rows as the runtime counts them;
// heapClaimed is known.
func (l *Ledger) classes(r *Runtime, threads Bytes) {
	objects, _ := r.Objects.Get()
	if live, ok := r.Live.Get(); ok {
		live = min(live, objects)
		l.add(RowLive, Known(live), noClasses, "")
		l.add(RowDead, Known(objects-live), noClasses, "not marked by the last cycle: garbage, or allocated since")
	} else {
		l.unknown("no collection has completed yet", RowLive)
		l.add(RowDead, r.Objects, noClasses, "no collection has completed yet: live objects are in here")
	}
	l.add(RowUnused, r.Unused, noClasses, "")
	l.add(RowFree, r.Free, noClasses, "")
	l.add(RowStacks, plus(r.Stacks, threads), noRss, "")
}

// fromTick accounts with the runtime's figures and the size of RSS alone.
func (l *Ledger) fromTick(s *Sample) {
	const fileNote = "executable, files and shared memory as one"
	anon := s.Process.anon()
	metadata := plus(s.Runtime.Metadata, s.Runtime.OSStacks)
	claimed := plus(s.Runtime.heapClaimed(), metadata)
	if _, ok := claimed.Get(); ok {
		l.classes(&s.Runtime, Known[uint64](0))
		l.add(RowMetadata, metadata, noClasses, "as mapped; a part of it was never touched")
		if other, ok := minus(anon, claimed).Get(); ok {
			l.Rows = append(l.Rows, Row{Name: RowUntouched, Bytes: Known(min(other, 0)), Note: "net of anonymous memory that is not Go's"})
			l.add(RowAnon, Known(uint64(max(other, 0))), "", "all anonymous memory that is not Go's, less "+RowUntouched)
		} else {
			l.unknown(noResident, RowUntouched, RowAnon)
		}
		l.unknown(noMaps, RowRefill)
	} else {
		if s.Process.Go {
			l.unknown(s.Runtime.whyNoClasses(), RowLive, RowDead, RowUnused, RowFree, RowStacks, RowMetadata, RowUntouched, RowRefill)
		}
		l.add(RowAnon, anon, noResident, "all anonymous memory as one")
	}
	l.add(RowFile, s.Process.Shared, noResident, fileNote)
	l.unknown(noMaps, RowBinary, RowLibc, RowShmem, RowSpecial, RowLazyFree)
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

// residual is what the known rows leave of the kernel's figure, unknown where
// they add up to more than can be.
func residual(total Bytes, rows []Row) Value[int64] {
	rest, ok := signed(total).Get()
	if !ok {
		return Value[int64]{}
	}
	for _, r := range rows {
		b, _ := r.Bytes.Get()
		if b > 0 && rest < math.MinInt64+b || b < 0 && rest > math.MaxInt64+b {
			return Value[int64]{}
		}
		rest -= b
	}
	return Known(rest)
}
