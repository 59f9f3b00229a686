// SPDX-License-Identifier: Apache-2.0

package gctrace

// Report is what a Summary knows, as it marshals to JSON. Units are in the
// key names; a ratio is a share of 1. Null and absent mean that the lines do
// not show it, which is never the same as 0.
type Report struct {
	Verdict  string    `json:"verdict"`
	Findings []Finding `json:"findings"` // the worst first; never null

	Lines             int           `json:"lines"`
	SkippedLines      int           `json:"skipped_lines"` // not the runtime's
	SyntaxErrors      int           `json:"syntax_errors"` // the runtime's, but not whole
	FirstSyntaxErrors []SyntaxError `json:"first_syntax_errors,omitempty"`
	UnknownTextLines  int           `json:"unknown_text_lines"` // read, with text that no release up to Go 1.27 prints
	ScanLines         int           `json:"scan_lines"`         // gctrace=2
	PacerLines        int           `json:"pacer_lines"`        // gcpacertrace=1

	Runs          int    `json:"runs"`           // how often the program started, as far as cycles show it
	Cycles        int    `json:"cycles"`         // read
	MissingCycles uint64 `json:"missing_cycles"` // not read: gaps in the numbers
	Forced        int    `json:"forced"`         // by a call: runtime.GC, debug.FreeOSMemory, leak profile
	Periodic      int    `json:"periodic"`       // by two minutes without a cycle
	LeakChecks    int    `json:"leak_checks"`    // by the goroutine leak profile
	Scavenges     int    `json:"scavenges"`      // lines of the scavenger

	Observed         Opt[float64] `json:"observed_seconds"`         // from the first cycle's start to the last one's
	CyclesPerSecond  Opt[float64] `json:"cycles_per_second"`        // over that time, missing ones included
	MostInOneSecond  Opt[int]     `json:"max_cycles_in_one_second"` // those read
	GCCPU            Opt[float64] `json:"gc_cpu_ratio"`             // of the CPU that GOMAXPROCS offers, over that time
	GCCPUSinceStart  Opt[float64] `json:"gc_cpu_since_start_ratio"` // as the last cycle prints it, rounded down
	SweepTermination *Pauses      `json:"sweep_termination,omitempty"`
	MarkTermination  *Pauses      `json:"mark_termination,omitempty"`
	StoppedPerCycle  *Pauses      `json:"stopped_per_cycle,omitempty"` // the two added up
	Heap             *Heap        `json:"heap,omitempty"`
	Overshoots       Opt[int]     `json:"overshoots"`        // cycles that ended 32 MiB and 10 % over the goal in their line
	HiddenOvershoots Opt[int]     `json:"hidden_overshoots"` // cycles that one allocation started that far over the goal before; null if GOGC cannot be told
	InferredGOGC     Opt[int]     `json:"inferred_gogc_percent"`
	Scavenger        *Scavenging  `json:"scavenger,omitempty"`
	Series           []Point      `json:"series,omitempty"` // the heap of the last run
}

// Pauses describes stop-the-world pauses. The quantiles are of what the
// runtime prints, exact up to a second and within 1/16 above.
type Pauses struct {
	P50       float64 `json:"p50_seconds"`
	P90       float64 `json:"p90_seconds"`
	P99       float64 `json:"p99_seconds"`
	Max       float64 `json:"max_seconds"`
	Over500us uint64  `json:"over_500us"` // how many were longer
}

// Heap is the heap of the last run of the program.
type Heap struct {
	Live   uint64       `json:"live_bytes"`                   // after the last cycle
	Peak   uint64       `json:"peak_bytes"`                   // the largest heap at a cycle's start or end
	Goal   Opt[uint64]  `json:"goal_bytes"`                   // of the last cycle, null if there is none: GOGC=off without a memory limit
	Growth Opt[float64] `json:"live_growth_bytes_per_second"` // Theil-Sen; null below two times
	Rising Opt[float64] `json:"live_rising_ratio"`            // share of pairs of points that rise: 1 is steady growth
}

