// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"fmt"
	"math"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/scavenge/smaps"
	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
)

// fillHeap computes the memory classes.
func (t *Target) fillHeap(s *Snapshot, sc *scalars, skew uint64) {
	d, g, m, h := &t.layout.Delta, &t.layout.GC, &t.layout.MStats, &s.Heap
	c := t.counters(sc.stats)
	c.alloc, c.mallocs, c.frees = c.alloc+sc.cached.alloc, c.mallocs+sc.cached.mallocs, c.frees+sc.cached.frees
	inHeap := u64(sc.gc, g.HeapInUse)
	free, released := u64(sc.gc, g.HeapFree), u64(sc.gc, g.HeapReleased)
	objects := c.alloc - c.free

	stacks := t.sum(sc.stats, d.InStacks)
	work := t.sum(sc.stats, d.InWorkBufs)
	if d.InPtrScalarBits.Has() {
		work += t.sum(sc.stats, d.InPtrScalarBits)
	}
	meta := work
	for _, off := range []layout.Off{m.MSpanSys, m.MCacheSys, m.BuckHashSys, m.GCMiscSys, m.OtherSys} {
		meta += u64(sc.stats, off)
	}
	osStacks := u64(sc.stats, m.StacksSys)
	total := inHeap + free + released + stacks + osStacks + meta

	h.Free, h.Released, h.OSStacks = memguard.Known(free), memguard.Known(released), memguard.Known(osStacks)
	h.Stacks, h.Metadata, h.Total = memguard.Known(stacks), memguard.Known(meta), memguard.Known(total)
	s.Checks = append(s.Checks,
		Check{"heap in use: collector's count against the allocator's", inHeap, t.sum(sc.stats, d.InHeap)},
		Check{"heap released: collector's count against the allocator's", released, t.sum(sc.stats, d.Released)},
		Check{"heap retained: collector's count against the allocator's", inHeap + free, t.sum(sc.stats, d.Committed) - stacks - work},
	)
	for _, c := range s.Checks {
		// Pages change hands in whole spans, and counts follow one after the other.
		if distance(c.Want, c.Got) > total/16+1<<22 {
			s.cannot("heap.total", fmt.Sprintf("%s: %d against %d", c.What, c.Want, c.Got))
			h.Free, h.Released, h.Stacks, h.Total, h.Metadata = memguard.Bytes{}, memguard.Bytes{}, memguard.Bytes{}, memguard.Bytes{}, memguard.Bytes{}
			break
		}
	}

	// A target that allocates meanwhile has no one figure; what it may be off by
	// must be small against it.
	const most = 16
	switch {
	case skew == math.MaxUint64 || c.free > c.alloc || skew > objects/most+1<<16 || objects > inHeap+skew:
		s.cannot("heap.objects", "the target allocates too fast for one reading of its counters")
	default:
		s.How.Skew = memguard.Known(skew)
		h.Objects, h.Unused = memguard.Known(objects), memguard.Known(inHeap-min(inHeap, objects))
		h.TotalAlloc, h.Mallocs, h.Frees = memguard.Known(c.alloc), memguard.Known(c.mallocs), memguard.Known(c.frees)
	}
	goal, trigger, ok := t.goal(sc)
	if !ok {
		s.cannot("heap.goal", "the collector's figures contradict each other")
		return
	}
	h.Goal, h.Trigger = memguard.Known(goal), memguard.Known(trigger)
}

// goal computes the heap goal and the trigger as the runtime does
// (runtime/mgcpacer.go: heapGoalInternal, memoryLimitHeapGoal, trigger).
func (t *Target) goal(sc *scalars) (goal, trigger uint64, ok bool) {
	f := &t.layout.GC
	g := func(off layout.Off) uint64 { return u64(sc.gc, off) }
	var minTrigger uint64
	marked := g(f.HeapMarked)
	goal = g(f.PercentGoal)
	limited, ok := t.limitGoal(sc)
	if !ok {
		return 0, 0, false
	}
	if limited < goal {
		goal = limited
	} else {
		minTrigger = g(f.SweepTrigger)
		goal = max(goal, minTrigger)
		const minRunway = 64 << 10
		if triggered := g(f.Triggered); triggered != math.MaxUint64 {
			goal = max(goal, triggered+minRunway)
		}
	}
	if marked >= goal {
		return goal, goal, true
	}
	// Between 70 and 95 percent of the way from the live heap to the goal.
	const den, least, most, minHeap = 64, 45, 61, 4 << 20
	minTrigger = max(minTrigger, marked, (goal-marked)/den*least+marked)
	maxTrigger := (goal-marked)/den*most + marked
	if goal > minHeap {
		maxTrigger = max(maxTrigger, goal-minHeap)
	}
	maxTrigger = max(maxTrigger, minTrigger)
	trigger = minTrigger
	if runway := g(f.Runway); runway <= goal {
		trigger = goal - runway
	}
	return goal, min(max(trigger, minTrigger), maxTrigger), true
}

