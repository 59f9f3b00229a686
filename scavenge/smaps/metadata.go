// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"cmp"
	"slices"
)

// What the Go runtime maps outside its heap has no shape of its own once it has no name:
//
//	7f2c39400000-7f2c394ac000 rw-p   a mapping of the program, or of C
//	7f2c394ac000-7f2c39700000 rw-p   tables, in pieces of 64 KiB to some MiB that the kernel merges
//	7f2c39700000-7f2c3b800000 rw-p   heap index: 32 MiB, nearly untouched (and 1 MiB of page bitmap)
//	7f2c3b800000-7f2c52015000 ---p   scavenge index and page summaries: 1.1 GiB of reserved
//	7f2c52015000-7f2c52016000 rw-p   address space with a page in use here and there
//
// The reservations give themselves away. What is left goes to the runtime as long as it fits what the
// runtime can have in all: what touches the reservations first, then the smallest first.
const heapIndex = 32 << 20 // one level-2 block of the arena map; runtime/metrics does not count it

// estimate is how much the runtime has mapped for a heap, beside the heap index: a page bitmap and what
// a small program needs, and tables for each arena.
func estimate(arenas, perArena uint64) uint64 { return 4<<20 + arenas*perArena }

const (
	mostPerArena  = 5 << 19 // up to Go 1.21: pointer bitmap 2 MiB, span table, mark bits
	usualPerArena = 1 << 19 // since
)

func markGoMetadata(ms []Mapping, h *Hints) {
	for i := range ms {
		if goReservation(&ms[i]) {
			ms[i].Kind = GoMetadata
		}
	}
	// Candidates that share a group with a reservation are near, others are far. A group is mappings
	// that follow one another closely.
	var near, far []int
	for i := 0; i < len(ms); i++ {
		to := &far
		j := i
		for ; j < len(ms) && mayBeMetadata(&ms[j]) && (j == i || closeTo(&ms[j-1], &ms[j])); j++ {
			if ms[j].Kind == GoMetadata {
				to = &near
			}
		}
		for k := i; k < j; k++ {
			if ms[k].Kind == Unknown {
				*to = append(*to, k)
			}
		}
		i = max(i, j-1)
	}
	most, usual := metadataBudget(ms, h)
	take := func(i int, limit uint64) {
		n := ms[i].Len()
		index := n < 2*heapIndex && heapIndexAt(ms, i)
		if index { // the most of it, whatever was merged with it
			n = heapIndex
		}
		if index || n <= limit {
			ms[i].Kind = GoMetadata
			most -= min(most, n)
			usual -= min(usual, n)
		}
	}
	for _, i := range slices.Backward(near) { // the kernel maps downwards: the oldest are the runtime's
		take(i, most)
	}
	slices.SortFunc(far, func(a, b int) int { return cmp.Compare(ms[a].Len(), ms[b].Len()) })
	for _, i := range far {
		take(i, min(most, usual))
	}
}

// mayBeMetadata reports whether m is the runtime's, or nobody's and like its tables.
func mayBeMetadata(m *Mapping) bool {
	return m.Kind == GoMetadata || m.plain() && !m.reserved() && !m.VmFlags.Has("nr")
}

// metadataBudget returns how much the runtime can have mapped, in bytes of address space: the most, which
// is allowed near its reservations, and the usual, which is allowed elsewhere.
func metadataBudget(ms []Mapping, h *Hints) (most, usual uint64) {
	if n := h.MetadataBytes; n > 0 {
		n += heapIndex + n/16
		return n, n
	}
	var heap uint64
	for i := range ms {
		if m := &ms[i]; m.Kind == GoHeap && !m.reserved() {
			heap += m.Len()
		}
	}
	arenas := (heap + arena - 1) / arena
	return heapIndex + estimate(arenas, mostPerArena), heapIndex + estimate(arenas, usualPerArena)
}

// closeTo reports whether b follows a so closely that they probably come from the same hand:
// the runtime unmaps a table that it has outgrown, which leaves a hole. A hole above a mapping that ends
// at a huge page is the kernel's, which aligns mappings of whole huge pages (Linux 6.7+): the program's, mostly.
func closeTo(a, b *Mapping) bool {
	const hugePage = 2 << 20
	return b.Start == a.End || b.Start > a.End && b.Start-a.End < hugePage && a.End%hugePage != 0
}

// goReservation reports whether m is address space that the Go runtime may have reserved:
// too big for a guard, and not MAP_NORESERVE.
func goReservation(m *Mapping) bool {
	return m.plain() && m.reserved() && m.Len() > maxGuard && !m.VmFlags.Has("nr")
}

// heapIndexAt reports whether ms[i] is big enough for the heap index and lies right below a reservation.
func heapIndexAt(ms []Mapping, i int) bool {
	return ms[i].Len() >= heapIndex && i+1 < len(ms) && ms[i+1].Start == ms[i].End && (ms[i+1].Kind == GoMetadata || goReservation(&ms[i+1]))
}
