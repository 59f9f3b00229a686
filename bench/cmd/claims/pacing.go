// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/memguard/memguard-go/pacer/gctrace"
)

// pacing is what is said about when the collector runs and how far the heap grows.
var pacing = []Claim{
	{
		Name: "heap-goal", Article: "1.1",
		Says:       "GOGC=100 does not mean that a collection comes when the heap has doubled.",
		Expect:     True,
		Why:        "The goal is live + (live + stacks + globals) · GOGC/100, at least 4 MiB · GOGC/100 (runtime/mgcpacer.go, commit); a cycle is triggered on the way there so that it ends at the goal.",
		Signal:     "`/gc/heap/goal:bytes` against `/gc/heap/live:bytes`, `/gc/scan/stack:bytes`, `/gc/scan/globals:bytes`",
		Variants:   []Variant{{Env: []string{"GODEBUG=gctrace=1"}}},
		experiment: test(measureGoal, judgeGoal),
	},
	{
		Name: "goal-overshoot", Article: "1.2",
		Says:       "A burst of short-lived objects takes the heap 300 % above next_gc.",
		Expect:     Partly,
		Why:        "Marking is concurrent: the heap grows past the goal by allocation rate × mark time, and mark assists bound it (runtime/mgcpacer.go, revise). In proportion that is much for a small heap and little for a big one.",
		Signal:     "`/memory/classes/heap/objects:bytes` ÷ `/gc/heap/goal:bytes`; heap at mark end ÷ goal in gctrace",
		Variants:   []Variant{{Env: []string{"GODEBUG=gctrace=1"}}},
		experiment: test(measureOvershoot, judgeOvershoot),
	},
	{
		Name:       "big-allocation",
		Says:       "One big allocation passes the goal whatever the pacer does, and the gctrace line of its cycle hides that.",
		Expect:     True,
		Why:        "The trigger is tested after the allocation (runtime/malloc.go), and a goal below the trigger is raised above it before the trace has it (runtime/mgcpacer.go, heapGoalInternal).",
		Signal:     "heap at the start of a cycle against the goal that the previous cycle left, never against the goal on its own line",
		Variants:   []Variant{{Env: []string{"GODEBUG=gctrace=1"}}},
		experiment: test(measureBig, judgeBig),
	},
	{
		Name: "gogc-off", Article: "2.2",
		Says:   "GOGC=off is like GOGC=1: the pacer is off, and collection by threshold stays.",
		Expect: False,
		Why:    "With a negative percent neither the heap nor the two-minute timer triggers (runtime/mgc.go, gcTrigger.test); runtime.GC, FreeOSMemory and a memory limit still do.",
		Signal: "`/gc/gogc:percent` at its maximum together with `/gc/gomemlimit:bytes` at its maximum; `/gc/cycles/total:gc-cycles` that stands still",
		Variants: []Variant{
			{Name: "GOGC=off", Env: []string{"GOGC=off"}},
			{Name: "GOGC=off, GOMEMLIMIT=64MiB", Env: []string{"GOGC=off", "GOMEMLIMIT=64MiB"}},
			{Name: "GOGC=100", Env: []string{"GOGC=100"}},
		},
		experiment: test(measureOff, judgeOff),
	},
	{
		Name: "percent-meaning", Article: "2.5",
		Says:       "SetGCPercent(100) makes a collection come every 100 MB.",
		Expect:     False,
		Why:        "It is a percentage of the live heap and the roots. The call recomputes the goal from the last mark; it starts no cycle and stops nothing (runtime/mgcpacer.go, setGCPercent).",
		Signal:     "`/gc/gogc:percent`, `/gc/heap/goal:bytes`",
		experiment: test(measurePercent, judgePercent),
	},
	{
		Name: "breaker-table", Article: "2.5",
		Says:       "GOGC 200 while the breaker is open, 50 while half-open, protects a service that is short of memory.",
		Expect:     False,
		Why:        "A higher percent is a higher goal, so the peak rises exactly when there is no room; a lower one costs more cycles just when requests are let in again.",
		Signal:     "`/gc/heap/goal:bytes` plus all that is not heap, against the limit; `/cpu/classes/gc/total:cpu-seconds`",
		Variants:   []Variant{{Env: []string{"GODEBUG=gctrace=1"}}},
		experiment: test(measureTable, judgeTable),
	},
	{
		Name: "breaker-with-room", Article: "2.5",
		Says:       "Where the limit leaves room, GOGC 200 while the breaker is open saves CPU.",
		Expect:     True,
		Why:        "For the same garbage there are fewer cycles, each as dear as the live heap. That is when the table helps; it takes as much room as the live heap once more, which the breaker's state says nothing of.",
		Signal:     "`/cpu/classes/gc/total:cpu-seconds`; the limit less all that is not heap, against `/gc/heap/goal:bytes`",
		Variants:   []Variant{{Env: []string{"GODEBUG=gctrace=1"}}},
		experiment: test(measureTable, judgeRoom),
	},
	{
		Name: "breaker-under-load", Article: "2.5",
		Says:       "With that table a service under overload survives where an unguarded one is killed.",
		Expect:     False,
		Why:        "An open breaker raises the goal when there is least room. What helps, where anything does, is that a breaker refuses work.",
		Signal:     "oom_kill of the memory cgroup, and the answers that clients received in time",
		Variants:   []Variant{guarded("plain"), guarded("article-table"), guarded("article")},
		experiment: test(measureLab, judgeLab),
	},
	{
		Name: "discarded-make", Article: "2.2",
		Says:       "`_ = make([]byte, 128)` is a heap allocation that goes past the tiny allocator.",
		Expect:     False,
		Why:        "It does not escape, so it is not on the heap. The tiny allocator is for pointer-free objects below 16 bytes (runtime/malloc.go, maxTinySize).",
		Signal:     "`go build -gcflags=-m`; `/gc/heap/allocs:objects`",
		experiment: test(measureDiscard, judgeDiscard),
	},
}

