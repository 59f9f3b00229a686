// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// stacks is what is said about goroutine stacks.
var stacks = []Claim{
	{
		Name: "stack-start", Article: "2.1",
		Says:   "A goroutine starts with a stack of 2 KiB.",
		Expect: Changed,
		Why:    "Since Go 1.19 a goroutine starts with the average of what the last cycle scanned, rounded up to a power of two (runtime/stack.go, gcComputeStartingStackSize), if it gets the descriptor of one that has ended, as most do in a running service; a new descriptor still comes with 2 KiB (runtime/proc.go, newproc1, gfget).",
		Signal: "`/gc/stack/starting-size:bytes`",
		Variants: []Variant{
			{Name: "adaptivestackstart=0", Env: []string{"GODEBUG=adaptivestackstart=0"}},
			{Name: "default"},
		},
		experiment: test(measureStart, judgeStart),
	},
	{
		Name: "stack-shrink", Article: "2.2",
		Says:       "A stack that was deep stays big until less than 2 KiB of it is used.",
		Expect:     False,
		Why:        "Each cycle halves a stack of which less than a quarter is used (runtime/stack.go, shrinkstack).",
		Signal:     "`/memory/classes/heap/stacks:bytes`, `/gc/scan/stack:bytes`",
		experiment: test(measureShrink, judgeShrink),
	},
	{
		Name:       "stack-pinned",
		Says:       "The stack of a goroutine that is blocked in a system call does not shrink, not even by FreeOSMemory.",
		Expect:     True,
		Why:        "The kernel may hold pointers into it, so it shrinks when the call has returned (runtime/stack.go, isShrinkStackSafe).",
		Signal:     "`/sched/goroutines/not-in-go:goroutines` with `/memory/classes/heap/stacks:bytes`; `[syscall]` in a goroutine dump",
		experiment: test(measurePinned, judgePinned),
	},
	{
		Name: "stack-exit", Article: "2.4",
		Says:       "A goroutine that ends leaks its stack.",
		Expect:     False,
		Why:        "A stack that is not of the starting size is freed as the goroutine ends; one that is, is kept for the next goroutine until a collection (runtime/proc.go, gfput).",
		Signal:     "`/memory/classes/heap/stacks:bytes` after goroutines have ended",
		Variants:   []Variant{{Name: "GOGC=off", Env: []string{"GOGC=off"}}},
		experiment: test(measureExit, judgeExit),
	},
	{
		Name: "heap-profile-small", Article: "0.2",
		Says:       "If the heap profile shows little, the memory is not Go's.",
		Expect:     Partly,
		Why:        "The profile has sampled heap objects as of the last collection. Stacks, free and unused spans and the runtime's own tables are Go's, too, and not in it.",
		Signal:     "`/memory/classes/total:bytes` − `/memory/classes/heap/released:bytes` is all of Go; what RSS has more is not",
		experiment: test(measureProfile, judgeProfileSmall),
	},
	{
		Name: "stack-profile", Article: "2.5",
		Says:       "`go tool pprof -alloc_space` shows goroutine stacks.",
		Expect:     False,
		Why:        "Stacks are not allocated by mallocgc, which is what the heap profile samples (runtime/stack.go, stackalloc).",
		Signal:     "goroutine profile for who, `/memory/classes/heap/stacks:bytes` for how much",
		experiment: test(measureProfile, judgeProfileStacks),
	},
}

type startFigures struct {
	Size   uint64 `json:"starting_size_bytes"`
	New    uint64 `json:"stack_of_new_goroutine_bytes"`
	Reused uint64 `json:"stack_of_goroutine_after_another_bytes"`
}

func measureStart() (f startFigures, err error) {
	deepened := park(200, func(wait func()) { deep(48, wait) })
	runtime.GC()
	runtime.GC()
	f.Size = readMetric("/gc/stack/starting-size:bytes")
	each := func() uint64 {
		const n = 200
		before := readHeap().Stacks
		idle := park(n, func(wait func()) { wait() })
		defer idle.dismiss()
		return (readHeap().Stacks - before) / n
	}
	f.New = each()
	f.Reused = each()
	deepened.dismiss()
	return f, nil
}

func judgeStart(all []startFigures) (Verdict, string) {
	fixed, now := all[0], all[1]
	happened := fmt.Sprintf("After two collections with 200 goroutines 48 KiB deep the starting size is %d bytes. A goroutine with a new descriptor took %d bytes of stack, one that got that of a goroutine which had ended %d bytes; with adaptivestackstart=0, %d and %d bytes.",
		now.Size, now.New, now.Reused, fixed.New, fixed.Reused)
	small := func(f startFigures) bool { return f.Reused <= 4<<10 }
	switch {
	case small(now):
		return True, happened
	case small(fixed):
		return Changed, happened
	}
	return False, happened
}

type shrinkFigures struct {
	Stacks []uint64 `json:"stacks_bytes_by_collections"` // first: before any
}

// wentDeep are goroutines that have been 48 KiB deep and are back up when they wait.
func wentDeep(n int, block func(wait func())) *crew {
	return park(n, func(wait func()) {
		deep(48, func() {})
		block(wait)
	})
}

func measureShrink() (f shrinkFigures, err error) {
	debug.SetGCPercent(-1) // no other collection than these
	deepened := wentDeep(200, func(wait func()) { wait() })
	f.Stacks = append(f.Stacks, readHeap().Stacks)
	for range 6 {
		runtime.GC()
		f.Stacks = append(f.Stacks, readHeap().Stacks)
	}
	deepened.dismiss()
	return f, nil
}

