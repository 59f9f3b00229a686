// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

// Severity says how soon somebody should look.
type Severity string

// The severities, worst first.
const (
	Critical Severity = "critical"
	Warning  Severity = "warning"
	Info     Severity = "info"
)

func (s Severity) rank() int { return slices.Index([]Severity{Critical, Warning, Info}, s) }

// Finding is something that the trace shows to be wrong, with the numbers that
// prove it. The ids are stable: gc-death-spiral, gc-storm, gc-pause,
// gc-overshoot, gc-off-no-limit, scavenge-idle, heap-growth.
type Finding struct {
	ID       string     `json:"id"`
	Severity Severity   `json:"severity"`
	Summary  string     `json:"summary"`  // one sentence
	Evidence []Evidence `json:"evidence"` // numbers from the trace
	Remedy   string     `json:"remedy"`   // what to do about it
}

// Evidence is one number. Its unit is in the name: _bytes, _seconds, _ratio,
// and none for a count.
type Evidence struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// storm is how many cycles in a second are a storm.
const storm = 50

func (s *Summary) findings(r *Report) []Finding {
	found := []Finding{}
	for _, detect := range []func(*Report) (Finding, bool){
		s.deathSpiral, s.gcStorm, s.gcPause, s.gcOvershoot, s.gcOff, s.scavengeIdle, s.heapGrowth,
	} {
		if f, ok := detect(r); ok {
			found = append(found, f)
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return found[i].Severity.rank() < found[j].Severity.rank() })
	return found
}

func (s *Summary) deathSpiral(*Report) (f Finding, ok bool) {
	w := s.spiral.worst
	return Finding{
		ID: "gc-death-spiral", Severity: Critical,
		Summary: fmt.Sprintf("%d cycles in %v took %.0f %% of the CPU and freed %.1f %% of the heap: the memory is used up and the collector looks for garbage that is not there",
			spiralCycles, w.wall, 100*w.cpu, 100*w.freed),
		Evidence: []Evidence{
			{"at_seconds", w.at.Seconds()}, {"cycles", spiralCycles}, {"wall_seconds", w.wall.Seconds()},
			{"collecting_ratio", w.active}, {"gc_cpu_ratio", w.cpu}, {"freed_ratio", w.freed}, {"heap_live_bytes", float64(w.liveHeap)},
		},
		Remedy: "Raise GOMEMLIMIT or the container's limit, or shed load; if GOGC is below 50, raise it. Then find what is live with a heap profile.",
	}, s.spiral.found
}

func (s *Summary) gcStorm(r *Report) (f Finding, ok bool) {
	overall := r.CyclesPerSecond.v
	f = Finding{
		ID: "gc-storm", Severity: Warning,
		Summary: fmt.Sprintf("%d collections began within one second, %v after the program's start", s.rate.most, s.rate.at.Round(time.Millisecond)),
		Evidence: []Evidence{
			{"max_cycles_in_one_second", float64(s.rate.most)}, {"at_seconds", s.rate.at.Seconds()},
		},
		Remedy: "Allocate less per request (a heap profile with -sample_index=alloc_space shows where), or give the heap room: a higher GOGC with GOMEMLIMIT as the ceiling.",
	}
	if r.CyclesPerSecond.ok {
		f.Evidence = append(f.Evidence, Evidence{"cycles_per_second", overall})
	}
	if share, ok := r.GCCPU.Get(); ok {
		f.Evidence = append(f.Evidence, Evidence{"gc_cpu_ratio", share})
	}
	if s.forced > s.cycles/2 {
		f.Remedy = "Most cycles are forced: find who calls runtime.GC or debug.FreeOSMemory, and stop it."
		f.Evidence = append(f.Evidence, Evidence{"forced", float64(s.forced)})
	}
	if s.observed >= 10 && overall >= storm {
		f.Severity = Critical
	}
	return f, s.rate.most >= storm
}

