// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
)

// Bounds of what a target may make us read and keep.
const (
	maxPs     = 1 << 11
	maxArenas = 1 << 20 // 64 TiB of heap
	pageSize  = 8192    // of the runtime's page allocator (internal/runtime/gc/sizes.go, PageSize)
	arenaSize = 64 << 20
)

// Tries of a read that the target disturbs, and of the one for a few numbers, which is
// over in microseconds.
const (
	tries      = 4
	countTries = 32
)

// scalars is what is read of the runtime's own structures, which are at fixed
// addresses. How the runtime computes its figures from them is in
// readmemstats_m (runtime/mstats.go) and runtime/metrics.go.
type scalars struct {
	stats, gc, pauses, heap []byte
	after                   []byte // the allocator's counters, which stats begins with, read last
	allp, allgs, arenas     slice
	phase                   uint32
	rate                    uint64 // runtime.MemProfileRate
	profCycle               uint32
	allfin, fing, mbuckets  uint64
	finQueued, finExecuted  uint64
	cleanups                []byte
	has                     map[string]bool // the globals that were found
	ps                      []proc
	gs                      [2]int64 // goroutines there are, less those on the common list for reuse: before and after the Ps' lists were read
	cached                  delta    // what Ps have allocated from their cached spans

	fixed, work plan
}

// spare are scalars for the next snapshot, of whichever target: one of them is
// tens of kilobytes, and many targets are looked at every second.
var spare = sync.Pool{New: func() any { return &scalars{has: map[string]bool{}} }}

func newScalars() *scalars {
	sc := spare.Get().(*scalars)
	clear(sc.has)
	*sc = scalars{has: sc.has, ps: sc.ps[:0], fixed: sc.fixed, work: sc.work}
	return sc
}

// done gives the scalars back: nothing may point into them any more.
func (sc *scalars) done() {
	sc.fixed.reset()
	sc.work.reset()
	spare.Put(sc)
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
	gfree    [2]int32 // goroutines on its list for reuse, read twice
}

// delta are allocation counters.
type delta struct {
	alloc, free, mallocs, frees uint64
}

// first reads everything at fixed addresses.
func (t *Target) first(sc *scalars) error {
	l := t.layout
	p := &sc.fixed
	p.reset()
	var anchor [2]uint64
	p.add(t.exe.Module+t.bias, 16, func(b []byte) { anchor = [2]uint64{le.Uint64(b), le.Uint64(b[8:])} })
	// The counters first: what follows is younger.
	p.add(t.globals["runtime.memstats"], int(l.MStats.Size), func(b []byte) { sc.stats = b })
	p.add(t.globals["runtime.gcController"], int(l.GC.Size), func(b []byte) { sc.gc = b })
	if off := l.Sched.STWTotalGC; off.Has() {
		p.add(t.globals["runtime.sched"]+uint64(off), int(l.Sched.HistSize), func(b []byte) { sc.pauses = b })
	}
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
	p.add(t.globals["runtime.memstats"], int(max(l.MStats.HeapStats+3*l.Delta.Size, l.MStats.Gen+4)), func(b []byte) { sc.after = b })
	if err := t.read(p); err != nil {
		return err
	}
	if anchor != t.anchor {
		return ErrGone // another program
	}
	if sc.allp.len == 0 || sc.allp.len > maxPs {
		return fmt.Errorf("%d Ps", sc.allp.len)
	}
	return nil
}

func (sc *scalars) spanInuse() uint64  { return le.Uint64(sc.heap) }
func (sc *scalars) cacheInuse() uint64 { return le.Uint64(sc.heap[8:]) }

// planCount plans to read what goroutines are counted by, twice each.
func (t *Target) planCount(p *plan, sc *scalars) {
	sc.gs = [2]int64{}
	t.planGs(p, &sc.gs[0])
	for pass := range 2 {
		for i := range sc.ps {
			q := &sc.ps[i]
			p.add(q.addr+uint64(t.layout.P.GFree), 4, func(b []byte) { q.gfree[pass] = int32(le.Uint32(b)) })
		}
	}
	t.planGs(p, &sc.gs[1])
}

