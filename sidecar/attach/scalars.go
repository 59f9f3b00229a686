// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"syscall"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
	"github.com/memguard/memguard-go/sidecar/attach/internal/procmem"
)

// Bounds of what a target may make us read and keep.
const (
	maxPs     = 1 << 11
	maxArenas = 1 << 20 // 64 TiB of heap
	pageSize  = 8192    // of the runtime's page allocator (internal/runtime/gc/sizes.go, PageSize)
	arenaSize = 64 << 20
)

// Tries of a read that the target disturbs.
const tries = 4

// scalars is what is read of the runtime's own structures, which are at fixed
// addresses. How the runtime computes its figures from them is in
// readmemstats_m (runtime/mstats.go) and runtime/metrics.go.
type scalars struct {
	stats, gc, sched, heap []byte
	allp, allgs, arenas    slice
	phase                  uint32
	rate                   uint64 // runtime.MemProfileRate
	profCycle              uint32
	allfin, fing, mbuckets uint64
	finQueued, finExecuted uint64
	cleanups               []byte
	has                    map[string]bool // the globals that were found
	ps                     []proc
	cached                 delta // what Ps have allocated from their cached spans
}

// slice is a slice's header in the target.
type slice struct{ ptr, len uint64 }

// proc is a P.
type proc struct {
	addr     uint64
	id       uint32
	mcache   uint64
	pages    uint64 // free pages in its page cache
	timers   uint32
	cleanups uint64
}

// delta are allocation counters.
type delta struct {
	alloc, free, mallocs, frees uint64
}

// plan collects pieces to be read in one go.
type plan struct {
	ranges []procmem.Range
	then   []func(b []byte)
	size   int
}

func (p *plan) add(addr uint64, n int, then func(b []byte)) {
	p.ranges = append(p.ranges, procmem.Range{Addr: addr, Len: n})
	p.then = append(p.then, then)
	p.size += n
}

// read reads a plan's pieces into memory of its own and hands each out.
func (t *Target) read(p *plan) error {
	b := make([]byte, p.size)
	if err := t.mem.ReadAll(p.ranges, b); err != nil {
		return err
	}
	for i, r := range p.ranges {
		p.then[i](b[:r.Len:r.Len])
		b = b[r.Len:]
	}
	return nil
}

// ended returns the error of a process that is not there any more, or nil.
func (t *Target) ended(err error) error {
	if errors.Is(err, ErrGone) || !t.isAlive() {
		return fmt.Errorf("attach: pid %d: %w", t.pid, ErrGone)
	}
	return nil
}

// why explains why the scalars could not be read.
func (t *Target) why(err error) error {
	if err := t.ended(err); err != nil {
		return err
	}
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		return refused(t.pid, err)
	}
	return fmt.Errorf("attach: pid %d: %w", t.pid, err)
}

// first reads everything at fixed addresses.
func (t *Target) first() (*scalars, error) {
	l := t.layout
	sc := &scalars{has: map[string]bool{}}
	var p plan
	var anchor [2]uint64
	p.add(t.exe.Module+t.bias, 16, func(b []byte) { anchor = [2]uint64{le.Uint64(b), le.Uint64(b[8:])} })
	// The counters first: what follows is younger.
	p.add(t.globals["runtime.memstats"], int(l.MStats.Size), func(b []byte) { sc.stats = b })
	p.add(t.globals["runtime.gcController"], int(l.GC.Size), func(b []byte) { sc.gc = b })
	p.add(t.globals["runtime.sched"], int(l.Sched.Size), func(b []byte) { sc.sched = b })
	header := func(dst *slice) func([]byte) {
		return func(b []byte) { *dst = slice{le.Uint64(b), le.Uint64(b[8:])} }
	}
	p.add(t.globals["runtime.allp"], 16, header(&sc.allp))
	p.add(t.globals["runtime.allgs"], 16, header(&sc.allgs))
	heap := t.globals["runtime.mheap_"]
	p.add(heap+uint64(l.MHeap.Arenas), 16, header(&sc.arenas))
	word := func(name string, dst *uint64) {
		if addr, ok := t.globals[name]; ok {
			p.add(addr, 8, func(b []byte) { *dst, sc.has[name] = le.Uint64(b), true })
		}
	}
	half := func(name string, dst *uint32) {
		if addr, ok := t.globals[name]; ok {
			p.add(addr, 4, func(b []byte) { *dst, sc.has[name] = le.Uint32(b), true })
		}
	}
	half("runtime.gcphase", &sc.phase)
	half("runtime.mProfCycle", &sc.profCycle)
	word("runtime.MemProfileRate", &sc.rate)
	word("runtime.allfin", &sc.allfin)
	word("runtime.fing", &sc.fing)
	word("runtime.mbuckets", &sc.mbuckets)
	word("runtime.finqueued", &sc.finQueued)
	word("runtime.finexecuted", &sc.finExecuted)
	if addr, ok := t.globals["runtime.gcCleanups"]; ok && l.Cleanup.Executed.Has() {
		p.add(addr, int(max(l.Cleanup.Queued, l.Cleanup.Executed, l.Cleanup.Running))+8, func(b []byte) { sc.cleanups = b })
	}
	sc.heap = make([]byte, 24)
	for i, off := range []layout.Off{l.MHeap.SpanInuse, l.MHeap.CacheInuse, l.MHeap.AllSpans + 8} {
		p.add(heap+uint64(off), 8, func(b []byte) { copy(sc.heap[8*i:], b) })
	}
	if err := t.read(&p); err != nil {
		return nil, err
	}
	if anchor != t.anchor {
		return nil, ErrGone // another program
	}
	if sc.allp.len == 0 || sc.allp.len > maxPs {
		return nil, fmt.Errorf("%d Ps", sc.allp.len)
	}
	return sc, nil
}