type goalFigures struct {
	Live         uint64            `json:"live_bytes"`
	Stacks       uint64            `json:"scanned_stack_bytes"`
	Goal         uint64            `json:"goal_bytes"`
	StartPercent float64           `json:"mean_start_percent_of_goal"` // of heap at cycle start
	Cycles       int               `json:"cycles"`
	Empty        map[string]uint64 `json:"goal_bytes_of_empty_heap_by_percent"`
}

func measureGoal() (f goalFigures, err error) {
	f.Empty = map[string]uint64{}
	runtime.GC()
	for _, percent := range []int{50, 200, 100} {
		debug.SetGCPercent(percent)
		f.Empty[fmt.Sprint(percent)] = readHeap().Goal
	}

	live := grow(32 * mib)
	deepened := park(64, func(wait func()) { deep(500, wait) })
	runtime.GC()
	runtime.GC() // the stacks of the last cycle count in the next goal
	h := readHeap()
	f.Live, f.Stacks, f.Goal = h.Live, h.ScanStack, h.Goal
	churn(512 * mib)
	deepened.dismiss()
	runtime.KeepAlive(live)

	cycles, err := traced()
	if err != nil {
		return f, err
	}
	for _, c := range cycles {
		if c.HeapLive > f.Live/2 && !c.Forced {
			f.StartPercent += 100 * float64(c.HeapStart) / float64(c.HeapGoal)
			f.Cycles++
		}
	}
	if f.Cycles == 0 {
		return f, fmt.Errorf("no collection while 512 MiB were allocated")
	}
	f.StartPercent /= float64(f.Cycles)
	return f, nil
}

func judgeGoal(all []goalFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("%s live and %s of stacks in use: the goal is %s, %.2f times the live heap, and cycles start at %.0f %% of it. The goal of an empty heap is %s, %s and %s at GOGC 50, 100 and 200.",
		inMiB(f.Live), inMiB(f.Stacks), inMiB(f.Goal), float64(f.Goal)/float64(f.Live), f.StartPercent,
		inMiB(f.Empty["50"]), inMiB(f.Empty["100"]), inMiB(f.Empty["200"]))
	if within(f.Goal, 2*f.Live, 0.05) && f.StartPercent > 99 {
		return False, happened
	}
	return True, happened
}