// gcPause wants one cycle in a hundred: a single long pause in a day is not
// worth a look.
func (s *Summary) gcPause(*Report) (f Finding, ok bool) {
	p99 := max(s.sweepTerm.quantile(990), s.markTerm.quantile(990))
	f = Finding{
		ID: "gc-pause", Severity: Info,
		Summary: fmt.Sprintf("of %d cycles, %d stopped the program for over %v in mark termination and %d in sweep termination, for up to %v",
			s.cycles, s.markTerm.over, longPause, s.sweepTerm.over, max(s.markTerm.max, s.sweepTerm.max)),
		Evidence: []Evidence{
			{"mark_termination_over_500us", float64(s.markTerm.over)}, {"sweep_termination_over_500us", float64(s.sweepTerm.over)},
			{"mark_termination_p99_seconds", s.markTerm.quantile(990).Seconds()}, {"mark_termination_max_seconds", s.markTerm.max.Seconds()},
			{"sweep_termination_p99_seconds", s.sweepTerm.quantile(990).Seconds()}, {"sweep_termination_max_seconds", s.sweepTerm.max.Seconds()},
		},
		Remedy: "Stopping takes long when threads wait for a CPU: compare the CPU quota with GOMAXPROCS, and look at throttling and cpu.pressure. After that, at loops without calls and at the number of goroutines.",
	}
	if p99 >= 10*time.Millisecond {
		f.Severity = Warning
	}
	return f, p99 > longPause
}

func (s *Summary) gcOvershoot(r *Report) (f Finding, ok bool) {
	f = Finding{
		ID: "gc-overshoot", Severity: Warning,
		Evidence: []Evidence{{"overshoots", float64(s.over.seen)}},
		Remedy:   "Leave that much room below the memory limit, or set GOMEMLIMIT so that the collector starts earlier.",
	}
	if s.over.hidden > 0 {
		f.Evidence = append(f.Evidence, Evidence{"hidden_overshoots", float64(s.over.hidden)})
	}
	if s.over.hiddenOver > s.over.worstOver {
		c := &s.over.worstHidden
		f.Summary = fmt.Sprintf("single allocations pass the heap goal: cycle %d began at %s where %s was due at most, and its line hides it", c.N, size(c.HeapStart), size(s.over.expected))
		f.Evidence = append(f.Evidence, Evidence{"cycle", float64(c.N)}, Evidence{"at_seconds", c.At.Seconds()},
			Evidence{"heap_start_bytes", float64(c.HeapStart)}, Evidence{"expected_goal_bytes", float64(s.over.expected)}, Evidence{"printed_goal_bytes", float64(c.HeapGoal)})
		f.Remedy = "Find the large allocation (a heap profile with -sample_index=alloc_space) and make it in pieces, reuse its buffer, or leave that much room below the memory limit."
		return f, true
	}
	c := &s.over.worst
	f.Summary = fmt.Sprintf("the heap grows faster than it is marked: cycle %d ended at %s with a goal of %s", c.N, size(c.HeapEnd), size(c.HeapGoal))
	if c.HeapStart > c.HeapGoal {
		f.Summary = fmt.Sprintf("the heap passes its goal before a cycle begins, as by one large allocation: cycle %d began at %s with a goal of %s", c.N, size(c.HeapStart), size(c.HeapGoal))
	}
	f.Evidence = append(f.Evidence, Evidence{"cycle", float64(c.N)}, Evidence{"at_seconds", c.At.Seconds()},
		Evidence{"heap_start_bytes", float64(c.HeapStart)}, Evidence{"heap_end_bytes", float64(c.HeapEnd)}, Evidence{"heap_goal_bytes", float64(c.HeapGoal)}, Evidence{"mark_seconds", c.Mark.Seconds()})
	return f, s.over.seen > 0
}

func (s *Summary) gcOff(*Report) (f Finding, ok bool) {
	return Finding{
		ID: "gc-off-no-limit", Severity: Warning,
		Summary:  "GOGC is off and there is no memory limit: nothing but a call starts a collection, not even two idle minutes, so the heap grows until the kernel ends it",
		Evidence: []Evidence{{"heap_goal_bytes", float64(s.prev.HeapGoal)}, {"heap_start_bytes", float64(s.prev.HeapStart)}, {"heap_live_bytes", float64(s.prev.HeapLive)}},
		Remedy:   "Set GOMEMLIMIT below the container's limit, or turn GOGC on again.",
	}, s.cycles > 0 && s.prev.GoalUnbounded()
}

