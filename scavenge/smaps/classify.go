// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"path/filepath"
	"slices"
	"strings"
)

// Kind says who owns a mapping.
type Kind uint8

// The kinds. Parse gives every mapping exactly one of them, never Unknown.
const (
	Unknown    Kind = iota // not classified
	GoHeap                 // Go heap arenas: objects, goroutine stacks, free and reserved address space
	GoMetadata             // the Go runtime's memory outside its heap: span tables, page bitmaps, profiles
	Stack                  // stacks of the main thread and of C threads, with their guard pages
	Binary                 // the executable: text, data and bss
	File                   // other files; shared libraries are here with their bss
	Brk                    // the program break: glibc malloc's main arena
	LibcArena              // glibc malloc's other arenas; its big single blocks too, if they are named
	Anon                   // other private anonymous memory: mmap, big mallocs, other allocators, JIT code
	Shmem                  // shared memory: System V, memfd, /dev/shm, tmpfs, shared anonymous
	Special                // the kernel's own: vdso, vvar, vsyscall, io_uring and perf rings

	numKinds = iota
)

var kindNames = [numKinds]string{
	"unknown", "go-heap", "go-metadata", "stack", "binary", "file", "brk", "libc-arena", "anon", "shmem", "special",
}

// String returns the name of the kind, such as "go-heap".
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "invalid kind"
}

// Range is the addresses [Start, End).
type Range struct{ Start, End uint64 }

// Hints are what the caller knows about an address space. The zero Hints knows
// nothing: only mappings that have a name tell that a program is written in Go.
type Hints struct {
	// Go: it is a Go program. The other hints about the heap imply it.
	Go bool
	// HeapAddrs are addresses in the Go heap; inside a process, that of any heap object.
	// They decide: an arena that they do not point into is not taken for one.
	HeapAddrs []uint64
	// HeapRanges is where the arenas are, if that is known exactly. They decide as well.
	HeapRanges []Range
	// MetadataBytes is what the runtime says it has mapped outside its heap, 0 if unknown:
	// inside a process, the sum of /memory/classes/metadata/*, /memory/classes/other and
	// /memory/classes/profiling/buckets in runtime/metrics. It tells the runtime's mappings from the
	// program's own, which look the same; without it their number is estimated from the heap.
	MetadataBytes uint64
	// Exe is the path of the executable; if it is empty the file that is mapped lowest is taken for it.
	Exe string
}

// classify sets the Kind of every mapping.
func classify(ms []Mapping, h *Hints) {
	for i := range ms {
		ms[i].Kind = kindByName(&ms[i])
	}
	markBinary(ms, h.Exe)
	markShmemDevices(ms)
	markBSS(ms)

	goProgram := h.Go || len(h.HeapAddrs) > 0 || len(h.HeapRanges) > 0 ||
		some(ms, func(m *Mapping) bool { return m.Kind == GoHeap || m.Kind == GoMetadata })
	if goProgram {
		markGoHeap(ms, h)
	}
	markArenas(ms)
	markStacks(ms)
	if goProgram {
		markGoMetadata(ms, h)
	}
	for i := range ms {
		if ms[i].Kind == Unknown {
			ms[i].Kind = Anon
		}
	}
}

// kindByName judges one mapping by its name. Unknown is private anonymous memory
// without a name; its shape decides.
func kindByName(m *Mapping) Kind {
	p := m.Path
	shared := m.Perms&PermShared != 0
	switch {
	case p == "":
		if shared {
			return Shmem
		}
		return Unknown
	case p[0] == '[':
		return kindByVMAName(p)
	case strings.HasPrefix(p, "/dev/shm/"), strings.HasPrefix(p, "/memfd:"), strings.HasPrefix(p, "/dev/hugepages/"),
		strings.HasPrefix(p, "/SYSV") && m.DevMajor == 0:
		return Shmem
	case strings.TrimSuffix(p, deleted) == "/dev/zero", strings.HasPrefix(p, "/anon_hugepage"):
		if shared { // MAP_SHARED|MAP_ANONYMOUS shows as the first
			return Shmem
		}
		return Anon
	case strings.HasPrefix(p, "anon_inode:"), strings.HasPrefix(p, "/[aio]"), strings.HasPrefix(p, "socket:"):
		return Special
	}
	if n, ok := m.Bytes(ShmemPmdMapped); ok && n > 0 {
		return Shmem
	}
	return File
}

