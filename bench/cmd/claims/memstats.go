// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"slices"
	"time"
)

// memstats is what is said about MemStats, GCStats and dumps.
var memstats = []Claim{
	{
		Name: "pause-quantiles", Article: "2.3",
		Says:       "debug.GCStats.PauseQuantiles[0] is the last pause and [1] that of mark termination.",
		Expect:     False,
		Why:        "It is nil unless its length is set, and then quantiles, least to greatest, of up to 256 cycles. Pause[0] is the last (runtime/debug/garbage.go).",
		Signal:     "`/sched/pauses/total/gc:seconds`, `/sched/pauses/stopping/gc:seconds`",
		experiment: test(measureQuantiles, judgeQuantiles),
	},
	{
		Name: "bysize-index", Article: "4.4",
		Says:       "MemStats.BySize[2] is the class of 16 bytes.",
		Expect:     True,
		Why:        "BySize[0] is no class; 8, 16, 24 follow (internal/runtime/gc/sizeclasses.go).",
		Signal:     "`/gc/heap/allocs-by-size:bytes` − `/gc/heap/frees-by-size:bytes`",
		experiment: test(measureBySize, judgeIndex),
	},
	{
		Name: "bysize-complete", Article: "4.4",
		Says:       "MemStats.BySize shows the growth of every size class.",
		Expect:     False,
		Why:        "It has 61 entries since before there were 68 classes; what is above 18 KiB is in none (runtime/mstats.go).",
		Signal:     "`/gc/heap/allocs-by-size:bytes`, which has all classes and one for what is larger",
		experiment: test(measureBySize, judgeComplete),
	},
	{
		Name: "mallocs-minus-frees", Article: "4.4",
		Says:       "Mallocs − Frees of a class is how many of its objects leak.",
		Expect:     Partly,
		Why:        "A dead object counts until it is swept, so the difference means something after a completed cycle only.",
		Signal:     "the difference between readings that are two collections apart",
		Variants:   []Variant{{Name: "GOGC=off", Env: []string{"GOGC=off"}}},
		experiment: test(measureFrees, judgeFrees),
	},
	{
		Name: "stack-dump", Article: "3.3",
		Says:       "Sampling all goroutines with runtime.Stack(buf, true) or debug=2 does no harm.",
		Expect:     False,
		Why:        "The world is stopped for the whole dump, and again for each larger buffer (runtime/mprof.go, Stack; runtime/pprof, writeGoroutineStacks).",
		Signal:     "`/sched/pauses/total/other:seconds`; use the goroutine profile with debug=0",
		experiment: test(measureDump, judgeDump),
	},
}

type quantileFigures struct {
	Default   int       `json:"default_length"`
	Quantiles []float64 `json:"quantiles_seconds"`
	Last      float64   `json:"last_pause_seconds"`
	Min       float64   `json:"min_pause_seconds"`
	Max       float64   `json:"max_pause_seconds"`
}

func measureQuantiles() (f quantileFigures, err error) {
	// Until the last pause is neither the shortest nor the longest, so that it
	// can be told from them.
	for range 200 {
		runtime.GC()
		var s debug.GCStats
		debug.ReadGCStats(&s)
		f.Default = len(s.PauseQuantiles)
		s.PauseQuantiles = make([]time.Duration, 5)
		debug.ReadGCStats(&s)
		f.Quantiles = nil
		for _, q := range s.PauseQuantiles {
			f.Quantiles = append(f.Quantiles, q.Seconds())
		}
		f.Last, f.Min, f.Max = s.Pause[0].Seconds(), slices.Min(s.Pause).Seconds(), slices.Max(s.Pause).Seconds()
		if len(s.Pause) > 5 && f.Last > f.Min && f.Last < f.Max {
			return f, nil
		}
	}
	return f, fmt.Errorf("every pause was the longest or the shortest: %v", f)
}

func judgeQuantiles(all []quantileFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("Its length is %d by default, where [0] panics. With length 5 it is %.0f, %.0f, %.0f, %.0f, %.0f µs; the last pause was %.0f µs, the shortest %.0f and the longest %.0f.",
		f.Default, f.Quantiles[0]*1e6, f.Quantiles[1]*1e6, f.Quantiles[2]*1e6, f.Quantiles[3]*1e6, f.Quantiles[4]*1e6, f.Last*1e6, f.Min*1e6, f.Max*1e6)
	switch {
	case f.Quantiles[0] == f.Last:
		return True, happened
	case f.Quantiles[0] == f.Min && f.Quantiles[4] == f.Max:
		return False, happened
	}
	return Unclear, happened
}

type bySizeFigures struct {
	Entries    int     `json:"bysize_entries"`
	Second     uint32  `json:"bysize_2_bytes"`
	Largest    uint32  `json:"bysize_largest_bytes"`
	Classes    int     `json:"histogram_buckets"`
	Size       int     `json:"object_bytes"`
	Allocated  uint64  `json:"allocated"`
	InBySize   uint64  `json:"seen_in_bysize"`
	InBuckets  uint64  `json:"seen_in_histogram"`
	BucketFrom float64 `json:"histogram_bucket_from_bytes"`
}

