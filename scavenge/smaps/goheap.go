// SPDX-License-Identifier: Apache-2.0

package smaps

import "slices"

// mmapArea returns where the kernel puts mappings that ask for no address: around the page
// summaries, which every Go program reserves. The Go heap does ask for one, far away from there. (Neither has a
// fixed place: the one is random by up to 16 TiB, the other by all of the address space since Go 1.26.)
func mmapArea(ms []Mapping) (start, end uint64) {
	const (
		summary = 128 << 20 // a piece of a summary is bigger, whatever is in use in the middle of it
		hole    = 1 << 30   // bigger than the holes in the area
	)
	first, size := -1, uint64(summary)
	for i := 0; i < len(ms); i++ {
		if !ms[i].plain() {
			continue
		}
		j := run(ms, i)
		if !aligned(ms[i:j]) { // else it looks like the heap, which may leave as much unused
			for k := i; k < j; k++ {
				if goReservation(&ms[k]) && ms[k].Len() > size {
					first, size = k, ms[k].Len()
				}
			}
		}
		i = j - 1
	}
	if first < 0 {
		return 0, 0
	}
	lo, hi := first, first
	for lo > 0 && ms[lo].Start-ms[lo-1].End < hole {
		lo--
	}
	for hi+1 < len(ms) && ms[hi+1].Start-ms[hi].End < hole {
		hi++
	}
	return ms[lo].Start, ms[hi].End
}

// markGoHeap finds the arenas of the Go heap: runs of touching mappings, reserved and read-write, that
// begin and end on multiples of 64 MiB, outside the area of other mappings.
//
//	3fd730000000-3fd732000000 ---p   since Go 1.26 the heap begins anywhere in its first arena
//	3fd732000000-3fd73a000000 rw-p
//	3fd73a000000-3fd73c000000 ---p
func markGoHeap(ms []Mapping, h *Hints) {
	if len(h.HeapRanges) > 0 {
		for i := range ms {
			m := &ms[i]
			if m.Kind != Unknown {
				continue
			}
			var in uint64
			for _, g := range h.HeapRanges {
				if lo, hi := max(m.Start, g.Start), min(m.End, g.End); lo < hi {
					in += hi - lo
				}
			}
			if in > m.Len()/2 {
				m.Kind = GoHeap
			}
		}
		return
	}
	areaStart, areaEnd := mmapArea(ms)
	for i := 0; i < len(ms); i++ {
		if !ms[i].plain() {
			continue
		}
		j := run(ms, i)
		r := ms[i:j]
		i = j - 1
		heap := (r[0].Start < areaStart || r[0].Start >= areaEnd) && aligned(r) &&
			!some(r, func(m *Mapping) bool { return m.VmFlags.Has("nr") })
		if len(h.HeapAddrs) == 0 {
			if heap && some(r, func(m *Mapping) bool { return !m.reserved() }) {
				setKind(r, GoHeap)
			}
			continue
		}
		for k := range r {
			if !slices.ContainsFunc(h.HeapAddrs, func(a uint64) bool { return r[k].Start <= a && a < r[k].End }) {
				continue
			}
			if heap {
				setKind(r, GoHeap)
				break
			}
			markArenasOf(r, k)
		}
	}
}

// markArenasOf marks r[k], which holds a heap object, and what else is in its arenas. The
// run is longer if the heap had to move in among other mappings.
func markArenasOf(r []Mapping, k int) {
	start, end := r[k].Start&^(arena-1), (r[k].End+arena-1)&^(arena-1)
	for i := range r {
		if r[i].Start >= start && r[i].End <= end {
			r[i].Kind = GoHeap
		}
	}
}
