// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"
)

// finalizers is what is said about finalizers.
var finalizers = []Claim{
	{
		Name: "finalizer-stall", Article: "4.1",
		Says:       "All finalizers run on one goroutine, so one that blocks stops all others.",
		Expect:     True,
		Why:        "There is one such goroutine and it waits for each (runtime/mfinal.go, runFinalizers). Cleanups have goroutines of their own since Go 1.25.",
		Signal:     "`/gc/finalizers/queued:finalizers` − `/gc/finalizers/executed:finalizers` over several cycles (executed moves in steps of about a hundred)",
		experiment: test(measureFinalizers, judgeStall),
	},
	{
		Name: "gc-waits-for-finalizers", Article: "4.2",
		Says:       "runtime.GC waits for the finalizers, and its stops of the world grow with them.",
		Expect:     False,
		Why:        "A collection only queues them, as it sweeps; they run outside it (runtime/mgcsweep.go).",
		Signal:     "`/sched/pauses/total/gc:seconds`",
		experiment: test(measureFinalizers, judgeWait),
	},
	{
		Name: "finalizer-goroutines", Article: "4.3",
		Says:       "More than one goroutine in runFinalizer is the alarm.",
		Expect:     False,
		Why:        "There is never more than one, however long the queue (runtime/mfinal.go, createfing).",
		Signal:     "the same user function above runtime.runFinalizers in goroutine profiles that are seconds apart",
		experiment: test(measureFinalizers, judgeFinalizerGoroutines),
	},
}

type finalizerFigures struct {
	Dropped    int64   `json:"objects_dropped"`
	Healthy    int64   `json:"run_while_healthy"`
	Stalled    int64   `json:"run_while_one_blocks"`
	Cleanups   int64   `json:"cleanups_run_while_one_blocks"`
	Queued     uint64  `json:"queued"`
	Executed   uint64  `json:"executed"`
	Returned   bool    `json:"gc_returned_while_one_blocks"`
	GCHealthy  float64 `json:"gc_seconds_while_healthy"`
	GCStalled  float64 `json:"gc_seconds_while_one_blocks"` // median of several
	STWHealthy float64 `json:"stw_seconds_while_healthy"`
	STWStalled float64 `json:"stw_seconds_while_one_blocks"`
	Goroutines int     `json:"goroutines_in_finalizer"`
}

// finalizerFrame is the runtime's function under every finalizer since Go 1.25.
const finalizerFrame = "runtime.runFinalizers"

func measureFinalizers() (f finalizerFigures, err error) {
	var ran, cleaned atomic.Int64
	f.Dropped = 1000
	drop := func() {
		for range f.Dropped {
			o := new(object)
			runtime.SetFinalizer(o, func(*object) { ran.Add(1) })
			runtime.AddCleanup(new(object), func(struct{}) { cleaned.Add(1) }, struct{}{})
		}
	}
	drop()
	runtime.GC()
	runtime.GC()
	eventually(5*time.Second, func() bool { return ran.Load() >= f.Dropped })
	f.Healthy = ran.Load()
	f.GCHealthy, f.STWHealthy = collections()

	blocked, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	runtime.SetFinalizer(new(object), func(*object) { close(blocked); <-release })
	runtime.GC()
	select {
	case <-blocked:
	case <-time.After(5 * time.Second):
		return f, fmt.Errorf("the finalizer that shall block did not run")
	}
	ran.Store(0)
	cleaned.Store(0)
	drop()
	returned := make(chan struct{})
	go func() { runtime.GC(); runtime.GC(); close(returned) }()
	select {
	case <-returned:
		f.Returned = true
	case <-time.After(5 * time.Second):
		return f, nil // and the claim is true
	}
	eventually(5*time.Second, func() bool { return cleaned.Load() >= f.Dropped })
	f.Stalled, f.Cleanups = ran.Load(), cleaned.Load()
	f.Queued, f.Executed = readMetric("/gc/finalizers/queued:finalizers"), readMetric("/gc/finalizers/executed:finalizers")
	f.GCStalled, f.STWStalled = collections()
	f.Goroutines, err = stacksWith(finalizerFrame)
	return f, err
}

// collections returns the medians, of some, of how long runtime.GC took and for
// how long the world stood still in it.
func collections() (took, stopped float64) {
	var all, stops []float64
	var s debug.GCStats
	for range 7 {
		begin := time.Now()
		runtime.GC()
		all = append(all, time.Since(begin).Seconds())
		debug.ReadGCStats(&s)
		stops = append(stops, s.Pause[0].Seconds())
	}
	slices.Sort(all)
	slices.Sort(stops)
	return all[len(all)/2], stops[len(stops)/2]
}

func judgeStall(all []finalizerFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("Of %d finalizers %d ran. With one that blocks: %d of %d, and %d of %d cleanups; the runtime counts %d queued and %d executed.",
		f.Dropped, f.Healthy, f.Stalled, f.Dropped, f.Cleanups, f.Dropped, f.Queued, f.Executed)
	switch {
	case f.Healthy == 0:
		return Unclear, happened
	case f.Stalled == 0:
		return True, happened
	case f.Stalled < f.Healthy:
		return Partly, happened
	}
	return False, happened
}

func judgeWait(all []finalizerFigures) (Verdict, string) {
	f := all[0]
	if !f.Returned {
		return True, "With a finalizer that blocks runtime.GC had not returned after 5 s."
	}
	happened := fmt.Sprintf("runtime.GC took %.2f ms before (median; world stopped %.3f ms) and %.2f ms (%.3f ms) with a finalizer that blocks for ever and a queue of %d behind it.",
		f.GCHealthy*1e3, f.STWHealthy*1e3, f.GCStalled*1e3, f.STWStalled*1e3, f.Dropped-f.Stalled)
	if f.STWStalled > max(10*f.STWHealthy, 10e-3) { // these are 0.1 ms, but for a machine that is busy
		return Partly, happened
	}
	return False, happened
}

func judgeFinalizerGoroutines(all []finalizerFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("%d finalizers behind one that blocks: the goroutine profile has %s on %d stack.", f.Dropped-f.Stalled, finalizerFrame, f.Goroutines)
	switch {
	case f.Goroutines == 0:
		return Unclear, happened // the frame has another name now
	case f.Goroutines > 1:
		return True, happened
	}
	return False, happened
}
