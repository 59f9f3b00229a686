// SPDX-License-Identifier: Apache-2.0

// Package smaps reads /proc/PID/smaps and says who owns each mapping of a process.
//
// [Reader] is the parser: every field of Linux 6.18, and those it does not know, which it keeps. What a kernel
// does not print is unknown and never zero; a line that cannot be read is a record, and reading goes on.
// [Read] and [Parse] make a [Process] of it, in which every mapping has one [Kind]: the Go heap, the Go runtime's
// tables, a stack, the executable, a file, malloc, shared memory. [ReadRollup] is the kernel's own sum.
//
//	p, err := smaps.Read("/proc", pid, smaps.Hints{Go: true})
//	if err != nil {
//		return err
//	}
//	heap := p.ByKind(smaps.GoHeap)
//	if n, ok := heap.Bytes(smaps.LazyFree); ok {
//		fmt.Println("the kernel may take back", n, "bytes of the heap at any time")
//	}
//
// # How mappings are told apart
//
// By name where there is one: Go names its mappings since 1.25, "[anon: Go: heap]", on kernels built
// with CONFIG_ANON_VMA_NAME, and glibc since 2.39 if glibc.mem.decorate_maps is set. Else by shape, by flags, and by
// what the caller knows ([Hints]); the comments in shape.go, goheap.go and metadata.go draw what is looked for.
// The testdata are recordings of programs of Go 1.18 to 1.27, static, position-independent, with
// cgo and with the race detector, each checked against what the program knew about its own addresses.
//
// Names are exact and so are hints. Shapes have limits:
//
//   - The kernel merges neighbours that have the same rights and flags, so one mapping can have several owners. It
//     counts whole for the one that has most of it by size: a small anonymous mmap of a Go program is often merged
//     into the runtime's tables, and a C stack into its heap index.
//   - The runtime's tables and the program's own small mappings look the same. What fits what the runtime can
//     have is taken for the runtime's: some MiB, and 0.5 MiB more per 64 MiB of heap (2.5 MiB next to the page
//     summaries, as needed up to Go 1.21). Hints.MetadataBytes replaces this estimate by the truth.
//   - A Go heap that had to move in among the other mappings is found by HeapAddrs or HeapRanges only.
//   - Blocks that malloc maps singly (128 KiB and up at first) and other allocators' memory are Anon.
//   - A file in memory is known by its path, by its device if another file of it is, or by the mounts
//     of the process, which Read looks up; Parse cannot.
package smaps
