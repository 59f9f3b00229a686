// SPDX-License-Identifier: Apache-2.0

package memguard

import "time"

// gcWindow sums up what the collector did in the last half to whole window. The
// runtime adds up CPU time at the end of a cycle only, so the figures are of the
// cycles that ended in it.
type gcWindow struct{ base, mid gcPoint }

// gcPoint is the collector's counters at one time.
type gcPoint struct {
	at        time.Time
	cycles    uint64
	limiter   uint64
	allocated float64
	gc, all   float64 // cpu-seconds
}

// gcSpan is the difference of two points.
type gcSpan struct {
	seconds   float64
	cycles    float64
	share     float64 // of the program's CPU that the collector took, 0 to 1
	allocated float64 // bytes for each cycle: what each of them gained, as long as the live heap stays
	limited   bool    // a cycle was held at half of the CPU
}

// add takes a sample. It returns false while the counters are unknown: before
// the first cycle too.
func (w *gcWindow) add(s *Sample, half time.Duration) (span gcSpan, ok bool) {
	r := &s.Runtime
	cycles, ok1 := r.Cycles.Get()
	gc, ok2 := r.GCCPU.Get()
	all, ok3 := r.CPU.Get()
	allocated, ok4 := r.Allocated.Get()
	limiter, _ := r.LimiterCycle.Get() // Go 1.19
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return gcSpan{}, false
	}
	now := gcPoint{s.Time, cycles, limiter, float64(allocated), gc, all}
	if w.base.at.IsZero() || s.Time.Before(w.mid.at) || cycles < w.mid.cycles || s.Time.Sub(w.mid.at) > 4*half {
		w.base, w.mid = now, now
	}
	if s.Time.Sub(w.mid.at) >= half {
		w.base, w.mid = w.mid, now
	}
	span = gcSpan{
		seconds: s.Time.Sub(w.base.at).Seconds(),
		cycles:  float64(cycles - w.base.cycles),
		limited: limiter > w.base.cycles,
	}
	if span.cycles > 0 {
		span.allocated = (now.allocated - w.base.allocated) / span.cycles
	}
	if d := all - w.base.all; d > 0 {
		span.share = min(max((gc-w.base.gc)/d, 0), 1)
	}
	return span, true
}

// mustStay is what the runtime holds and no collection gives back: the live heap,
// span waste, stacks and its own tables.
func (r *Runtime) mustStay() Bytes {
	return plus(r.Live, r.Unused, r.Stacks, r.OSStacks, r.Metadata)
}