// scavengeIdle is the article's pattern on what the lines show. They do not
// show RSS. In its place stands what they prove: that the retained heap is
// beyond what the next cycle may need, or that the least it can be has grown.
func (s *Summary) scavengeIdle(*Report) (f Finding, ok bool) {
	run := s.scav.longestNeedless
	f = Finding{
		ID: "scavenge-idle", Severity: Warning,
		Remedy: "Compare with RSS, which no trace shows. If it stays high, set GOMEMLIMIT or call debug.FreeOSMemory after the spike; memory freed by one cycle is returned after the next, which an idle program starts after two minutes.",
	}
	if run.lines >= idleLines {
		ok = true
		f.Summary = fmt.Sprintf("%d scavenger lines in a row returned %s in all, while at least %s of heap was retained that is not live, and at least %s that the next cycle does not need",
			run.lines, size(run.returned), size(run.idle), size(run.excess))
	} else {
		run = s.scav.longestIdling
		grown := minus(run.to, run.from)
		ok = run.lines >= idleLines && grown >= mib
		f.Severity = Info
		f.Summary = fmt.Sprintf("%d scavenger lines in a row returned %s in all, while at least %s of heap was retained that is not live, and the least that can be retained grew by %s",
			run.lines, size(run.returned), size(run.idle), size(grown))
	}
	f.Evidence = []Evidence{
		{"line", float64(run.line)}, {"scavenger_lines", float64(run.lines)}, {"returned_bytes", float64(run.returned)},
		{"idle_min_bytes", float64(run.idle)}, {"excess_min_bytes", float64(run.excess)},
		{"retained_min_first_bytes", float64(run.from)}, {"retained_min_last_bytes", float64(run.to)},
	}
	return f, ok
}

// heapGrowth wants a rise that lasts: over half a minute, in nearly all pairs
// of points, and large against the heap.
func (s *Summary) heapGrowth(r *Report) (f Finding, ok bool) {
	if r.Heap == nil || len(r.Series) < 8 {
		return f, false
	}
	first, last := r.Series[0], r.Series[len(r.Series)-1]
	grown := minus(last.Floor, first.Floor)
	over := last.To - first.From
	perSecond := r.Heap.Growth.v
	return Finding{
		ID: "heap-growth", Severity: Warning,
		Summary: fmt.Sprintf("the live heap grows by %s a minute and has not come back: from %s to %s in %v",
			size(uint64(max(60*perSecond, 0))), size(first.Floor), size(last.Floor), time.Duration(over*float64(time.Second)).Round(time.Second)),
		Evidence: []Evidence{
			{"live_growth_bytes_per_second", perSecond}, {"live_rising_ratio", r.Heap.Rising.v}, {"observed_seconds", over},
			{"heap_live_first_bytes", float64(first.Floor)}, {"heap_live_last_bytes", float64(last.Floor)},
		},
		Remedy: "Take two heap profiles some minutes apart and compare them (go tool pprof -diff_base); look at goroutine counts at the same time.",
	}, over >= 30 && r.Heap.Rising.v >= 0.8 && perSecond > 0 && grown >= 16*mib && grown >= first.Floor/4
}

// verdict is the one sentence to read at 3 am.
func verdict(r *Report) string {
	switch {
	case len(r.Findings) > 0:
		return r.Findings[0].Summary
	case r.Cycles > 0:
		return fmt.Sprintf("nothing wrong in %d cycles", r.Cycles)
	case r.Scavenges > 0:
		return "no collection in this trace, scavenger lines only"
	case r.Lines > 0:
		return "no trace line in this text: was the program started with GODEBUG=gctrace=1?"
	}
	return "nothing to read"
}
