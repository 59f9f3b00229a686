// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
	"runtime/metrics"
)

// The metrics of one tick, in the order of runtimeReader.samples. All exist
// since Go 1.21; one that this toolchain does not have reads as unknown.
const (
	mTotal = iota
	mReleased
	mObjects
	mUnused
	mFree
	mStacks
	mOSStacks
	mLive
	mAllocated
	mGoal
	mGCPercent
	mMemoryLimit
	mCycles
	mGoroutines
	numMetrics
)

var metricNames = [numMetrics]string{
	mTotal:       "/memory/classes/total:bytes",
	mReleased:    "/memory/classes/heap/released:bytes",
	mObjects:     "/memory/classes/heap/objects:bytes",
	mUnused:      "/memory/classes/heap/unused:bytes",
	mFree:        "/memory/classes/heap/free:bytes",
	mStacks:      "/memory/classes/heap/stacks:bytes",
	mOSStacks:    "/memory/classes/os-stacks:bytes",
	mLive:        "/gc/heap/live:bytes",
	mAllocated:   "/gc/heap/allocs:bytes",
	mGoal:        "/gc/heap/goal:bytes",
	mGCPercent:   "/gc/gogc:percent",
	mMemoryLimit: "/gc/gomemlimit:bytes",
	mCycles:      "/gc/cycles/total:gc-cycles",
	mGoroutines:  "/sched/goroutines:goroutines",
}

// runtimeReader reads the runtime's figures of the calling process. One batch
// costs about a microsecond, whatever the heap's size, and stops nothing.
type runtimeReader struct {
	samples [numMetrics]metrics.Sample
	// pauses is read only after a cycle: it has 162 buckets.
	pauses  [1]metrics.Sample
	cycles  Count // at the last read of pauses
	over500 Count
	over10m Count
}

func newRuntimeReader() *runtimeReader {
	r := new(runtimeReader)
	for i, name := range metricNames {
		r.samples[i].Name = name
	}
	r.pauses[0].Name = "/sched/pauses/total/gc:seconds"
	return r
}

func (r *runtimeReader) value(i int) Bytes {
	if v := r.samples[i].Value; v.Kind() == metrics.KindUint64 {
		return Known(v.Uint64())
	}
	return Bytes{}
}

// read fills dst with one batch.
func (r *runtimeReader) read(dst *Runtime) {
	metrics.Read(r.samples[:])
	*dst = Runtime{
		Origin:     FromRuntime,
		Total:      r.value(mTotal),
		Released:   r.value(mReleased),
		Objects:    r.value(mObjects),
		Unused:     r.value(mUnused),
		Free:       r.value(mFree),
		Stacks:     r.value(mStacks),
		OSStacks:   r.value(mOSStacks),
		Allocated:  r.value(mAllocated),
		Goal:       r.value(mGoal),
		Cycles:     r.value(mCycles),
		Goroutines: r.value(mGoroutines),
	}
	rest := minus(dst.Total, plus(dst.Objects, dst.Unused, dst.Free, dst.Released, dst.Stacks, dst.OSStacks))
	if n, ok := rest.Get(); ok && n >= 0 {
		dst.Metadata = Known(uint64(n))
	}
	// Before the first cycle the runtime says 0 live bytes, which nobody has measured.
	if n, ok := dst.Cycles.Get(); ok && n > 0 {
		dst.Live = r.value(mLive)
	}
	if dst.Cycles != r.cycles {
		r.cycles = dst.Cycles
		r.readPauses()
	}
	dst.PausesOver500us, dst.PausesOver10ms = r.over500, r.over10m
	if n, ok := r.value(mGCPercent).Get(); ok {
		dst.GCPercent = gcPercent(n)
	}
	if n, ok := r.value(mMemoryLimit).Get(); ok {
		dst.MemoryLimit = Known(memoryLimit(n))
	}
}

// readPauses counts the long pauses in the runtime's histogram. Its buckets do
// not begin at round figures: 500 us is 524 us there, and 10 ms is 10.5 ms.
func (r *runtimeReader) readPauses() {
	metrics.Read(r.pauses[:])
	if r.pauses[0].Value.Kind() != metrics.KindFloat64Histogram {
		return
	}
	h := r.pauses[0].Value.Float64Histogram()
	var over500, over10m uint64
	for i, n := range h.Counts {
		if h.Buckets[i] >= 500e-6 {
			over500 += n
		}
		if h.Buckets[i] >= 10e-3 {
			over10m += n
		}
	}
	r.over500, r.over10m = Known(over500), Known(over10m)
}

// gcPercent maps the metric's MaxUint64 for GOGC=off to -1.
func gcPercent(n uint64) Value[int64] {
	if n > math.MaxInt32 {
		return Known[int64](-1)
	}
	return Known(int64(n))
}

// memoryLimit maps the runtime's MaxInt64 for "no limit" to Unlimited.
func memoryLimit(n uint64) uint64 {
	if n >= math.MaxInt64 {
		return Unlimited
	}
	return n
}
