// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"slices"
	"time"

	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
)

// selfCheck holds the target's memory against what must be true of a Go runtime.
// A busy target may fail one look at one thing, so each has to hold once within
// the given time. It looks at no more than a few structures of each kind.
func (t *Target) selfCheck(within time.Duration) error {
	checks := []struct {
		name string
		ok   func(*scalars) bool
	}{
		{"Ps have their numbers", t.checkPs},
		{"sizes of spans and caches fit their pools", t.checkPools},
		{"the allocator's and the collector's counts agree", t.checkCounts},
		{"settings and goal", t.checkGC},
		{"spans", t.checkSpans},
		{"goroutines", t.checkGs},
		{"heap arenas", t.checkArenas},
	}
	held := make([]bool, len(checks))
	wait := 50 * time.Microsecond
	sc := newScalars()
	defer sc.done()
	for deadline := time.Now().Add(within); ; {
		err := t.first(sc)
		if err == nil {
			err = t.readPs(sc)
		}
		if err != nil && t.ended(err) != nil {
			return ErrGone
		}
		for i, c := range checks {
			held[i] = held[i] || err == nil && c.ok(sc)
		}
		if !slices.Contains(held, false) {
			return nil
		}
		if time.Now().After(deadline) {
			failed := &SelfCheckError{GoVersion: t.exe.Version, Layout: t.layout.From}
			for i, c := range checks {
				if !held[i] {
					failed.Failed = append(failed.Failed, c.name)
				}
			}
			if err != nil {
				failed.Failed = append(failed.Failed, err.Error())
			}
			return failed
		}
		time.Sleep(wait)
		wait = min(2*wait, 50*time.Millisecond)
	}
}

func (t *Target) checkPs(sc *scalars) bool {
	for i, p := range sc.ps {
		if p.id != uint32(i) || p.addr%8 != 0 || p.mcache%8 != 0 {
			return false
		}
	}
	return true
}

func (t *Target) checkPools(sc *scalars) bool {
	spans, caches := sc.spanInuse(), sc.cacheInuse()
	n := le.Uint64(sc.heap[16:])
	size := uint64(t.layout.MSpan.Size)
	// Spans that were freed stay in the list and are reused (mheap.allspans).
	return spans > 0 && spans%size == 0 && spans/size <= n+1 && n < maxSpans &&
		caches%uint64(t.layout.MCache.Size) == 0 && caches/uint64(t.layout.MCache.Size) >= sc.allp.len
}

// checkCounts compares totals that the runtime keeps twice, and itself compares
// when it debugs them (runtime/mstats.go, doubleCheckReadMemStats). They depend on
// the place of every counter and on the size of every size class.
func (t *Target) checkCounts(sc *scalars) bool {
	g, d := &t.layout.GC, &t.layout.Delta
	c := t.counters(sc.stats)
	work := t.sum(sc.stats, d.InWorkBufs)
	if d.InPtrScalarBits.Has() {
		work += t.sum(sc.stats, d.InPtrScalarBits)
	}
	inHeap := u64(sc.gc, g.HeapInUse)
	return c.alloc == u64(sc.gc, g.TotalAlloc) && c.free == u64(sc.gc, g.TotalFree) && c.alloc >= c.free && c.alloc > 0 &&
		c.mallocs >= c.frees && inHeap == t.sum(sc.stats, d.InHeap) && inHeap > 0 && inHeap%pageSize == 0 &&
		u64(sc.gc, g.HeapReleased) == t.sum(sc.stats, d.Released) &&
		inHeap+u64(sc.gc, g.HeapFree) == t.sum(sc.stats, d.Committed)-t.sum(sc.stats, d.InStacks)-work
}

