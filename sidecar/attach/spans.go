// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"context"
	"fmt"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
)

// SizeClass is what the spans of one size class hold. No API of the runtime
// tells it. Class 0 are large objects, each with a span of its own.
type SizeClass struct {
	Class   int    `json:"class"`
	Size    uint64 `json:"object_bytes"` // 0 for large objects
	Spans   uint64 `json:"spans"`
	Bytes   uint64 `json:"bytes"`   // of all its spans
	Objects uint64 `json:"objects"` // allocated, or dead and not yet swept
	Slots   uint64 `json:"slots"`
	Free    uint64 `json:"free_bytes"` // in slots that hold no object
	Tail    uint64 `json:"tail_bytes"` // at the ends of spans, too small for a slot
	// Occupancy counts spans that are up to a quarter, half, three quarters full,
	// fuller, and full.
	Occupancy [5]uint64 `json:"occupancy"`
}

// States of a span (runtime/mheap.go, mSpanState).
const (
	spanDead   = 0
	spanInUse  = 1 // heap
	spanManual = 2 // stacks
)

// span is an mspan.
type span struct {
	start, pages  uint64
	elems         uint64
	count, before uint64 // objects allocated; when a P took the span
	class         int
	noscan        bool
	state         uint8
	elemSize      uint64
}

// span decodes an mspan.
func (t *Target) span(b []byte) span {
	f := &t.layout.MSpan
	s := span{
		start: u64(b, f.StartAddr), pages: u64(b, f.NPages), elems: u64(b, f.NElems),
		count: u16(b, f.AllocCount), before: u16(b, f.BeforeCache), elemSize: u64(b, f.ElemSize),
		class: int(b[f.SpanClass]) >> 1, noscan: b[f.SpanClass]&1 != 0, state: b[f.State],
	}
	if t.narrowElems() {
		s.elems &= 0xffff
	}
	return s
}

// narrowElems: nelems is a word in Go 1.21 and 16 bits since, with freeindex
// right behind it.
func (t *Target) narrowElems() bool {
	f := &t.layout.MSpan
	return f.NElems%8 != 0
}

func u16(b []byte, off layout.Off) uint64 {
	if off < 0 || int(off)+2 > len(b) {
		return 0
	}
	return uint64(le.Uint16(b[off:]))
}

// sane reports whether a span in use can be one.
func (t *Target) sane(s *span) bool {
	classes := t.layout.SizeClasses
	switch {
	case s.start%pageSize != 0 || s.pages == 0 || s.pages > 1<<35 || s.class >= len(classes):
		return false
	case s.class > 0 && s.elemSize != uint64(classes[s.class]), s.elemSize == 0:
		return false
	}
	return s.elems > 0 && s.count <= s.elems && s.elems <= s.pages*pageSize/s.elemSize
}

// spans walks over all spans. Between the collector's count before and after, a
// busy target's spans may add up to anything; a walk that is far from both is
// taken again.
func (t *Target) spans(ctx context.Context, s *Snapshot, sc *scalars) error {
	before := u64(sc.gc, t.layout.GC.HeapInUse)
	for try := range tries {
		w, err := t.walkSpans(ctx)
		if err != nil {
			return err
		}
		var word [8]byte
		if err := t.mem.Read(t.globals["runtime.gcController"]+uint64(t.layout.GC.HeapInUse), word[:]); err != nil {
			return err
		}
		after := le.Uint64(word[:])
		if slack := max(before, after)/4 + 1<<20; w.inUse+slack < min(before, after) || w.inUse > max(before, after)+slack {
			if try+1 == tries {
				return fmt.Errorf("the spans in use add up to %d bytes, and the collector counts %d before and %d after", w.inUse, before, after)
			}
			s.How.Retries++
			before = after
			continue
		}
		s.SizeClasses = w.classes
		want := before
		if distance(after, w.inUse) < distance(before, w.inUse) {
			want = after
		}
		s.Checks = append(s.Checks, Check{"heap in use: collector's count against the sum of spans", want, w.inUse})
		if n, ok := s.Heap.Objects.Get(); ok {
			s.Checks = append(s.Checks, Check{"objects: counters against the sum of spans", n, w.objects})
		}
		if w.torn > 0 {
			s.cannot(fmt.Sprintf("%d of %d spans", w.torn, w.all), "they changed while they were read")
		}
		return nil
	}
	return nil
}