// limitGoal is the goal by the memory limit.
func (t *Target) limitGoal(sc *scalars) (uint64, bool) {
	f := &t.layout.GC
	g := func(off layout.Off) uint64 { return u64(sc.gc, off) }
	limit := g(f.MemoryLimit)
	free, objects, mapped := g(f.HeapFree), g(f.TotalAlloc)-g(f.TotalFree), g(f.MappedReady)
	if free+objects > mapped {
		return 0, false
	}
	other := mapped - free - objects
	var over uint64
	if mapped > limit {
		over = mapped - limit
	}
	marked := g(f.HeapMarked)
	if other+over >= limit {
		return marked, true
	}
	goal := limit - other - over
	headroom := max(goal/100*3, 1<<20)
	if goal < headroom || goal-headroom < headroom {
		goal = headroom
	} else {
		goal -= headroom
	}
	return max(goal, marked), true
}

// phases are the phases of the collector (runtime/mgc.go).
var phases = []string{"off", "mark", "mark termination"}

func (t *Target) fillGC(s *Snapshot, sc *scalars) {
	m, g := &t.layout.MStats, &s.GC
	g.Percent = memguard.Known(max(int64(int32(u32(sc.gc, t.layout.GC.Percent))), -1))
	limit := u64(sc.gc, t.layout.GC.MemoryLimit)
	if limit >= math.MaxInt64 {
		limit = memguard.Unlimited
	}
	g.MemoryLimit = memguard.Known(limit)
	switch {
	case !sc.has["runtime.gcphase"]:
		s.cannot("gc.phase", "runtime.gcphase not found in the "+t.located)
	case int(sc.phase) >= len(phases):
		s.cannot("gc.phase", fmt.Sprintf("phase %d", sc.phase))
	default:
		g.Phase = phases[sc.phase]
	}
	cycles := u32(sc.stats, m.NumGC)
	g.Cycles, g.Forced = memguard.Known(uint64(cycles)), memguard.Known(uint64(u32(sc.stats, m.NumForcedGC)))
	g.PauseTotal = memguard.Known(int64(u64(sc.stats, m.PauseTotal)))
	if cycles > 0 {
		g.Last = memguard.Known(int64(u64(sc.stats, m.LastGC)))
		s.Heap.Live = memguard.Known(u64(sc.gc, t.layout.GC.HeapMarked))
	}
	hist := sc.pauses
	if hist == nil && m.PauseDist.Has() { // Go 1.21
		hist = sc.stats[m.PauseDist:][:t.layout.Sched.HistSize]
	}
	g.Pauses = pauses(hist, int(t.layout.Sched.HistBuckets))
	if hist == nil {
		s.cannot("gc.pauses", "this release keeps no histogram of them")
		return
	}
	var over500us, over10ms uint64
	for _, p := range g.Pauses {
		if p.AtLeast >= 500*time.Microsecond {
			over500us += p.Count
		}
		if p.AtLeast >= 10*time.Millisecond {
			over10ms += p.Count
		}
	}
	g.over500us, g.over10ms = memguard.Known(over500us), memguard.Known(over10ms)
}

// pauses reads a histogram of times (runtime/histogram.go): buckets by powers of
// two from 512 ns, each in four, with those below in the first four.
func pauses(hist []byte, buckets int) []Pauses {
	if hist == nil {
		return nil
	}
	out := []Pauses{}
	for i := range buckets {
		n := u64(hist, layout.Off(8*i))
		if n == 0 {
			continue
		}
		from := time.Duration(i%4) << 6
		if i >= 4 {
			from = time.Duration(4+i%4) << (6 + i/4 - 1)
		}
		out = append(out, Pauses{from, n})
	}
	if n := u64(hist, layout.Off(8*buckets+8)); n > 0 { // overflow
		out = append(out, Pauses{1 << 47, n})
	}
	return out
}

// fillArenas reads where the heap is.
func (t *Target) fillArenas(s *Snapshot, sc *scalars) {
	n := sc.arenas.len
	if n == 0 || n > maxArenas {
		s.cannot("heap arenas", fmt.Sprintf("%d of them", n))
		return
	}
	size := 8 // arenaIdx is a uint
	b := make([]byte, int(n)*size)
	if err := t.mem.Read(sc.arenas.ptr, b); err != nil {
		s.cannot("heap arenas", err)
		return
	}
	var base uint64 // runtime/malloc.go, arenaBaseOffset
	if t.exe.Arch == "amd64" {
		base = 0xffff800000000000
	}
	for ; len(b) > 0; b = b[size:] {
		start := le.Uint64(b)*arenaSize + base
		if start>>48 != 0 && start>>48 != 0xffff {
			s.Arenas = nil
			s.cannot("heap arenas", fmt.Sprintf("one at %#x", start))
			return
		}
		if k := len(s.Arenas); k > 0 && s.Arenas[k-1].End == start {
			s.Arenas[k-1].End += arenaSize
			continue
		}
		s.Arenas = append(s.Arenas, smaps.Range{Start: start, End: start + arenaSize})
	}
}