func (t *Target) checkGC(sc *scalars) bool {
	g, m := &t.layout.GC, &t.layout.MStats
	percent := int32(u32(sc.gc, g.Percent))
	limit := int64(u64(sc.gc, g.MemoryLimit))
	live := u64(sc.gc, g.HeapLive)
	var sys uint64
	for _, off := range []layout.Off{m.StacksSys, m.MSpanSys, m.MCacheSys, m.BuckHashSys, m.GCMiscSys, m.OtherSys} {
		n := u64(sc.stats, off)
		if n > 1<<46 {
			return false
		}
		sys += n
	}
	for _, off := range []layout.Off{g.HeapMarked, g.PercentGoal, g.SweepTrigger, g.HeapLive} {
		if n := u64(sc.gc, off); n > 1<<47 && !(percent < 0 && off == g.PercentGoal) && n < 1<<63 {
			return false
		}
	}
	_, _, ok := t.goal(sc)
	// mappedReady is everything mapped less what was given back (readmemstats_m).
	d := &t.layout.Delta
	ready := u64(sc.gc, g.HeapInUse) + u64(sc.gc, g.HeapFree) + sys + t.sum(sc.stats, d.InStacks) + t.sum(sc.stats, d.InWorkBufs)
	if d.InPtrScalarBits.Has() {
		ready += t.sum(sc.stats, d.InPtrScalarBits)
	}
	mapped := u64(sc.gc, g.MappedReady)
	last := u64(sc.stats, m.LastGC)
	cycles, forced := u32(sc.stats, m.NumGC), u32(sc.stats, m.NumForcedGC)
	return ok && percent >= -1 && limit >= 0 && live < 1<<47 && sys > 0 &&
		ready == mapped &&
		forced <= cycles && (cycles > 0) == (last > 0) && sc.phase < uint32(len(phases))
}

// checkSpans looks at spans over the whole list.
func (t *Target) checkSpans(sc *scalars) bool {
	const samples = 64
	n := le.Uint64(sc.heap[16:])
	var head slice
	var p plan
	p.add(t.globals["runtime.mheap_"]+uint64(t.layout.MHeap.AllSpans), 16, func(b []byte) { head = slice{le.Uint64(b), le.Uint64(b[8:])} })
	if t.read(&p) != nil || head.len == 0 || head.len > maxSpans || n == 0 {
		return false
	}
	ptrs := make([]uint64, min(head.len, samples))
	p = plan{}
	for i := range ptrs {
		at := uint64(i) * head.len / uint64(len(ptrs))
		p.add(head.ptr+8*at, 8, func(b []byte) { ptrs[i] = le.Uint64(b) })
	}
	if t.read(&p) != nil {
		return false
	}
	good, inUse := 0, 0
	p = plan{}
	for _, ptr := range ptrs {
		p.add(ptr, int(t.layout.MSpan.Size), func(b []byte) {
			sp := t.span(b)
			switch {
			case sp.state > spanManual || sp.start%pageSize != 0:
			case sp.state != spanInUse:
				good++
			case t.sane(&sp):
				good++
				inUse++
			}
		})
	}
	return t.read(&p) == nil && good == len(ptrs) && inUse > 0
}

// checkGs looks at goroutines over the whole list. The first is the one that
// runs main.
func (t *Target) checkGs(sc *scalars) bool {
	const samples = 64
	if sc.allgs.len == 0 || sc.allgs.len > maxGs {
		return false
	}
	ptrs := make([]uint64, min(sc.allgs.len, samples))
	var p plan
	for i := range ptrs {
		at := uint64(i) * sc.allgs.len / uint64(len(ptrs))
		p.add(sc.allgs.ptr+8*at, 8, func(b []byte) { ptrs[i] = le.Uint64(b) })
	}
	if t.read(&p) != nil {
		return false
	}
	p = plan{}
	good := 0
	for i, ptr := range ptrs {
		p.add(ptr, int(t.layout.G.Size), func(b []byte) {
			g := t.g(b)
			status := g.status &^ statusScan
			ok := status < uint32(len(statusNames)) && statusNames[status] != "" && g.lo <= g.hi && g.hi-g.lo <= maxStack && (status == statusDead || g.id > 0 && g.id < 1<<48)
			if ok && status != statusDead && g.startPC != 0 {
				_, ok = t.fn(g.startPC)
			}
			if i == 0 {
				ok = ok && g.id == 1 && t.name1(g.startPC) == "runtime.main"
			}
			if ok {
				good++
			}
		})
	}
	return t.read(&p) == nil && good == len(ptrs)
}

func (t *Target) checkArenas(sc *scalars) bool {
	var s Snapshot
	t.fillArenas(&s, sc)
	if len(s.Arenas) == 0 {
		return false
	}
	var size uint64
	for _, r := range s.Arenas {
		size += r.End - r.Start
	}
	// Everything in the heap's pages lies in arenas.
	g := &t.layout.GC
	return u64(sc.gc, g.HeapInUse)+u64(sc.gc, g.HeapFree)+u64(sc.gc, g.HeapReleased) <= size
}
