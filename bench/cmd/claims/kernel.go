// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

const (
	overcommit = "proc/sys/vm/overcommit_memory"
	thp        = "sys/kernel/mm/transparent_hugepage/"
)

// kernel is what is said about the kernel's settings. These need --touch-kernel.
var kernel = []Claim{
	{
		Name: "overcommit", Article: "4.2",
		Says:   "vm.overcommit_memory=1 disables MADV_FREE, and huge pages stay because of it.",
		Expect: False,
		Why:    "Overcommit is about what may be mapped, not about what is freed (Documentation/mm/overcommit-accounting.rst). MADV_FREE leaves pages in RSS, under any setting, until the kernel wants them.",
		Signal: "LazyFree and AnonHugePages in smaps_rollup",
		Variants: []Variant{
			{Name: "overcommit_memory=0", Kernel: []Setting{{overcommit, "0"}, {thp + "enabled", "madvise"}}},
			{Name: "overcommit_memory=1", Kernel: []Setting{{overcommit, "1"}, {thp + "enabled", "madvise"}}},
		},
		experiment: test(measureAdvice, judgeAdvice),
	},
	{
		Name:   "thp-refill",
		Says:   "Where huge pages are on for the heap, memory that Go has released becomes resident again by itself.",
		Expect: True,
		Why:    "khugepaged makes a huge page of 2 MiB in which as little as one page is present, with max_ptes_none at its default of 511 (Documentation/admin-guide/mm/transhuge.rst).",
		Signal: "AnonHugePages and RSS that rise while `/memory/classes/heap/released:bytes` stays",
		Variants: []Variant{{
			Name: "khugepaged without its pauses",
			Kernel: []Setting{
				{thp + "enabled", "madvise"},
				{thp + "khugepaged/max_ptes_none", "511"},
				{thp + "khugepaged/scan_sleep_millisecs", "10"}, // by default 10 s, and
				{thp + "khugepaged/pages_to_scan", "65536"},     // 4096 pages
			},
		}},
		experiment: test(measureRefill, judgeRefill),
	},
}

type adviceFigures struct {
	Mapped  uint64   `json:"mapped_bytes"`
	Touched resident `json:"touched"`   // each less what it was before
	Free    resident `json:"madv_free"` // after MADV_FREE
	Gone    resident `json:"madv_dontneed"`
}

func judgeAdvice(all []adviceFigures) (Verdict, string) {
	zero, one := all[0], all[1]
	tell := func(mode int, f adviceFigures) string {
		return fmt.Sprintf("overcommit_memory=%d: RSS %s and %s of it in huge pages; after MADV_FREE %s, LazyFree %s, in huge pages %s; after MADV_DONTNEED %s.",
			mode, inMiB(f.Touched.RSS), inMiB(f.Touched.Huge), inMiB(f.Free.RSS), inMiB(f.Free.LazyFree), inMiB(f.Free.Huge), inMiB(f.Gone.RSS))
	}
	happened := fmt.Sprintf("%s mapped and touched. %s %s", inMiB(zero.Mapped), tell(0, zero), tell(1, one))
	lazy := func(f adviceFigures) bool { return f.Free.LazyFree > f.Mapped/2 }
	stay := func(f adviceFigures) bool { return f.Gone.Huge > f.Mapped/2 }
	switch {
	case !lazy(zero):
		return Unclear, happened
	case lazy(one) && !stay(one):
		return False, happened
	case !lazy(one) && stay(one):
		return True, happened
	}
	return Partly, happened
}

type refillFigures struct {
	Full     uint64  `json:"rss_full_bytes"`
	Freed    uint64  `json:"rss_after_release_bytes"`
	Refilled uint64  `json:"rss_refilled_bytes"`
	Huge     uint64  `json:"anon_huge_pages_bytes"`
	Took     float64 `json:"seconds"`
	Released uint64  `json:"heap_released_before_bytes"`
	Still    uint64  `json:"heap_released_after_bytes"`
}

func judgeRefill(all []refillFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("RSS fell from %s to %s with FreeOSMemory. With huge pages advised for the heap it was %s after %.2f s, %s of it in huge pages, while the runtime counted %s as released before and %s after.",
		inMiB(f.Full), inMiB(f.Freed), inMiB(f.Refilled), f.Took, inMiB(f.Huge), inMiB(f.Released), inMiB(f.Still))
	switch lost, back := f.Full-min(f.Full, f.Freed), f.Refilled-min(f.Refilled, f.Freed); {
	case lost < f.Full/2:
		return Unclear, happened
	case back > lost/4 && f.Still > f.Released*9/10:
		return True, happened
	}
	return False, happened
}