// planGs plans to read how many goroutines there are, less the runtime's own and
// those on the common list for reuse.
func (t *Target) planGs(p *plan, n *int64) {
	f := &t.layout.Sched
	p.add(t.globals["runtime.allgs"]+8, 8, func(b []byte) { *n += int64(le.Uint64(b)) })
	for _, off := range []layout.Off{f.NGSys, f.GFree, f.GFreeNo} {
		if off.Has() {
			p.add(t.globals["runtime.sched"]+uint64(off), 4, func(b []byte) { *n -= int64(int32(le.Uint32(b))) })
		}
	}
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

// settle reads the scalars until the target's counters stand still meanwhile, a
// few times at most: around the reading of the Ps' caches, if those are asked for.
// Of a target that never stands still it keeps the reading with the least between:
// skew says how far off the figures may be then.
func (t *Target) settle(s *Snapshot, withCaches bool) (best *scalars, skew uint64, err error) {
	skew = math.MaxUint64
	for try := range tries {
		sc := newScalars()
		caches, free, err := t.scalarsOnce(sc, withCaches)
		var moved uint64
		switch {
		case err == nil:
			moved = t.moved(sc)
		case errors.Is(err, errCaches) && (best != nil || try+1 < tries):
			sc.done()
			continue
		default:
			sc.done()
			if best != nil {
				best.done()
			}
			return nil, 0, err
		}
		if best == nil || moved < skew {
			best, sc, skew = sc, best, moved
			if withCaches {
				s.Caches, s.Heap.Cached = caches, memguard.Known(free)
			}
		}
		if sc != nil {
			sc.done()
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

// errCaches is that the Ps' caches could not be read: one of the Ps was taken away.
var errCaches = errors.New("the caches of the Ps")

// scalarsOnce reads the scalars, and the Ps' caches where they are asked for.
func (t *Target) scalarsOnce(sc *scalars, withCaches bool) (caches []Cache, free uint64, err error) {
	if err := t.first(sc); err != nil {
		return nil, 0, err
	}
	if err := t.readPs(sc); err != nil {
		return nil, 0, err
	}
	if !withCaches {
		return nil, 0, nil
	}
	if caches, free, err = t.readCaches(sc); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errCaches, err)
	}
	return caches, free, t.mem.Read(t.globals["runtime.memstats"], sc.after)
}

// moved is how many bytes the counters moved between two readings. Where the
// first reading contradicts itself it is the most that there is.
func (t *Target) moved(sc *scalars) uint64 {
	before, now := t.counters(sc.stats), t.counters(sc.after)
	gen := t.layout.MStats.Gen
	if now.alloc < before.alloc || now.free < before.free || u32(sc.stats, gen) != u32(sc.after, gen) {
		return math.MaxUint64 // the generations were merged meanwhile
	}
	// The collector keeps the same totals by itself; it changes them a moment later.
	gc := &t.layout.GC
	moved := now.alloc - before.alloc + now.free - before.free
	return moved + distance(u64(sc.gc, gc.TotalAlloc), before.alloc) + distance(u64(sc.gc, gc.TotalFree), before.free)
}

func distance(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// scalars fills in the snapshot's figures. The scalars are to be given back.
func (t *Target) scalars(s *Snapshot, withCaches bool) (*scalars, error) {
	sc, skew, err := t.settle(s, withCaches)
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
		sc.done()
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
// runtime's own. A goroutine that begins on one P and ends on another while these are
// read would be counted twice or not at all, and free ones move between the lists in
// batches. So everything is read twice, the Ps' lists one pass after the other: where
// nothing differs, all of it was so at one moment between the passes.
func (t *Target) count(sc *scalars) (uint64, bool, error) {
	for try := range countTries {
		if try > 0 {
			p := &sc.work
			p.reset()
			t.planCount(p, sc)
			if err := t.read(p); err != nil {
				return 0, false, err
			}
		}
		n, still := sc.gs[0], sc.gs[0] == sc.gs[1]
		for i := range sc.ps {
			q := &sc.ps[i]
			n -= int64(q.gfree[0])
			still = still && q.gfree[0] == q.gfree[1]
		}
		if still && n >= 1 && n <= maxGs { // at least one runs
			return uint64(n), true, nil
		}
	}
	return 0, false, nil
}