// within reports whether a and b differ by at most that part of b.
func within(a, b uint64, part float64) bool {
	return math.Abs(float64(a)-float64(b)) <= part*float64(b)
}

type overshoot struct {
	Live   uint64  `json:"live_bytes"`
	Cycles int     `json:"cycles"`
	Max    float64 `json:"max_end_by_goal"` // heap at mark end ÷ goal
	Mean   float64 `json:"mean_end_by_goal"`
}

func measureOvershoot() (all []overshoot, err error) {
	seen := 0
	for _, size := range []struct{ live, burst int }{{4, 1024}, {64, 1536}, {128, 1536}} {
		live := grow(size.live * mib)
		runtime.GC()
		churn(size.burst * mib)
		runtime.KeepAlive(live)
		cycles, err := traced()
		if err != nil {
			return nil, err
		}
		f := overshoot{Live: uint64(size.live) * mib}
		for _, c := range cycles[seen:] {
			if c.Forced || c.HeapGoal < f.Live { // of the growth before
				continue
			}
			by := float64(c.HeapEnd) / float64(c.HeapGoal)
			f.Max = max(f.Max, by)
			f.Mean += by
			f.Cycles++
		}
		if f.Cycles == 0 {
			return nil, fmt.Errorf("no collection of %d MiB live", size.live)
		}
		f.Mean /= float64(f.Cycles)
		all, seen = append(all, f), len(cycles)
	}
	return all, nil
}

func judgeOvershoot(all [][]overshoot) (Verdict, string) {
	var sizes []string
	const claimed = 4.0 // 300 % above
	everywhere, anywhere := true, false
	for _, f := range all[0] {
		sizes = append(sizes, fmt.Sprintf("%.2f (mean %.2f of %d cycles) with %s live", f.Max, f.Mean, f.Cycles, inMiB(f.Live)))
		everywhere = everywhere && f.Max >= claimed
		anywhere = anywhere || f.Max > 1.05
	}
	happened := "The heap at mark end was at most this many times the goal: " + strings.Join(sizes, ", ") + "."
	switch {
	case everywhere:
		return True, happened
	case anywhere:
		return Partly, happened
	}
	return False, happened
}

type bigFigures struct {
	Before    uint64 `json:"goal_before_bytes"`
	Size      uint64 `json:"allocation_bytes"`
	Start     uint64 `json:"gctrace_start_bytes"`
	TraceGoal uint64 `json:"gctrace_goal_bytes"`
}

func measureBig() (f bigFigures, err error) {
	live := grow(4 * mib)
	runtime.GC()
	f.Before = readHeap().Goal
	f.Size = 512 * mib
	big := make([]byte, f.Size) // never touched, so never resident
	find := func(c gctrace.Cycle) bool { return !c.Forced && c.HeapStart >= f.Size }
	var cycles []gctrace.Cycle
	ok := eventually(10*time.Second, func() bool {
		cycles, err = traced()
		return err == nil && slices.ContainsFunc(cycles, find)
	})
	if !ok {
		return f, fmt.Errorf("no cycle for a heap of %s: %w", inMiB(f.Size), err)
	}
	c := cycles[slices.IndexFunc(cycles, find)]
	f.Start, f.TraceGoal = c.HeapStart, c.HeapGoal
	runtime.KeepAlive(live)
	runtime.KeepAlive(big)
	return f, nil
}

func judgeBig(all []bigFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("The goal was %s. One allocation of %s made a heap of %s before the cycle began, and that cycle's line says: goal %s.",
		inMiB(f.Before), inMiB(f.Size), inMiB(f.Start), inMiB(f.TraceGoal))
	switch {
	case f.Start < 2*f.Before:
		return False, happened
	case f.TraceGoal < f.Start: // it would be seen there
		return Partly, happened
	}
	return True, happened
}

type offFigures struct {
	Percent   uint64 `json:"gogc_percent"`
	Goal      uint64 `json:"goal_bytes"`
	Allocated uint64 `json:"allocated_bytes"`
	Cycles    uint64 `json:"cycles"`
	Heap      uint64 `json:"heap_bytes"`
}

