// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"iter"
	"math/bits"
)

// Field names one accounting line of smaps or smaps_rollup. The names, their
// order and their meaning are the kernel's: fs/proc/task_mmu.c, proc_pid_smaps(5).
type Field uint8

// The byte counts of kernel 6.18 in the order in which it prints them.
// Pss_Anon, Pss_File and Pss_Shmem appear in smaps_rollup only; Size and the
// page sizes appear in smaps only.
const (
	Size           Field = iota // address range, resident or not
	KernelPageSize              // page size of the VMA
	MMUPageSize                 // page size in the page table
	Rss                         // resident
	Pss                         // resident, shared pages divided by their sharers
	PssDirty                    // dirty part of Pss (5.19+)
	PssAnon                     // anonymous part of Pss
	PssFile                     // file part of Pss
	PssShmem                    // shared memory part of Pss
	SharedClean                 // resident, mapped more than once, clean
	SharedDirty                 // resident, mapped more than once, dirty
	PrivateClean                // resident, mapped once, clean
	PrivateDirty                // resident, mapped once, dirty
	Referenced                  // marked as accessed
	Anonymous                   // belongs to no file, or a private copy of a file's page
	KSM                         // merged by KSM (6.6+)
	LazyFree                    // MADV_FREE: counted in Rss until the kernel reclaims it (4.12+)
	AnonHugePages               // anonymous memory in PMD-sized huge pages
	ShmemPmdMapped              // shared memory mapped as PMD-sized huge pages
	FilePmdMapped               // page cache mapped as PMD-sized huge pages (5.4+)
	SharedHugetlb               // hugetlb pages mapped more than once: not in Rss or Pss
	PrivateHugetlb              // hugetlb pages mapped once: not in Rss or Pss
	Swap                        // anonymous memory swapped out
	SwapPss                     // Swap divided by its sharers
	Locked                      // mlocked part of Pss

	numFields = iota
)

var fieldNames = [numFields]string{
	"Size", "KernelPageSize", "MMUPageSize", "Rss", "Pss", "Pss_Dirty", "Pss_Anon", "Pss_File", "Pss_Shmem",
	"Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced", "Anonymous", "KSM", "LazyFree",
	"AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss", "Locked",
}

// String returns the kernel's name for the field, such as "Private_Dirty".
func (k Field) String() string {
	if int(k) < len(fieldNames) {
		return fieldNames[k]
	}
	return "unknown field"
}

func fieldByName(name []byte) (Field, bool) {
	for k, s := range fieldNames {
		if s == string(name) {
			return Field(k), true
		}
	}
	return 0, false
}

// Fields is a set of byte counts, each of them known or unknown: what a kernel
// does not print is unknown, not zero. The zero Fields knows nothing.
type Fields struct {
	n     [numFields]uint64
	known uint32 // bit k is set if n[k] is known; the other n are meaningless
}

// Bytes returns the value of field k in bytes and whether it is known.
func (f *Fields) Bytes(k Field) (n uint64, ok bool) {
	if k >= numFields || f.known>>k&1 == 0 {
		return 0, false
	}
	return f.n[k], true
}

// All yields the known fields in the kernel's order, in bytes.
func (f *Fields) All() iter.Seq2[Field, uint64] {
	return func(yield func(Field, uint64) bool) {
		for k := range Field(numFields) {
			if n, ok := f.Bytes(k); ok && !yield(k, n) {
				return
			}
		}
	}
}

// set makes k known; it fails if k is known already.
func (f *Fields) set(k Field, n uint64) bool {
	if f.known>>k&1 != 0 {
		return false
	}
	f.n[k], f.known = n, f.known|1<<k
	return true
}

// add sums g into f. A sum is known if both sides are; one that does not fit is unknown.
func (f *Fields) add(g *Fields) {
	f.known &= g.known
	for m := f.known; m != 0; m &= m - 1 {
		k := bits.TrailingZeros32(m)
		sum, carry := bits.Add64(f.n[k], g.n[k], 0)
		f.n[k] = sum
		f.known &^= uint32(carry) << k
	}
}
