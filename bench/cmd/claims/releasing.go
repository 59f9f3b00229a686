// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/memguard/memguard-go/scavenge/smaps"
)

// releasing is what is said about memory that goes back to the system.
var releasing = []Claim{
	{
		Name: "free-os-memory", Article: "4.4",
		Says:       "debug.FreeOSMemory does not collect and does not stop the world.",
		Expect:     False,
		Why:        "It is a full runtime.GC and then a release of every free page (runtime/mheap.go, runtime_debug_freeOSMemory).",
		Signal:     "`/gc/cycles/forced:gc-cycles`, `/sched/pauses/total/gc:seconds`, `(forced)` in scavtrace",
		Variants:   []Variant{{Name: "GOGC=off", Env: []string{"GOGC=off"}}},
		experiment: test(measureFree, judgeFree),
	},
	{
		Name: "godebug-madvise", Article: "4.4",
		Says:   "FreeOSMemory needs GODEBUG=madvise=1 to have an effect.",
		Expect: False,
		Why:    "There is no such key, and unknown keys are ignored without a word (runtime/runtime1.go).",
		Signal: "RSS before and after",
		Variants: []Variant{
			{Name: "default", Env: []string{"GOGC=off"}},
			{Name: "madvise=1", Env: []string{"GOGC=off", "GODEBUG=madvise=1"}},
		},
		experiment: test(measureFree, judgeMadvise),
	},
	{
		Name: "madv-free", Article: "4.2",
		Says:   "Go releases memory with MADV_FREE, so RSS stays after a release.",
		Expect: Changed,
		Why:    "That was the default of Go 1.12 to 1.15; since 1.16 it is MADV_DONTNEED (runtime/runtime1.go, madvdontneed). madvdontneed=0 brings it back.",
		Signal: "LazyFree in smaps_rollup: RSS − LazyFree is what counts",
		Variants: []Variant{
			{Name: "default", Env: []string{"GOGC=off"}},
			{Name: "madvdontneed=0", Env: []string{"GOGC=off", "GODEBUG=madvdontneed=0"}},
		},
		experiment: test(measureFree, judgeLazy),
	},
	{
		Name: "heap-unmapped", Article: "4.3",
		Says:       "A collection gives heap memory back with munmap.",
		Expect:     False,
		Why:        "The pages are released and the addresses stay (runtime/mem_linux.go, sysUnusedOS).",
		Signal:     "RSS; the virtual size says nothing",
		Variants:   []Variant{{Name: "GOGC=off", Env: []string{"GOGC=off"}}},
		experiment: test(measureFree, judgeUnmapped),
	},
	{
		Name:       "spike-stays",
		Says:       "After a spike RSS stays until the second collection.",
		Expect:     True,
		Why:        "The background scavenger passes over chunks that were nearly full in this or the last cycle (runtime/mgcscavenge.go, scavChunkData.shouldScavenge).",
		Signal:     "`/memory/classes/heap/free:bytes` large and flat while `/gc/cycles/total:gc-cycles` stands still",
		experiment: test(measureSpike, judgeSpike),
	},
	{
		Name: "trace-scavenge-line", Article: "2.4",
		Says:       "gctrace prints \"scavenge not needed; heap_alloc=… heap_sys=…\".",
		Expect:     False,
		Why:        "No release has such a line. The scavenger's own are \"scav …\", and with scavtrace=1 only (runtime/mgcscavenge.go, printScavTrace).",
		Signal:     "`/memory/classes/heap/free:bytes`, `/memory/classes/heap/released:bytes`",
		Variants:   []Variant{{Name: "gctrace=1,scavtrace=1", Env: []string{"GODEBUG=gctrace=1,scavtrace=1"}}},
		experiment: test(measureLine, judgeLine),
	},
	{
		Name: "pacer-states", Article: "2.1",
		Says:       "The pacer is a state machine: gcPacerState, gcPacerIdle and so on, traced as gc/pacer/state.",
		Expect:     False,
		Why:        "A cycle has phases, _GCoff, _GCmark and _GCmarktermination; the pacer is gcControllerState, which has no states.",
		Signal:     "the ranges of an execution trace: `GC concurrent mark phase`, `GC mark assist`",
		experiment: test(measurePacerNames, judgeNames),
	},
	{
		Name: "scavenger-race", Article: "4.1",
		Says:       "mheap.scavengingLoop frees pages in use because of a race with scavChunk and pageAlloc.scanInUse.",
		Expect:     False,
		Why:        "None of them exists. The scavenger marks a range as allocated, under the heap's lock, before it releases it (runtime/mgcscavenge.go, scavengeOne).",
		Signal:     "`/memory/classes/heap/free:bytes`, `/memory/classes/heap/released:bytes`, scavtrace",
		experiment: test(measureScavengerNames, judgeNames),
	},
}

