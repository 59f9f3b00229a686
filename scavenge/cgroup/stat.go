// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"fmt"
	"iter"
)

// Field is one class of memory.stat, under the name of version 2
// (Documentation/admin-guide/cgroup-v2.rst, "memory.stat").
type Field uint8

// The classes, in bytes. Version 1 has fewer: anonymous memory and page cache
// with their lists, swap, and the sum of kernel memory.
const (
	Anon              Field = iota // anonymous memory: heap, stacks, private mappings
	File                           // page cache, with tmpfs and shared memory
	Kernel                         // all kernel memory of the group; version 1: memory.kmem.usage_in_bytes
	KernelStack                    // kernel stacks of the group's threads
	PageTables                     // page tables
	SecPageTables                  // second-level page tables (KVM, IOMMU)
	Percpu                         // per-CPU kernel structures
	Sock                           // network buffers
	Vmalloc                        // kernel's vmalloc areas
	Shmem                          // part of File: tmpfs, shared memory
	Zswap                          // compressed swap in memory
	Zswapped                       // application memory that went to zswap
	FileMapped                     // part of File: mapped by processes
	FileDirty                      // part of File: not yet written
	FileWriteback                  // part of File: being written
	SwapCached                     // swap that is also in memory
	AnonTHP                        // part of Anon: in transparent huge pages
	FileTHP                        // part of File: in transparent huge pages
	ShmemTHP                       // part of Shmem: in transparent huge pages
	InactiveAnon                   // LRU lists: what reclaim looks at first ...
	ActiveAnon                     // ... and last
	InactiveFile                   // page cache that can be dropped without pain
	ActiveFile                     // page cache in use
	Unevictable                    // mlocked and the like
	SlabReclaimable                // dentries, inodes
	SlabUnreclaimable              // other slab
	Slab                           // sum of the two
	Swap                           // swapped out; version 1 only (2 has memory.swap.current)
	HierarchicalLimit              // smallest limit up to the real root; version 1 only
	HierarchicalMemsw              // the same for memory plus swap; version 1 only
	numFields
)

// statNames gives the line of memory.stat for each field: version 2, and the
// older name of version 1 where it has the same meaning. Version 1 prints
// every value twice; "total_" is the one that counts descendants, as version 2
// does, and as the usage does (Documentation/admin-guide/cgroup-v1/memory.rst).
var statNames = [numFields]struct{ v2, v1 string }{
	Anon:              {"anon", "rss"},
	File:              {"file", "cache"},
	Kernel:            {"kernel", ""},
	KernelStack:       {"kernel_stack", ""},
	PageTables:        {"pagetables", ""},
	SecPageTables:     {"sec_pagetables", ""},
	Percpu:            {"percpu", ""},
	Sock:              {"sock", ""},
	Vmalloc:           {"vmalloc", ""},
	Shmem:             {"shmem", "shmem"},
	Zswap:             {"zswap", ""},
	Zswapped:          {"zswapped", ""},
	FileMapped:        {"file_mapped", "mapped_file"},
	FileDirty:         {"file_dirty", "dirty"},
	FileWriteback:     {"file_writeback", "writeback"},
	SwapCached:        {"swapcached", "swapcached"},
	AnonTHP:           {"anon_thp", "rss_huge"},
	FileTHP:           {"file_thp", ""},
	ShmemTHP:          {"shmem_thp", ""},
	InactiveAnon:      {"inactive_anon", "inactive_anon"},
	ActiveAnon:        {"active_anon", "active_anon"},
	InactiveFile:      {"inactive_file", "inactive_file"},
	ActiveFile:        {"active_file", "active_file"},
	Unevictable:       {"unevictable", "unevictable"},
	SlabReclaimable:   {"slab_reclaimable", ""},
	SlabUnreclaimable: {"slab_unreclaimable", ""},
	Slab:              {"slab", ""},
	Swap:              {"", "swap"},
	HierarchicalLimit: {"", "hierarchical_memory_limit"},
	HierarchicalMemsw: {"", "hierarchical_memsw_limit"},
}

// String returns the name of the field's line in version 2, or in version 1
// where only that has it.
func (f Field) String() string {
	if f >= numFields {
		return fmt.Sprintf("Field(%d)", uint8(f))
	}
	if n := statNames[f]; n.v2 != "" {
		return n.v2
	} else {
		return n.v1
	}
}

// Fields returns every field, in the order of its declaration.
func Fields() iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for f := range numFields {
			if !yield(f) {
				return
			}
		}
	}
}

// Stat is memory.stat. The zero Stat knows nothing.
type Stat struct {
	fields [numFields]Value
	text   []byte
}

// Bytes returns one class in bytes, and whether the kernel gave it. The
// classes overlap: see the comments of the fields.
func (s *Stat) Bytes(f Field) (n uint64, ok bool) {
	if f >= numFields {
		return 0, false
	}
	return s.fields[f].Value()
}

// Lines returns every line of the file as the kernel printed it, those that
// have no Field (workingset_refault_file, pgmajfault, those of kernels to
// come) among them. Their units vary: bytes, pages or events. Lines that are
// not a name and a number are passed over.
func (s *Stat) Lines() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for rest := s.text; len(rest) > 0; {
			var line []byte
			line, rest = cutLine(rest)
			if key, n, ok := cutKey(line); ok && !yield(string(key), n) {
				return
			}
		}
	}
}

var statFields = [3]map[string]Field{1: statIndex(1), 2: statIndex(2)}

func statIndex(version int) map[string]Field {
	m := make(map[string]Field)
	for f := range numFields {
		switch n := statNames[f]; {
		case version == 2 && n.v2 != "":
			m[n.v2] = f
		case version == 1 && n.v1 != "":
			m[n.v1] = f
		}
	}
	return m
}

var totalPrefix = []byte("total_")

// parseStat fills s from the text of memory.stat. s keeps text for Lines.
// It returns the number of lines that are not a name and a number; all others
// count all the same. Of a name that comes twice the last one is taken.
func parseStat(version int, text []byte, s *Stat) (bad int) {
	*s = Stat{text: text}
	names := statFields[version]
	var total [numFields]bool
	for rest := text; len(rest) > 0; {
		var line []byte
		line, rest = cutLine(rest)
		key, n, ok := cutKey(line)
		if !ok {
			bad++
			continue
		}
		whole := false
		if version == 1 {
			key, whole = bytes.CutPrefix(key, totalPrefix)
		}
		f, ok := names[string(key)]
		if !ok || total[f] && !whole {
			continue
		}
		s.fields[f], total[f] = ValueOf(n), whole
	}
	return bad
}
