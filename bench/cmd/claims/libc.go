// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// libc is what is said about the C library's allocator.
var libc = []Claim{
	{
		Name: "glibc-mapped-chunk", Article: "4.3",
		Says:       "glibc's free keeps a block that was mapped by itself.",
		Expect:     False,
		Why:        "It unmaps it at once, and raises the size from which blocks are mapped, 128 KiB at first and 32 MiB at most: later blocks of that size come from an arena and can stay (mallopt(3), M_MMAP_THRESHOLD).",
		Signal:     "RSS − Go's resident memory; `[heap]` and arenas of 64 MiB in smaps; mallinfo2(3)",
		experiment: test(measureChunk, judgeChunk),
	},
	{
		Name:       "glibc-arenas",
		Says:       "What C has freed stays resident in malloc's arenas; neither runtime.GC nor FreeOSMemory returns it, malloc_trim does.",
		Expect:     True,
		Why:        "Only free memory at the end of an arena goes back by itself (malloc_trim(3)); Go knows nothing of it.",
		Signal:     "RSS − (`/memory/classes/total:bytes` − `/memory/classes/heap/released:bytes`)",
		experiment: test(measureArenas, judgeArenas),
	},
}

type chunkFigures struct {
	Size      uint64 `json:"block_bytes"`
	Mapped    int    `json:"mapped_blocks"`
	Freed     int    `json:"mapped_blocks_after_free"`
	NextSize  uint64 `json:"next_block_bytes"`
	NextCount int    `json:"mapped_blocks_with_next"`
}

func judgeChunk(all []chunkFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("A block of %d KiB: %d mapped by itself, %d after free. A block of %d KiB after that: %d.", f.Size>>10, f.Mapped, f.Freed, f.NextSize>>10, f.NextCount)
	switch {
	case f.Mapped == 0:
		return Unclear, happened
	case f.Freed == 0:
		return False, happened
	}
	return True, happened
}

type arenaFigures struct {
	Threads int    `json:"threads"`
	Before  uint64 `json:"rss_before_bytes"`
	Full    uint64 `json:"rss_full_bytes"`
	Freed   uint64 `json:"rss_after_free_bytes"`
	Go      uint64 `json:"rss_after_freeosmemory_bytes"`
	Trimmed uint64 `json:"rss_after_malloc_trim_bytes"`
}

func judgeArenas(all []arenaFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("%d threads had %s and freed 49 of 50 blocks: RSS %s, %s after runtime.GC and FreeOSMemory, %s after malloc_trim.",
		f.Threads, inMiB(f.Full-min(f.Full, f.Before)), inMiB(f.Freed), inMiB(f.Go), inMiB(f.Trimmed))
	grown := f.Full - min(f.Full, f.Before)
	over := func(rss uint64, part uint64) bool { return rss > f.Before+grown/part }
	switch {
	case !over(f.Freed, 2):
		return False, happened // nothing stayed
	case over(f.Go, 2) && !over(f.Trimmed, 2):
		return True, happened
	}
	return Partly, happened
}