// Scavenging is what the scavenger's lines show.
//
// Retained is heap that is not returned to the operating system, and idle is
// retained beyond the live heap. Since Go 1.14 both are lower bounds: the
// truth is not below, and may be above. RSS is in no trace line.
type Scavenging struct {
	Forced      int          `json:"forced"`               // by debug.FreeOSMemory
	Returned    uint64       `json:"returned_bytes"`       // by all lines together
	Released    Opt[uint64]  `json:"released_bytes"`       // returned and not taken back, at the last line
	Utilization Opt[float64] `json:"utilization_ratio"`    // heap in spans to retained heap, at the last line
	Retained    Opt[uint64]  `json:"retained_min_bytes"`   // at the last line, at least
	Idle        Opt[uint64]  `json:"idle_min_bytes"`       // at the last line, at least
	IdleMost    Opt[uint64]  `json:"idle_min_worst_bytes"` // the largest of all lines' idle_min_bytes
	IdleRun     int          `json:"idle_run_lines"`       // most lines in a row with 50 MiB idle at least, that returned at most 1 % of it
}

// Report returns what is known so far.
func (s *Summary) Report() Report {
	r := Report{
		Lines: s.lines, SkippedLines: s.skipped,
		SyntaxErrors: s.syntaxErrors, FirstSyntaxErrors: append([]SyntaxError(nil), s.firstErrors...),
		UnknownTextLines: s.unknownText, ScanLines: s.scanLines, PacerLines: s.pacerLines,
		Runs: s.runs, Cycles: s.cycles, MissingCycles: s.missing,
		Forced: s.forced, Periodic: s.periodic, LeakChecks: s.leakChecks, Scavenges: s.scav.lines,
	}
	if s.cycles > 0 {
		s.reportCycles(&r)
	}
	if s.scav.lines > 0 {
		r.Scavenger = s.scav.report()
	}
	r.Findings = s.findings(&r)
	r.Verdict = verdict(&r)
	return r
}

func (s *Summary) reportCycles(r *Report) {
	if s.observed > 0 {
		r.Observed = Some(s.observed)
		r.CyclesPerSecond = Some((float64(s.cycles-s.runs) + float64(s.missing)) / s.observed)
	}
	r.MostInOneSecond = Some(s.rate.most)
	if s.capacity > 0 {
		r.GCCPU = Some(s.gcCPU / s.capacity)
	}
	r.GCCPUSinceStart = Some(float64(s.prev.CPUPercent) / 100)
	r.SweepTermination = s.sweepTerm.report()
	r.MarkTermination = s.markTerm.report()
	r.StoppedPerCycle = s.stopped.report()
	r.Overshoots = Some(s.over.seen)
	if percent, ok := s.gogc.percent(); ok {
		r.InferredGOGC = Some(percent)
		r.HiddenOvershoots = Some(s.over.hidden)
	}
	r.Heap = &Heap{Live: s.prev.HeapLive, Peak: s.peakHeap}
	if !s.prev.GoalUnbounded() {
		r.Heap.Goal = Some(s.prev.HeapGoal)
	}
	if growth, rising, ok := s.heap.slope(); ok {
		r.Heap.Growth, r.Heap.Rising = Some(growth), Some(rising)
	}
	r.Series = append([]Point(nil), s.heap.points...)
}

func (h *histogram) report() *Pauses {
	return &Pauses{
		P50: h.quantile(500).Seconds(), P90: h.quantile(900).Seconds(), P99: h.quantile(990).Seconds(),
		Max: h.max.Seconds(), Over500us: h.over,
	}
}

func (s *scavenger) report() *Scavenging {
	r := &Scavenging{
		Forced: s.forced, Returned: s.returned, Released: s.last.Released,
		Retained: s.retained, Idle: s.idle, IdleMost: s.idleMost, IdleRun: s.longestIdling.lines,
	}
	if util, ok := s.last.Util.Get(); ok {
		r.Utilization = Some(float64(util) / 100)
	}
	return r
}