// spanWalk is what a walk over all spans found.
type spanWalk struct {
	classes        []SizeClass
	inUse, objects uint64 // bytes
	all, torn      uint64 // spans
}

func (t *Target) walkSpans(ctx context.Context) (*spanWalk, error) {
	var all slice
	var p plan
	p.add(t.globals["runtime.mheap_"]+uint64(t.layout.MHeap.AllSpans), 16, func(b []byte) { all = slice{le.Uint64(b), le.Uint64(b[8:])} })
	if err := t.read(&p); err != nil {
		return nil, err
	}
	if all.len > maxSpans {
		return nil, fmt.Errorf("%d spans: %w", all.len, errTooMany)
	}
	w := &spanWalk{classes: make([]SizeClass, len(t.layout.SizeClasses)), all: all.len}
	for i, size := range t.layout.SizeClasses {
		w.classes[i].Class, w.classes[i].Size = i, uint64(size)
	}
	bad, err := t.walk(ctx, all, int(t.layout.MSpan.Size), func(_ uint64, b []byte) {
		sp := t.span(b)
		if sp.state != spanInUse {
			return
		}
		if !t.sane(&sp) {
			w.torn++ // it was taken apart or put together meanwhile
			return
		}
		c := &w.classes[sp.class]
		c.Spans++
		c.Bytes += sp.pages * pageSize
		c.Objects += sp.count
		c.Slots += sp.elems
		c.Free += (sp.elems - sp.count) * sp.elemSize
		c.Tail += sp.pages*pageSize - sp.elems*sp.elemSize
		c.Occupancy[sp.count*4/sp.elems]++
		w.inUse += sp.pages * pageSize
		w.objects += sp.count * sp.elemSize
	})
	w.torn += bad
	return w, err
}

// fillQueues reads how many finalizers and cleanups wait.
func (t *Target) fillQueues(s *Snapshot, sc *scalars) {
	if sc.has["runtime.finqueued"] && sc.has["runtime.finexecuted"] {
		s.Finalizers.Queued, s.Finalizers.Executed = memguard.Known(sc.finQueued), memguard.Known(sc.finExecuted)
	}
	switch n, err := t.pendingFinalizers(sc); {
	case !sc.has["runtime.allfin"]:
		s.cannot("finalizers.pending", "runtime.allfin not found in the "+t.located)
	case err != nil:
		s.cannot("finalizers.pending", err)
	default:
		s.Finalizers.Pending = memguard.Known(n)
	}
	if sc.cleanups == nil {
		if t.layout.Cleanup.Executed.Has() {
			s.cannot("cleanups", "runtime.gcCleanups not found in the "+t.located)
		}
		return
	}
	queued, executed := u64(sc.cleanups, t.layout.Cleanup.Queued), u64(sc.cleanups, t.layout.Cleanup.Executed)
	for _, p := range sc.ps {
		queued += p.cleanups
	}
	s.Cleanups.Queued, s.Cleanups.Executed = memguard.Known(queued), memguard.Known(executed)
	s.Cleanups.Pending = memguard.Known(queued - min(queued, executed)) // not read at one instant
}

// maxFinBlocks bounds the list of finalizer blocks, of 4 KiB each.
const maxFinBlocks = 1 << 16

// pendingFinalizers counts them in all blocks that there are; a block counts down
// as its finalizers return (runtime/mfinal.go). No block is ever freed.
func (t *Target) pendingFinalizers(sc *scalars) (uint64, error) {
	f := &t.layout.Fin
	b := make([]byte, max(f.AllLink, f.Count)+8)
	var n uint64
	at := sc.allfin
	for i := 0; at != 0; i++ {
		if i == maxFinBlocks {
			return 0, errTooMany
		}
		if err := t.mem.Read(at, b); err != nil {
			return 0, err
		}
		count := u32(b, f.Count)
		if count > 4096/8 {
			return 0, fmt.Errorf("a block with %d finalizers", count)
		}
		n += uint64(count)
		at = u64(b, f.AllLink)
	}
	return n, nil
}