func (sc *scalars) spanInuse() uint64  { return le.Uint64(sc.heap) }
func (sc *scalars) cacheInuse() uint64 { return le.Uint64(sc.heap[8:]) }

// readPs reads the Ps.
func (t *Target) readPs(sc *scalars) error {
	n := int(sc.allp.len)
	addrs := make([]byte, 8*n)
	if err := t.mem.Read(sc.allp.ptr, addrs); err != nil {
		return err
	}
	f := &t.layout.P
	sc.ps = make([]proc, n)
	var p plan
	for i := range sc.ps {
		q := &sc.ps[i]
		q.addr = le.Uint64(addrs[8*i:])
		p.add(q.addr+uint64(f.ID), 4, func(b []byte) { q.id = le.Uint32(b) })
		p.add(q.addr+uint64(f.MCache), 8, func(b []byte) { q.mcache = le.Uint64(b) })
		p.add(q.addr+uint64(f.PCache), 8, func(b []byte) { q.pages = pageSize * uint64(bits.OnesCount64(le.Uint64(b))) })
		p.add(q.addr+uint64(f.Timers), 4, func(b []byte) { q.timers = le.Uint32(b) })
		if f.Cleanups.Has() {
			p.add(q.addr+uint64(f.Cleanups), 8, func(b []byte) { q.cleanups = le.Uint64(b) })
		}
	}
	return t.read(&p)
}

// readCaches reads what every P has allocated from the spans that it has to
// itself. The runtime adds that to its counters only when the P gives the span
// back, or for ReadMemStats, which stops the world for it.
func (t *Target) readCaches(sc *scalars) (caches []Cache, free uint64, err error) {
	l := t.layout
	var p plan
	type slot struct {
		p    int
		span uint64
	}
	var slots []slot
	sc.cached = delta{}
	classes := int(l.MCache.Classes)
	caches = make([]Cache, len(sc.ps))
	for i, q := range sc.ps {
		caches[i] = Cache{P: i, Pages: memguard.Known(q.pages), Timers: memguard.Known(uint64(q.timers))}
		if q.mcache == 0 {
			caches[i].Bytes, caches[i].Objects = memguard.Known[uint64](0), memguard.Known[uint64](0)
			continue
		}
		p.add(q.mcache, int(l.MCache.Size), func(b []byte) {
			tiny := u64(b, l.MCache.TinyAllocs)
			sc.cached.mallocs += tiny
			sc.cached.frees += tiny // as MemStats counts them
			for c := range classes {
				if span := u64(b, l.MCache.Alloc+layout.Off(8*c)); span != 0 {
					slots = append(slots, slot{i, span})
				}
			}
		})
	}
	if err := t.read(&p); err != nil {
		return nil, 0, err
	}
	// Most slots hold the one empty span.
	slices.SortFunc(slots, func(a, b slot) int {
		switch {
		case a.span < b.span:
			return -1
		case a.span > b.span:
			return 1
		}
		return a.p - b.p
	})
	slots = slices.CompactFunc(slots, func(a, b slot) bool { return a.span == b.span })
	p = plan{}
	bytes, objects := make([]uint64, len(sc.ps)), make([]uint64, len(sc.ps))
	for _, s := range slots {
		p.add(s.span, int(l.MSpan.Size), func(b []byte) {
			sp := t.span(b)
			if sp.state != spanInUse || sp.count > sp.elems || sp.before > sp.count {
				return // the empty span, or one that was torn
			}
			n := sp.count - sp.before
			sc.cached.alloc += n * sp.elemSize
			sc.cached.mallocs += n
			objects[s.p] += n
			bytes[s.p] += (sp.elems - sp.count) * sp.elemSize
		})
	}
	if err := t.read(&p); err != nil {
		return nil, 0, err
	}
	for i := range caches {
		if sc.ps[i].mcache != 0 {
			caches[i].Bytes, caches[i].Objects = memguard.Known(bytes[i]), memguard.Known(objects[i])
		}
		free += bytes[i] + sc.ps[i].pages
	}
	return caches, free, nil
}

// sum adds the three generations of the runtime's counters at one field
// (runtime/mstats.go, consistentHeapStats).
func (t *Target) sum(stats []byte, off layout.Off) uint64 {
	var n uint64
	for i := range layout.Off(3) {
		n += u64(stats, t.layout.MStats.HeapStats+i*t.layout.Delta.Size+off)
	}
	return n
}