func kindByVMAName(p string) Kind {
	switch name, named := strings.CutPrefix(p, "[anon:"); {
	case p == "[heap]":
		return Brk
	case p == "[stack]", strings.HasPrefix(p, "[stack:"): // [stack:TID] from Linux 3.4 to 4.4
		return Stack
	case strings.HasPrefix(p, "[anon_shmem:"):
		return Shmem
	case !named:
		return Special
	case strings.HasPrefix(name, " Go: "):
		// GOROOT/src/runtime, the callers of sysAlloc, sysReserve and sysMap.
		switch strings.TrimSuffix(name[len(" Go: "):], "]") {
		case "heap", "heap reservation", "user arena chunk":
			return GoHeap
		case "OS thread stack", "goroutine stack (system)":
			return Stack
		}
		return GoMetadata
	case strings.HasPrefix(name, " glibc: "):
		// glibc 2.39+ with glibc.mem.decorate_maps=1: sysdeps/unix/sysv/linux/setvmaname.c.
		if strings.Contains(name, "stack") {
			return Stack
		}
		if strings.Contains(name, "malloc") {
			return LibcArena
		}
	case strings.HasPrefix(name, "stack_and_tls"): // bionic
		return Stack
	}
	return Anon
}

const deleted = " (deleted)"

func markBinary(ms []Mapping, exe string) {
	exe = strings.TrimSuffix(exe, deleted)
	for i := range ms {
		m := &ms[i]
		if m.Kind != File {
			continue
		}
		path := strings.TrimSuffix(m.Path, deleted)
		if exe == "" {
			exe = path
		}
		if path == exe {
			m.Kind = Binary
		}
	}
}

// A device is known for shared memory by one of its files; its other files may have any path.
func markShmemDevices(ms []Mapping) {
	var devs []device
	for i := range ms {
		if d := ms[i].device(); ms[i].Kind == Shmem && ms[i].Inode != 0 && !slices.Contains(devs, d) {
			devs = append(devs, d)
		}
	}
	if len(devs) > 0 {
		markDevices(ms, devs)
	}
}

type device struct{ major, minor uint32 }

func (m *Mapping) device() device { return device{m.DevMajor, m.DevMinor} }

func markDevices(ms []Mapping, devs []device) {
	for i := range ms {
		if ms[i].Kind == File && slices.Contains(devs, ms[i].device()) {
			ms[i].Kind = Shmem
		}
	}
}

// library reports whether a path looks like a shared library.
func library(path string) bool {
	path = strings.TrimSuffix(path, deleted)
	return strings.HasSuffix(path, ".so") || strings.Contains(filepath.Base(path), ".so.")
}

// maxLibBSS bounds what is taken for the bss of a shared library: above it may as
// well lie a mapping of somebody else.
const maxLibBSS = 16 << 20

// markBSS gives the anonymous memory right behind a program's or library's last
// file mapping to that file: there the ELF loader puts the zeroed data.
func markBSS(ms []Mapping) {
	for i := 1; i < len(ms); i++ {
		m, prev := &ms[i], &ms[i-1]
		if m.Kind != Unknown || m.Perms&PermWrite == 0 || m.Start != prev.End || prev.Inode == 0 || prev.Perms&PermShared != 0 {
			continue
		}
		if prev.Kind == Binary || prev.Kind == File && library(prev.Path) && m.Len() <= maxLibBSS {
			m.Kind = prev.Kind
		}
	}
}