func judgeShrink(all []shrinkFigures) (Verdict, string) {
	s := all[0].Stacks
	var steps []string
	for _, n := range s {
		steps = append(steps, inMiB(n))
	}
	happened := fmt.Sprintf("200 goroutines that had been deep and now wait: %s of stacks, then after each of %d collections %s.",
		steps[0], len(s)-1, strings.Join(steps[1:], ", "))
	switch first, last := s[0], s[len(s)-1]; {
	case last > first*9/10:
		return True, happened
	case last > first/4:
		return Partly, happened
	}
	return False, happened
}

type pinnedFigures struct {
	Goroutines    int    `json:"goroutines"`
	WaitingBefore uint64 `json:"waiting_before_bytes"`
	WaitingAfter  uint64 `json:"waiting_after_bytes"`
	InCallBefore  uint64 `json:"in_system_call_before_bytes"`
	InCallAfter   uint64 `json:"in_system_call_after_bytes"`
	Collections   int    `json:"collections"`
	NotInGo       uint64 `json:"goroutines_not_in_go"`
	Returned      uint64 `json:"after_return_bytes"`
	Threads       uint64 `json:"threads"`
}

func judgePinned(all []pinnedFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("%d goroutines that had been deep. Waiting for a channel: %s of stacks, %s after %d collections and FreeOSMemory. Blocked in read(2): %s, %s after the same; %s when the calls had returned, with the signal stacks of %d threads in it.",
		f.Goroutines, inMiB(f.WaitingBefore), inMiB(f.WaitingAfter), f.Collections, inMiB(f.InCallBefore), inMiB(f.InCallAfter), inMiB(f.Returned), f.Threads)
	switch {
	case f.WaitingAfter > f.WaitingBefore/2:
		return Unclear, happened // these should have shrunk
	case f.InCallAfter > f.InCallBefore*9/10:
		return True, happened
	case f.InCallAfter > f.InCallBefore/2:
		return Partly, happened
	}
	return False, happened
}

// collectHard is every way to ask for memory back.
func collectHard(times int) {
	for range times {
		runtime.GC()
	}
	debug.FreeOSMemory()
}

type exitFigures struct {
	Before uint64 `json:"before_bytes"`
	Deep   uint64 `json:"deep_bytes"`
	Ended  uint64 `json:"ended_bytes"` // no collection in between
	Cycles uint64 `json:"cycles"`
}

func measureExit() (f exitFigures, err error) {
	f.Before = readHeap().Stacks
	c := wentDeep(200, func(wait func()) { wait() })
	f.Deep = readHeap().Stacks
	c.dismiss()
	eventually(time.Second, func() bool { return readHeap().Stacks < f.Deep/4 }) // Done comes before the end
	h := readHeap()
	f.Ended, f.Cycles = h.Stacks, h.Automatic+h.Forced
	return f, nil
}

func judgeExit(all []exitFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("200 goroutines: %s of stacks while they ran, %s when they had ended, with %d collections in between (%s before).",
		inMiB(f.Deep), inMiB(f.Ended), f.Cycles, inMiB(f.Before))
	switch grown, left := f.Deep-f.Before, f.Ended-min(f.Ended, f.Before); {
	case left > grown*9/10:
		return True, happened
	case left > grown/4:
		return Partly, happened
	}
	return False, happened
}

type profileFigures struct {
	Heap         uint64 `json:"heap_bytes"`   // what was grown
	Stacks       uint64 `json:"stacks_bytes"` // what was grown
	ShowsHeap    int64  `json:"inuse_space_of_heap_bytes"`
	ShowsStacks  int64  `json:"inuse_space_of_stacks_bytes"`
	AllocsStacks int64  `json:"alloc_space_of_stacks_bytes"`
}

func measureProfile() (f profileFigures, err error) {
	inuse0, alloc0, err := heapProfile()
	if err != nil {
		return f, err
	}
	before := readHeap().Stacks
	deepened := park(64, func(wait func()) { deep(500, wait) })
	f.Stacks = readHeap().Stacks - before
	inuse1, alloc1, err := heapProfile()
	if err != nil {
		return f, err
	}
	f.ShowsStacks, f.AllocsStacks = inuse1-inuse0, alloc1-alloc0

	live := blocks(32 * mib)
	f.Heap = 32 * mib
	inuse2, _, err := heapProfile()
	f.ShowsHeap = inuse2 - inuse1
	deepened.dismiss()
	runtime.KeepAlive(live)
	return f, err
}

// heapProfile returns the sums of inuse_space and alloc_space.
func heapProfile() (inuse, alloc int64, err error) {
	runtime.GC()
	var b bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&b, 0); err != nil {
		return 0, 0, err
	}
	p, err := profile.Parse(&b)
	if err != nil {
		return 0, 0, err
	}
	for _, s := range p.Sample {
		for i, t := range p.SampleType {
			switch t.Type {
			case "inuse_space":
				inuse += s.Value[i]
			case "alloc_space":
				alloc += s.Value[i]
			}
		}
	}
	return inuse, alloc, nil
}

func judgeProfileSmall(all []profileFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("%s of stacks: the heap profile grew by %s. %s of heap: it grew by %s.",
		inMiB(f.Stacks), inMiB(f.ShowsStacks), inMiB(f.Heap), inMiB(f.ShowsHeap))
	heap, stacks := f.ShowsHeap > int64(f.Heap/2), f.ShowsStacks > int64(f.Stacks/2)
	switch {
	case heap && stacks:
		return True, happened
	case heap || stacks:
		return Partly, happened
	}
	return False, happened
}

func judgeProfileStacks(all []profileFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("%s of stacks: alloc_space grew by %s.", inMiB(f.Stacks), inMiB(f.AllocsStacks))
	if f.AllocsStacks > int64(f.Stacks/2) {
		return True, happened
	}
	return False, happened
}