func measureOff() (f offFigures, err error) {
	f.Percent = readMetric("/gc/gogc:percent")
	f.Allocated = 512 * mib
	churn(int(f.Allocated))
	h := readHeap()
	f.Goal, f.Cycles, f.Heap = h.Goal, h.Automatic, h.Objects
	return f, nil
}

func judgeOff(all []offFigures) (Verdict, string) {
	off, limited, on := all[0], all[1], all[2]
	happened := fmt.Sprintf("%s of garbage: %d cycles with GOGC=off, %d with GOGC=off and a memory limit of 64 MiB, %d with GOGC=100. Off is a percent of %d and a goal of %d bytes; with the limit the goal is %s.",
		inMiB(off.Allocated), off.Cycles, limited.Cycles, on.Cycles, off.Percent, off.Goal, inMiB(limited.Goal))
	switch {
	case on.Cycles == 0:
		return Unclear, happened
	case off.Cycles == 0:
		return False, happened
	}
	return True, happened
}

type percentFigures struct {
	Every map[string]uint64 `json:"bytes_per_cycle_by_live_mib"`
	P50   float64           `json:"call_p50_seconds"`
	Max   float64           `json:"call_max_seconds"`
	Stops uint64            `json:"stops_of_1000_calls"`
	Ran   uint64            `json:"cycles_of_1000_calls"`
}

func measurePercent() (f percentFigures, err error) {
	f.Every = map[string]uint64{}
	debug.SetGCPercent(100)
	for _, live := range []int{8, 32} {
		l := grow(live * mib)
		runtime.GC()
		before := readHeap().Automatic
		churn(512 * mib)
		f.Every[fmt.Sprint(live)] = 512 * mib / max(1, readHeap().Automatic-before)
		runtime.KeepAlive(l)
	}
	runtime.GC()
	ran := readHeap()
	gc, _ := readHistogram(gcStops)
	other, _ := readHistogram(otherStops)
	var took []float64
	for i := range 1000 {
		begin := time.Now()
		debug.SetGCPercent(100 + i%2)
		took = append(took, time.Since(begin).Seconds())
	}
	gc2, _ := readHistogram(gcStops)
	other2, _ := readHistogram(otherStops)
	now := readHeap()
	f.Stops, f.Ran = gc2-gc+other2-other, now.Automatic-ran.Automatic+now.Forced-ran.Forced
	slices.Sort(took)
	f.P50, f.Max = took[len(took)/2], took[len(took)-1]
	return f, nil
}

func judgePercent(all []percentFigures) (Verdict, string) {
	f := all[0]
	small, big := f.Every["8"], f.Every["32"]
	happened := fmt.Sprintf("At 100 %% a cycle came every %s with 8 MiB live and every %s with 32 MiB live. 1000 calls: %.0f ns each (median; at most %.0f µs), %d cycles, %d stops of the world.",
		inMiB(small), inMiB(big), f.P50*1e9, f.Max*1e6, f.Ran, f.Stops)
	if within(small, 100e6, 0.1) && within(big, 100e6, 0.1) {
		return True, happened
	}
	return False, happened
}

type discardFigures struct {
	Calls     uint64 `json:"calls"`
	Discarded uint64 `json:"mallocs_of_discarded"`
	Kept      uint64 `json:"mallocs_of_kept"`
}

func measureDiscard() (f discardFigures, err error) {
	f.Calls = 100_000
	f.Discarded = mallocs(func() {
		for range f.Calls {
			_ = make([]byte, 128)
		}
	})
	f.Kept = mallocs(func() {
		for range f.Calls {
			sink.Store(&make([]byte, 128)[0])
		}
	})
	return f, nil
}

// mallocs counts the heap objects that do allocates. ReadMemStats and not
// runtime/metrics, because it counts what is still in the mcaches, too.
func mallocs(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

func judgeDiscard(all []discardFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("%d times: %d heap allocations. With the slice kept: %d.", f.Calls, f.Discarded, f.Kept)
	switch {
	case f.Kept < f.Calls:
		return Unclear, happened
	case f.Discarded < f.Calls/100:
		return False, happened
	}
	return True, happened
}
