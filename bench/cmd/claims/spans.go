// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// spans is what is said about mcaches and spans.
var spans = []Claim{
	{
		Name: "mcache-retention", Article: "3.1",
		Says:   "The mcache of an idle P never gives its spans back.",
		Expect: False,
		Why:    "Every collection flushes all mcaches, and the page caches of idle Ps (runtime/mgc.go, gcMarkTermination). With GOGC=off nothing does.",
		Signal: "`/memory/classes/heap/unused:bytes` before and after a collection",
		Variants: []Variant{
			{Name: "GOMAXPROCS=32, GOGC=off", Env: []string{"GOMAXPROCS=32", "GOGC=off"}},
		},
		experiment: test(measureMcache, judgeMcache),
	},
	{
		Name: "mspan-inuse", Article: "3.2",
		Says:       "MSpanInuse × 8192 is the memory of the spans; where it grows, spans are stranded.",
		Expect:     False,
		Why:        "MSpanInuse counts the bytes of the structs that describe spans (runtime/mstats.go).",
		Signal:     "HeapInuse − HeapAlloc = `/memory/classes/heap/unused:bytes`",
		experiment: test(measureMSpan, judgeMSpan),
	},
	{
		Name:       "span-fragmentation",
		Says:       "Spans that are partly in use keep their pages, and neither runtime.GC nor FreeOSMemory helps.",
		Expect:     True,
		Why:        "Objects do not move, and only whole free pages are released (runtime/mgcscavenge.go).",
		Signal:     "`/memory/classes/heap/unused:bytes` ÷ (objects + unused) after a collection; allocs-by-size − frees-by-size for the size class",
		experiment: test(measureFragments, judgeFragments),
	},
}

type mcacheFigures struct {
	Ps     int     `json:"gomaxprocs"`
	Before uint64  `json:"unused_before_bytes"`
	After  uint64  `json:"unused_after_bytes"` // every P has allocated
	Waited float64 `json:"idle_seconds"`
	Idle   uint64  `json:"unused_after_idling_bytes"`
	Cycle  uint64  `json:"unused_after_collection_bytes"`
}

func measureMcache() (f mcacheFigures, err error) {
	f.Ps = runtime.GOMAXPROCS(0)
	f.Before = readHeap().Unused
	var here atomic.Int64
	var group sync.WaitGroup
	for range f.Ps {
		group.Go(func() {
			// Nobody goes on before all are running, so each has a P of its own.
			for here.Add(1); here.Load() < int64(f.Ps); {
			}
			for size := 16; size <= 32<<10; size += size / 4 {
				sink.Store(&make([]byte, size)[0])
			}
		})
	}
	group.Wait()
	f.After = readHeap().Unused
	begin := time.Now()
	time.Sleep(500 * time.Millisecond)
	f.Waited = time.Since(begin).Seconds()
	f.Idle = readHeap().Unused
	runtime.GC()
	f.Cycle = readHeap().Unused
	return f, nil
}

func judgeMcache(all []mcacheFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("One object of each size on each of %d Ps: unused span memory went from %s to %s, was %s after %.1f s of idling, and %s after one collection.",
		f.Ps, inMiB(f.Before), inMiB(f.After), inMiB(f.Idle), f.Waited, inMiB(f.Cycle))
	switch {
	case f.Idle < 2*f.Before:
		return Unclear, happened // nothing was retained
	case f.Cycle < f.Idle/4:
		return False, happened
	case f.Cycle < f.Idle*9/10:
		return Partly, happened
	}
	return True, happened
}

type mspanFigures struct {
	InUse uint64 `json:"mspan_inuse_bytes"`
	Sys   uint64 `json:"sys_bytes"`
	Heap  uint64 `json:"heap_inuse_bytes"`
}

func measureMSpan() (f mspanFigures, err error) {
	live := grow(64 * mib)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f = mspanFigures{InUse: m.MSpanInuse, Sys: m.Sys, Heap: m.HeapInuse}
	runtime.KeepAlive(live)
	return f, nil
}

func judgeMSpan(all []mspanFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("MSpanInuse × 8192 = %s, in a process that has %s from the system and %s in spans.",
		inMiB(f.InUse*8192), inMiB(f.Sys), inMiB(f.Heap))
	if within(f.InUse*8192, f.Heap, 0.25) {
		return True, happened
	}
	return False, happened
}

type fragmentFigures struct {
	Objects uint64 `json:"objects_bytes"`
	Full    uint64 `json:"unused_before_bytes"`     // all objects live
	Cycle   uint64 `json:"unused_after_gc_bytes"`   // one in 16 is
	Freed   uint64 `json:"unused_after_free_bytes"` // and FreeOSMemory has been called
}

func measureFragments() (f fragmentFigures, err error) {
	const size, keep = 512, 16
	all := make([]*[size]byte, 96*mib/size)
	for i := range all {
		all[i] = new([size]byte)
	}
	f.Full = readHeap().Unused
	for i := range all {
		if i%keep != 0 {
			all[i] = nil
		}
	}
	runtime.GC()
	h := readHeap()
	f.Objects, f.Cycle = h.Objects, h.Unused
	debug.FreeOSMemory()
	f.Freed = readHeap().Unused
	runtime.KeepAlive(all)
	return f, nil
}

func judgeFragments(all []fragmentFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("One in 16 objects of 512 bytes stays: %s of objects hold %s of unused span memory after a collection (%s before), %s after FreeOSMemory.",
		inMiB(f.Objects), inMiB(f.Cycle), inMiB(f.Full), inMiB(f.Freed))
	switch {
	case f.Cycle < f.Objects:
		return False, happened // the collection helped
	case f.Freed > f.Cycle*9/10:
		return True, happened
	case f.Freed > f.Cycle/4:
		return Partly, happened
	}
	return False, happened
}
