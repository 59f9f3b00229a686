// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"math/bits"
	"slices"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
)

// readPs reads the Ps.
func (t *Target) readPs(sc *scalars) error {
	n := int(sc.allp.len)
	p := &sc.work
	p.reset()
	sc.ps = slices.Grow(sc.ps[:0], n)[:n]
	p.add(sc.allp.ptr, 8*n, func(b []byte) {
		for i := range sc.ps {
			sc.ps[i] = proc{addr: le.Uint64(b[8*i:])}
		}
	})
	if err := t.read(p); err != nil {
		return err
	}
	p.reset()
	f := &t.layout.P
	for i := range sc.ps {
		q := &sc.ps[i]
		p.add(q.addr+uint64(f.ID), 4, func(b []byte) { q.id = le.Uint32(b) })
		p.add(q.addr+uint64(f.MCache), 8, func(b []byte) { q.mcache = le.Uint64(b) })
		p.add(q.addr+uint64(f.PCache), 8, func(b []byte) { q.pages = pageSize * uint64(bits.OnesCount64(le.Uint64(b))) })
		p.add(q.addr+uint64(f.Timers), 4, func(b []byte) { q.timers = le.Uint32(b) })
		if f.Cleanups.Has() {
			p.add(q.addr+uint64(f.Cleanups), 8, func(b []byte) { q.cleanups = le.Uint64(b) })
		}
	}
	t.planCount(p, sc)
	return t.read(p)
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
