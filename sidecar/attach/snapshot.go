// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/scavenge/smaps"
)

// FromAttach is the origin of a runtime's figures that were read by this package.
const FromAttach memguard.Origin = "attach"

// Parts says what a snapshot has beside the runtime's own figures, which take
// well under a millisecond whatever the size of the heap.
type Parts uint

// The parts. Each costs time in proportion to what it counts, in the reader
// alone.
const (
	Spans       Parts = 1 << iota // size classes, and what Ps have to themselves: one look at every span
	Goroutines                    // clusters: one look at every goroutine, and a few stacks of each cluster
	Stacks                        // with Goroutines: the stack of every goroutine, not of a few of each cluster
	HeapProfile                   // the runtime's sampled allocations
)

// Snapshot is the state of a target at about one moment. Byte counts are bytes.
//
// The runtime counts what a P allocates from its cached spans only when the P gives
// them back. With [Spans] that is read too, and allocations are those of
// runtime.MemStats; without, those of runtime/metrics: fewer by what the caches
// hide, at most a span of each class for each P.
type Snapshot struct {
	Time        time.Time        `json:"time"`
	PID         int              `json:"pid"`
	GoVersion   string           `json:"go_version"`
	How         How              `json:"how"`
	Heap        Heap             `json:"heap"`
	GC          GC               `json:"gc"`
	Caches      []Cache          `json:"caches"`       // of each P; nil without [Spans]
	SizeClasses []SizeClass      `json:"size_classes"` // nil without [Spans]
	Goroutines  GoroutineState   `json:"goroutines"`
	Finalizers  Queue            `json:"finalizers"`
	Cleanups    Queue            `json:"cleanups"` // Go 1.25 and later; before, they are finalizers
	Timers      memguard.Count   `json:"timers"`
	Checks      []Check          `json:"checks"`  // identities that hold in a target at rest
	Unknown     []memguard.Blind `json:"unknown"` // what could not be read, and why

	Arenas []smaps.Range `json:"-"` // where the heap is, for smaps.Hints.HeapRanges
	heap   *heapProfile  // nil without HeapProfile
	start  uint64        // where the program is in the target's memory
	limit  uint64
}

// The ways in which this package takes snapshots, as How.Way says.
const (
	Live     = "live"
	ExitHold = "exit hold" // after the end had begun
)

// How says how a snapshot was taken.
type How struct {
	Info
	Way     string         `json:"way"` // live, exit hold; or poll, oom-control, memory-events of one that package watch kept as the last before the end
	Took    time.Duration  `json:"took_ns"`
	Calls   uint64         `json:"syscalls"`
	Bytes   uint64         `json:"bytes_read"`
	Retries int            `json:"retries"` // the target changed what was being read
	Skew    memguard.Bytes `json:"skew"`    // bytes by which heap figures may be off, because the target allocated meanwhile; 0 at rest
}

// Heap is the runtime's account of its memory. The classes are those of
// runtime/metrics; Total = Objects + Unused + Free + Released + Stacks +
// OSStacks + Metadata.
type Heap struct {
	Total    memguard.Bytes `json:"total"`
	Objects  memguard.Bytes `json:"objects"`  // allocated and not yet swept (with Spans: MemStats.HeapAlloc)
	Unused   memguard.Bytes `json:"unused"`   // room in spans in use
	Free     memguard.Bytes `json:"free"`     // idle spans backed by memory
	Released memguard.Bytes `json:"released"` // idle spans given back
	Stacks   memguard.Bytes `json:"stacks"`
	OSStacks memguard.Bytes `json:"os_stacks"`
	Metadata memguard.Bytes `json:"metadata"`

	Live       memguard.Bytes `json:"live"` // marked by the last cycle; unknown before the first
	Goal       memguard.Bytes `json:"goal"`
	Trigger    memguard.Bytes `json:"trigger"`     // of the next cycle, as far as heap size decides
	TotalAlloc memguard.Bytes `json:"total_alloc"` // since start
	Mallocs    memguard.Count `json:"mallocs"`     // objects, since start
	Frees      memguard.Count `json:"frees"`
	Cached     memguard.Bytes `json:"cached"` // free slots in the spans that Ps have to themselves, and their free pages; unknown without [Spans]
}

// GC is the state of the collector.
type GC struct {
	Percent     memguard.Value[int64] `json:"percent"` // -1 is off
	MemoryLimit memguard.Bytes        `json:"memory_limit"`
	Phase       string                `json:"phase"` // off, mark or mark termination; empty when unknown
	Cycles      memguard.Count        `json:"cycles"`
	Forced      memguard.Count        `json:"forced"`
	Last        memguard.Value[int64] `json:"last_unix_ns"` // end of the last cycle; unknown before the first
	PauseTotal  memguard.Value[int64] `json:"pause_total_ns"`
	Pauses      []Pauses              `json:"pauses"` // stop-the-world pauses by length, nil when unknown

	over500us, over10ms memguard.Count
}