// counters computes what was allocated and freed.
func (t *Target) counters(stats []byte) delta {
	d := &t.layout.Delta
	c := delta{
		alloc: t.sum(stats, d.LargeAlloc), mallocs: t.sum(stats, d.LargeAllocs),
		free: t.sum(stats, d.LargeFree), frees: t.sum(stats, d.LargeFrees),
	}
	for i, size := range t.layout.SizeClasses {
		a, f := t.sum(stats, d.SmallAllocs+layout.Off(8*i)), t.sum(stats, d.SmallFrees+layout.Off(8*i))
		c.alloc, c.free = c.alloc+a*uint64(size), c.free+f*uint64(size)
		c.mallocs, c.frees = c.mallocs+a, c.frees+f
	}
	tiny := t.sum(stats, d.TinyAllocs)
	c.mallocs, c.frees = c.mallocs+tiny, c.frees+tiny
	return c
}

// settle reads the scalars until the target's counters stand still around the
// reading of the Ps' caches, a few times at most. Of a target that never stands
// still it keeps the reading with the least between: skew says how far off the
// figures may be then.
func (t *Target) settle(s *Snapshot) (best *scalars, skew uint64, err error) {
	skew = math.MaxUint64
	for try := range tries {
		sc, err := t.first()
		if err != nil {
			return nil, 0, err
		}
		if err := t.readPs(sc); err != nil {
			return nil, 0, err
		}
		before := t.counters(sc.stats)
		caches, free, err := t.readCaches(sc)
		if err != nil {
			if best != nil || try+1 < tries {
				continue // a P was taken away
			}
			return nil, 0, err
		}
		after := make([]byte, len(sc.stats))
		if err := t.mem.Read(t.globals["runtime.memstats"], after); err != nil {
			return nil, 0, err
		}
		now := t.counters(after)
		moved := t.moved(sc, before, now, after)
		if best == nil || moved < skew {
			best, skew = sc, moved
			s.Caches, s.Heap.Cached = caches, memguard.Known(free)
		}
		if moved == 0 {
			break
		}
		s.How.Retries = try + 1
	}
	if best == nil {
		return nil, 0, errors.New("the Ps change too fast")
	}
	return best, skew, nil
}

// moved is how many bytes the counters moved between two readings. Where the
// first reading contradicts itself it is the most that there is.
func (t *Target) moved(sc *scalars, before, now delta, after []byte) uint64 {
	gen := t.layout.MStats.Gen
	if now.alloc < before.alloc || now.free < before.free || u32(sc.stats, gen) != u32(after, gen) {
		return math.MaxUint64 // the generations were merged meanwhile
	}
	// The collector keeps the same totals by itself; it changes them a moment later.
	gc := &t.layout.GC
	moved := now.alloc - before.alloc + now.free - before.free
	return moved + distance(u64(sc.gc, gc.TotalAlloc), before.alloc) + distance(u64(sc.gc, gc.TotalFree), before.free)
}

func distance(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// scalars fills in the snapshot's figures.
func (t *Target) scalars(s *Snapshot) (*scalars, error) {
	sc, skew, err := t.settle(s)
	if err != nil {
		return nil, err
	}
	t.fillHeap(s, sc, skew)
	t.fillGC(s, sc)
	t.fillQueues(s, sc)
	t.fillArenas(s, sc)
	var timers uint64
	for _, p := range sc.ps {
		timers += uint64(p.timers)
	}
	s.Timers = memguard.Known(timers)
	switch n, ok, err := t.count(sc); {
	case err != nil:
		return nil, err
	case !ok:
		s.cannot("goroutines.total", "they were created or ended while they were counted")
	default:
		s.Goroutines.Total = memguard.Known(n)
	}
	return sc, nil
}

// count counts the goroutines as runtime.NumGoroutine does (runtime/proc.go,
// gcount): all that ever were, less those that are free for reuse and the
// runtime's own. Free ones move between the Ps' lists and the common one in
// batches, so that is read before and after the Ps'.
func (t *Target) count(sc *scalars) (uint64, bool, error) {
	f := &t.layout.Sched
	sched := t.globals["runtime.sched"]
	for range tries {
		var common [2]int64
		var n int64
		var p plan
		for i := range common {
			p.add(t.globals["runtime.allgs"]+8, 8, func(b []byte) { common[i] += int64(le.Uint64(b)) })
			for _, off := range []layout.Off{f.NGSys, f.GFree, f.GFreeNo} {
				if off.Has() {
					p.add(sched+uint64(off), 4, func(b []byte) { common[i] -= int64(int32(le.Uint32(b))) })
				}
			}
			if i == 0 {
				for _, q := range sc.ps {
					p.add(q.addr+uint64(t.layout.P.GFree), 4, func(b []byte) { n -= int64(int32(le.Uint32(b))) })
				}
			}
		}
		if err := t.read(&p); err != nil {
			return 0, false, err
		}
		if n += common[0]; common[0] == common[1] && n >= 1 && n <= maxGs { // at least one runs
			return uint64(n), true, nil
		}
	}
	return 0, false, nil
}
