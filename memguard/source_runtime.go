// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
	"runtime/metrics"
	"time"

	"github.com/memguard/memguard-go/memguard/sizeclass"
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
	mLimiterCycle
	mStackScan
	numMetrics
)

var metricNames = [numMetrics]string{
	mTotal:        "/memory/classes/total:bytes",
	mReleased:     "/memory/classes/heap/released:bytes",
	mObjects:      "/memory/classes/heap/objects:bytes",
	mUnused:       "/memory/classes/heap/unused:bytes",
	mFree:         "/memory/classes/heap/free:bytes",
	mStacks:       "/memory/classes/heap/stacks:bytes",
	mOSStacks:     "/memory/classes/os-stacks:bytes",
	mLive:         "/gc/heap/live:bytes",
	mAllocated:    "/gc/heap/allocs:bytes",
	mGoal:         "/gc/heap/goal:bytes",
	mGCPercent:    "/gc/gogc:percent",
	mMemoryLimit:  "/gc/gomemlimit:bytes",
	mCycles:       "/gc/cycles/total:gc-cycles",
	mGoroutines:   "/sched/goroutines:goroutines",
	mLimiterCycle: "/gc/limiter/last-enabled:gc-cycle",
	mStackScan:    "/gc/scan/stack:bytes",
}

// runtimeReader reads the runtime's figures of the calling process. One batch
// costs about a microsecond, whatever the heap's size, and stops nothing.
type runtimeReader struct {
	samples [numMetrics]metrics.Sample
	// What moves only with a cycle is read only after one: the pauses alone have
	// 162 buckets.
	cycles  Count // at the last read of these
	pauses  [1]metrics.Sample
	over500 Count
	over10m Count
	cpu     [3]metrics.Sample
	gcCPU   Value[float64]
	allCPU  Value[float64]

	sizes     sizeclass.Reader
	classes   sizeclass.Classes
	classesAt time.Time
}

func newRuntimeReader() *runtimeReader {
	r := new(runtimeReader)
	for i, name := range metricNames {
		r.samples[i].Name = name
	}
	r.pauses[0].Name = "/sched/pauses/total/gc:seconds"
	for i, name := range [...]string{
		"/cpu/classes/gc/total:cpu-seconds", "/cpu/classes/gc/mark/idle:cpu-seconds", "/cpu/classes/total:cpu-seconds",
	} {
		r.cpu[i].Name = name
	}
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

		LimiterCycle: r.value(mLimiterCycle),
		StackScan:    r.value(mStackScan),
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
		r.readCPU()
	}
	dst.PausesOver500us, dst.PausesOver10ms = r.over500, r.over10m
	if dst.Live.ok { // a cycle has ended
		dst.GCCPU, dst.CPU = r.gcCPU, r.allCPU
	}
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

// readCPU reads what the collector and the whole program took of the CPU.
func (r *runtimeReader) readCPU() {
	metrics.Read(r.cpu[:])
	r.gcCPU, r.allCPU = Value[float64]{}, Value[float64]{}
	for _, s := range r.cpu {
		if s.Value.Kind() != metrics.KindFloat64 {
			return
		}
	}
	gc, idle, all := r.cpu[0].Value.Float64(), r.cpu[1].Value.Float64(), r.cpu[2].Value.Float64()
	r.gcCPU, r.allCPU = Known(max(gc-idle, 0)), Known(all)
}

// classesEvery is how often the size classes are read: two histograms of 68
// buckets.
const classesEvery = time.Second

// readClasses fills dst with the size classes, read now if it is time.
func (r *runtimeReader) readClasses(dst *Runtime, now time.Time) error {
	if since := now.Sub(r.classesAt); since >= classesEvery || since < 0 {
		r.classesAt = now
		if err := r.sizes.Read(&r.classes); err != nil {
			return err
		}
	}
	if len(r.classes.All) > 0 {
		dst.Classes, dst.ClassesAt = &r.classes, r.classesAt
	}
	return nil
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