// resident is what the kernel counts for this process, in bytes.
type resident struct {
	RSS      uint64 `json:"rss_bytes"`
	LazyFree uint64 `json:"lazyfree_bytes"`
	Huge     uint64 `json:"anon_huge_pages_bytes"`
	Virtual  uint64 `json:"virtual_bytes"`
}

func readResident() (r resident, err error) {
	m, err := smaps.ReadRollup("/proc", os.Getpid())
	if err != nil {
		return r, fmt.Errorf("%w: what is resident cannot be read: %w", errNotHere, err)
	}
	for _, f := range []struct {
		field smaps.Field
		to    *uint64
	}{{smaps.Rss, &r.RSS}, {smaps.LazyFree, &r.LazyFree}, {smaps.AnonHugePages, &r.Huge}} {
		n, ok := m.Bytes(f.field)
		if !ok {
			return r, fmt.Errorf("%w: this kernel has no %s", errNotHere, f.field)
		}
		*f.to = n
	}
	b, err := os.ReadFile("/proc/self/statm") // proc_pid_statm(5): the first is the virtual size in pages
	if err != nil {
		return r, err
	}
	if _, err := fmt.Sscan(string(b), &r.Virtual); err != nil {
		return r, fmt.Errorf("/proc/self/statm: %w", err)
	}
	r.Virtual *= uint64(os.Getpagesize())
	return r, nil
}

type freeFigures struct {
	Garbage  uint64   `json:"garbage_bytes"`
	Before   resident `json:"before"`
	After    resident `json:"after"`
	Forced   uint64   `json:"forced_cycles"`
	Stops    uint64   `json:"gc_stops"`
	Took     float64  `json:"seconds"`
	Idle     float64  `json:"seconds_with_nothing_to_free"`
	Released uint64   `json:"heap_released_bytes"` // in the runtime's own books
}

func measureFree() (f freeFigures, err error) {
	live := grow(32 * mib)
	f.Garbage = 128 * mib
	garbage := blocks(int(f.Garbage))
	if f.Before, err = readResident(); err != nil {
		return f, err
	}
	runtime.KeepAlive(garbage)
	before := readHeap()
	stops, _ := readHistogram(gcStops)

	begin := time.Now()
	debug.FreeOSMemory()
	f.Took = time.Since(begin).Seconds()

	after := readHeap()
	now, _ := readHistogram(gcStops)
	f.Forced, f.Stops, f.Released = after.Forced-before.Forced, now-stops, after.Released-before.Released
	if f.After, err = readResident(); err != nil {
		return f, err
	}
	begin = time.Now()
	debug.FreeOSMemory()
	f.Idle = time.Since(begin).Seconds()
	runtime.KeepAlive(live)
	return f, nil
}

// fell is by how much RSS fell.
func (f *freeFigures) fell() uint64 { return f.Before.RSS - min(f.Before.RSS, f.After.RSS) }

