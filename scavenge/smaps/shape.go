// SPDX-License-Identifier: Apache-2.0

package smaps

// plain reports whether m is nobody's yet: private anonymous memory without a name, either
// read-write or without any access, which is what allocators map.
func (m *Mapping) plain() bool {
	return m.Kind == Unknown && (m.reserved() || m.Perms == PermRead|PermWrite)
}

// reserved reports whether m is address space only.
func (m *Mapping) reserved() bool { return m.Perms == 0 }

// run returns the end of the run of touching plain mappings that starts at i.
func run(ms []Mapping, i int) int {
	j := i + 1
	for j < len(ms) && ms[j].plain() && ms[j].Start == ms[j-1].End {
		j++
	}
	return j
}

// aligned reports whether a run begins and ends where Go arenas do.
func aligned(r []Mapping) bool { return r[0].Start%arena == 0 && r[len(r)-1].End%arena == 0 }

func some(ms []Mapping, f func(*Mapping) bool) bool {
	for i := range ms {
		if f(&ms[i]) {
			return true
		}
	}
	return false
}

func setKind(ms []Mapping, k Kind) {
	for i := range ms {
		ms[i].Kind = k
	}
}

// arena is the alignment and size of a Go heap arena (runtime/malloc.go, heapArenaBytes) and,
// by coincidence, of a heap of a glibc arena (malloc/arena.c, HEAP_MAX_SIZE) on 64-bit Linux.
const arena = 64 << 20

// lowestMmap: the kernel puts no mapping of its own choice below it on x86-64: 47 bits of address space, less
// 2^32 random pages (vm.mmap_rnd_bits), less room for the stack.
const lowestMmap = 0x6f0000000000

// markArenas finds glibc's arenas: 64 MiB of address space that begins aligned, is reserved
// with MAP_NORESERVE ("nr"; not so if overcommit is off), and is made accessible from the start upwards:
//
//	7f1670000000-7f1670021000 rw-p
//	7f1670021000-7f1674000000 ---p
//
// A Go arena may look the same, but has no "nr" and was marked before.
func markArenas(ms []Mapping) {
	for i := range ms {
		m := &ms[i]
		if !m.plain() || m.reserved() || m.Start%arena != 0 || m.Len() > arena {
			continue
		}
		f := m.VmFlags
		if f.Has("nr") && (f.Has("dd") || f.Has("nh")) {
			continue // the race detector's
		}
		if !f.Has("nr") && m.Start < lowestMmap {
			continue // the heap of a Go program that nobody has told us of
		}
		end := m.Start + arena
		switch {
		case m.End == end:
			if f.Has("nr") { // full
				m.Kind = LibcArena
			}
		case i+1 < len(ms) && ms[i+1].plain() && ms[i+1].reserved() && ms[i+1].Start == m.End && ms[i+1].End == end:
			setKind(ms[i:i+2], LibcArena)
		}
	}
}

const (
	maxGuard = 64 << 10 // glibc's default is one page, musl's two
	minStack = 16 << 10 // PTHREAD_STACK_MIN
)

// markStacks finds stacks of C threads: a small guard without access and a read-write mapping on top.
// Since Linux 6.7 MAP_STACK gives both "nh" (no huge pages); musl does not use it. Where one pair has
// it, a pair without is no stack but guarded memory of the program.
// Newer glibc puts the guard into the mapping itself ("gu"). Goroutine stacks are in the Go heap.
func markStacks(ms []Mapping) {
	var pairs []int // index of the upper half
	flagged := false
	for i := range ms {
		m := &ms[i]
		if !m.plain() || m.reserved() {
			continue
		}
		if m.VmFlags.Has("gd") || m.VmFlags.Has("gu") && m.VmFlags.Has("nh") { // MAP_GROWSDOWN; MADV_GUARD_INSTALL
			m.Kind = Stack
			continue
		}
		if i == 0 || heapIndexAt(ms, i) { // a stack below it, merged
			continue
		}
		g := &ms[i-1]
		if g.plain() && g.reserved() && g.End == m.Start && g.Len() <= maxGuard && m.Len() >= minStack && m.Len() > g.Len() {
			pairs = append(pairs, i)
			flagged = flagged || m.VmFlags.Has("nh")
		}
	}
	for _, i := range pairs {
		if !flagged || ms[i].VmFlags.Has("nh") {
			ms[i-1].Kind, ms[i].Kind = Stack, Stack
		}
	}
}