// Pauses is how many pauses were at least AtLeast long, and shorter than the next.
type Pauses struct {
	AtLeast time.Duration `json:"at_least_ns"`
	Count   uint64        `json:"count"`
}

// Cache is what one P keeps to itself.
type Cache struct {
	P       int            `json:"p"`
	Bytes   memguard.Bytes `json:"bytes"`   // free slots in its cached spans
	Objects memguard.Count `json:"objects"` // allocated from them since they were taken, not yet in the runtime's own counters
	Pages   memguard.Bytes `json:"pages"`   // free pages in its page cache
	Timers  memguard.Count `json:"timers"`
}

// Queue is a queue of finalizers or cleanups, and the goroutines that run them.
type Queue struct {
	Queued   memguard.Count `json:"queued"`   // since start (Go 1.25 and later)
	Executed memguard.Count `json:"executed"` // since start, in blocks (Go 1.25 and later)
	Pending  memguard.Count `json:"pending"`  // queued and not finished
	Runners  []Goroutine    `json:"runners"`  // with Goroutines
}

// Check is an identity that holds in a target at rest.
type Check struct {
	What string `json:"what"`
	Want uint64 `json:"want"`
	Got  uint64 `json:"got"`
}

// cannot notes that a figure is unknown.
func (s *Snapshot) cannot(what string, why any) {
	s.Unknown = append(s.Unknown, memguard.Blind{What: what, Why: fmt.Sprint(why)})
}

// maxTime bounds one snapshot, of a target that was made to take for ever. A
// million goroutines take half a second.
const maxTime = 30 * time.Second

// Snapshot reads the target's figures and the given parts. Figures that cannot be
// read are unknown and in Snapshot.Unknown. The error is ErrGone, ErrPermission,
// or that of ctx; with one the snapshot has what was read before, or is nil.
func (t *Target) Snapshot(ctx context.Context, parts Parts) (s *Snapshot, err error) {
	start := time.Now()
	cost := t.mem.Cost
	s = &Snapshot{Time: start, PID: t.pid, GoVersion: t.exe.Version, Unknown: []memguard.Blind{}}
	s.How.Info, s.How.Way = t.Info(), Live
	defer func() {
		t.buf = nil // up to a mebibyte, which a walk needs and who watches many targets does not
		if s != nil {
			s.How.Took = time.Since(start)
			s.How.Calls, s.How.Bytes = t.mem.Cost.Calls-cost.Calls, t.mem.Cost.Bytes-cost.Bytes
		}
	}()
	s.start, s.limit = t.exe.Extent()
	s.start, s.limit = s.start+t.bias, s.limit+t.bias
	sc, err := t.scalars(s, parts&Spans != 0)
	if err != nil {
		return nil, t.why(err)
	}
	defer sc.done()
	limited, cancel := context.WithDeadline(ctx, start.Add(maxTime))
	defer cancel()
	for _, part := range []struct {
		name string
		bit  Parts
		read func(context.Context, *Snapshot, *scalars) error
	}{
		{"spans", Spans, t.spans},
		{"goroutines", Goroutines, func(ctx context.Context, s *Snapshot, sc *scalars) error {
			return t.goroutines(ctx, s, sc, parts&Stacks != 0)
		}},
		{"heap profile", HeapProfile, t.heapProfile},
	} {
		if parts&part.bit == 0 {
			continue
		}
		if err := part.read(limited, s, sc); err != nil {
			s.cannot(part.name, err)
			if err := cmp.Or(t.ended(err), ctx.Err()); err != nil {
				return s, err
			}
		}
	}
	if !t.isAlive() {
		return s, fmt.Errorf("attach: pid %d: %w", t.pid, ErrGone)
	}
	return s, nil
}

// Runtime is the snapshot as memguard's ledger and detectors take it. Goroutines
// are those that runtime.NumGoroutine counts.
func (s *Snapshot) Runtime() memguard.Runtime {
	h, g := &s.Heap, &s.GC
	return memguard.Runtime{
		Origin: FromAttach,
		Total:  h.Total, Released: h.Released, Objects: h.Objects, Unused: h.Unused, Free: h.Free,
		Stacks: h.Stacks, OSStacks: h.OSStacks, Metadata: h.Metadata,
		Live: h.Live, Goal: h.Goal, GCPercent: g.Percent, MemoryLimit: g.MemoryLimit,
		Cycles: g.Cycles, Goroutines: s.Goroutines.Total,
		PausesOver500us: g.over500us, PausesOver10ms: g.over10ms,
	}
}