func judgeFree(all []freeFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("With 32 MiB live and %s of garbage one call made %d forced collection, stopped the world %d× and took %.0f ms; RSS fell from %s to %s. With nothing left to free the next call took %.0f ms.",
		inMiB(f.Garbage), f.Forced, f.Stops, f.Took*1e3, inMiB(f.Before.RSS), inMiB(f.After.RSS), f.Idle*1e3)
	switch {
	case f.Forced > 0 && f.Stops > 0:
		return False, happened
	case f.Forced > 0 || f.Stops > 0:
		return Partly, happened
	}
	return True, happened
}

func judgeMadvise(all []freeFigures) (Verdict, string) {
	without, with := all[0], all[1]
	happened := fmt.Sprintf("Of %s of garbage RSS lost %s without it and %s with it.", inMiB(without.Garbage), inMiB(without.fell()), inMiB(with.fell()))
	switch {
	case with.fell() < with.Garbage/2:
		return Unclear, happened
	case without.fell() > without.Garbage*3/4:
		return False, happened
	}
	return True, happened
}

func judgeLazy(all []freeFigures) (Verdict, string) {
	now, free := all[0], all[1]
	happened := fmt.Sprintf("%s released: RSS fell by %s and %s were LazyFree. With madvdontneed=0: %s released, RSS fell by %s, LazyFree %s.",
		inMiB(now.Released), inMiB(now.fell()), inMiB(now.After.LazyFree), inMiB(free.Released), inMiB(free.fell()), inMiB(free.After.LazyFree))
	lazy := func(f freeFigures) bool { return f.After.LazyFree > f.Released/2 }
	switch {
	case lazy(now):
		return True, happened
	case lazy(free):
		return Changed, happened
	}
	return False, happened
}

func judgeUnmapped(all []freeFigures) (Verdict, string) {
	f := all[0]
	lost := f.Before.Virtual - min(f.Before.Virtual, f.After.Virtual)
	happened := fmt.Sprintf("%s of garbage, collected and released: RSS fell by %s, the virtual size by %s.", inMiB(f.Garbage), inMiB(f.fell()), inMiB(lost))
	switch {
	case f.fell() < f.Garbage/2:
		return Unclear, happened
	case lost > f.Garbage/2:
		return True, happened
	}
	return False, happened
}

type spikeFigures struct {
	First  uint64  `json:"free_after_first_bytes"`
	Waited float64 `json:"waited_seconds"`
	Still  uint64  `json:"free_after_waiting_bytes"`
	RSS    uint64  `json:"rss_after_waiting_bytes"`
	Took   float64 `json:"seconds_after_second"`
	Last   uint64  `json:"free_after_second_bytes"`
	RSSEnd uint64  `json:"rss_after_second_bytes"`
}

func measureSpike() (f spikeFigures, err error) {
	spike := blocks(128 * mib)
	runtime.KeepAlive(spike)
	runtime.GC()
	f.First = readHeap().Free
	begin := time.Now()
	time.Sleep(time.Second)
	f.Waited, f.Still = time.Since(begin).Seconds(), readHeap().Free
	r, err := readResident()
	if err != nil {
		return f, err
	}
	f.RSS = r.RSS

	begin = time.Now()
	runtime.GC()
	eventually(10*time.Second, func() bool { return readHeap().Free < f.Still/2 })
	f.Took, f.Last = time.Since(begin).Seconds(), readHeap().Free
	r, err = readResident()
	f.RSSEnd = r.RSS
	return f, err
}

func judgeSpike(all []spikeFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("A collection freed %s. %.1f s later %s of it were still resident (RSS %s). %.1f s after a second collection %s were (RSS %s).",
		inMiB(f.First), f.Waited, inMiB(f.Still), inMiB(f.RSS), f.Took, inMiB(f.Last), inMiB(f.RSSEnd))
	// Starved of CPU the scavenger is slow, since it measures the 1 % that it may
	// take by the clock. So it counts whether it does anything.
	before, after := f.First-min(f.First, f.Still), f.Still-min(f.Still, f.Last)
	switch {
	case before > f.First/2:
		return False, happened
	case before < f.First/100 && after > f.First/50:
		return True, happened
	}
	return Partly, happened
}