func measureBySize() (f bySizeFigures, err error) {
	f.Size, f.Allocated = 24_000, 1000
	var before, after runtime.MemStats
	sample := []metrics.Sample{{Name: "/gc/heap/allocs-by-size:bytes"}}
	bucket := func() (n uint64) {
		metrics.Read(sample)
		h := sample[0].Value.Float64Histogram()
		f.Classes = len(h.Counts)
		for i, c := range h.Counts {
			if h.Buckets[i] <= float64(f.Size) && float64(f.Size) < h.Buckets[i+1] {
				n, f.BucketFrom = c, h.Buckets[i]
			}
		}
		return n
	}
	runtime.ReadMemStats(&before)
	n := bucket()
	for range f.Allocated {
		sink.Store(&make([]byte, f.Size)[0])
	}
	runtime.ReadMemStats(&after)
	f.InBuckets = bucket() - n
	f.Entries = len(after.BySize)
	f.Second, f.Largest = after.BySize[2].Size, after.BySize[len(after.BySize)-1].Size
	for i := range after.BySize {
		if after.BySize[i].Size >= uint32(f.Size) || i == f.Entries-1 { // where it would be
			f.InBySize += after.BySize[i].Mallocs - before.BySize[i].Mallocs
		}
	}
	return f, nil
}

func judgeIndex(all []bySizeFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("BySize[2].Size is %d.", f.Second)
	if f.Second == 16 {
		return True, happened
	}
	return False, happened
}

func judgeComplete(all []bySizeFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("%d objects of %d bytes: %d in BySize, whose %d entries end at %d bytes; %d in the runtime/metrics histogram, whose bucket from %.0f bytes is one of %d.",
		f.Allocated, f.Size, f.InBySize, f.Entries, f.Largest, f.InBuckets, f.BucketFrom, f.Classes)
	switch {
	case f.InBuckets < f.Allocated:
		return Unclear, happened
	case f.InBySize >= f.Allocated:
		return True, happened
	}
	return False, happened
}

type freesFigures struct {
	Dead   int64 `json:"dead_objects"`
	Before int64 `json:"difference_before_collection"`
	After  int64 `json:"difference_after_collection"`
}

func measureFrees() (f freesFigures, err error) {
	f.Dead = 20_000
	difference := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		for _, c := range m.BySize {
			if c.Size == 128 {
				return int64(c.Mallocs) - int64(c.Frees)
			}
		}
		return 0
	}
	runtime.GC()
	before := difference()
	for range f.Dead {
		sink.Store(&make([]byte, 128)[0])
	}
	f.Before = difference() - before
	runtime.GC()
	f.After = difference() - before
	return f, nil
}

func judgeFrees(all []freesFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("%d objects of 128 bytes, none of them leaked: the difference grew by %d before a collection and by %d after one.", f.Dead, f.Before, f.After)
	leaked := func(n int64) bool { return n > f.Dead/100 }
	switch {
	case !leaked(f.Before) && !leaked(f.After):
		return True, happened
	case !leaked(f.After):
		return Partly, happened
	}
	return False, happened
}

type dumpFigures struct {
	Goroutines int       `json:"goroutines"`
	Ways       []dumpWay `json:"ways"`
}

type dumpWay struct {
	Name    string  `json:"name"`
	Stops   uint64  `json:"stops"`
	Stopped float64 `json:"stopped_seconds"` // the median of three; each stop counts with its bucket's lower bound
	Took    float64 `json:"seconds"`
}

func measureDump() (f dumpFigures, err error) {
	f.Goroutines = 5000
	crew := park(f.Goroutines, func(wait func()) { wait() })
	defer crew.dismiss()
	debug.SetGCPercent(-1)
	buf := make([]byte, 16*mib)
	profile := pprof.Lookup("goroutine")
	for _, way := range []struct {
		name string
		do   func()
	}{
		{"runtime.Stack", func() { runtime.Stack(buf, true) }},
		{"debug=2", func() { _ = profile.WriteTo(io.Discard, 2) }},
		{"debug=0", func() { _ = profile.WriteTo(io.Discard, 0) }},
	} {
		var stopped, took []float64
		w := dumpWay{Name: way.name}
		for range 3 {
			n, s := readHistogram(otherStops)
			begin := time.Now()
			way.do()
			took = append(took, time.Since(begin).Seconds())
			n2, s2 := readHistogram(otherStops)
			w.Stops = n2 - n
			stopped = append(stopped, s2-s)
		}
		slices.Sort(stopped)
		slices.Sort(took)
		w.Stopped, w.Took = stopped[1], took[1]
		f.Ways = append(f.Ways, w)
	}
	return f, nil
}

func judgeDump(all []dumpFigures) (Verdict, string) {
	happened := fmt.Sprintf("%d goroutines:", all[0].Goroutines)
	for i, w := range all[0].Ways {
		happened += fmt.Sprintf("%s %s stops the world %d× and for %.2f ms in all", []string{"", ","}[min(i, 1)], w.Name, w.Stops, w.Stopped*1e3)
	}
	happened += "."
	stack, dump, profile := all[0].Ways[0], all[0].Ways[1], all[0].Ways[2]
	switch {
	case stack.Stops == 0 && dump.Stops == 0:
		return True, happened
	case min(stack.Stopped, dump.Stopped) > 2*profile.Stopped:
		return False, happened
	}
	return Partly, happened
}
