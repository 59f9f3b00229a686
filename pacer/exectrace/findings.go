// SPDX-License-Identifier: Apache-2.0

package exectrace

import (
	"fmt"
	"time"
)

// Severity of a Finding.
type Severity string

const (
	Warning  Severity = "warning"  // costs something; look when convenient
	Critical Severity = "critical" // requests feel it
)

// Finding is one thing that the trace shows to be wrong. IDs are stable.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	Summary  string   `json:"summary"`
	Evidence []string `json:"evidence"` // the numbers that prove it
	Remedy   string   `json:"remedy"`
}

// Thresholds of the findings.
const (
	slowStop      = 500 * time.Microsecond // a GC stop longer than this is a gc-pause
	verySlowStop  = 10 * time.Millisecond
	stormRate     = 50.0 // cycles a second
	stormCycles   = 25   // so many in a row make a rate
	overshootOver = 1.2  // heap at mark end over goal
	overshootMin  = 16 << 20
	assistShare   = 0.25 // of marking done by assists: the share that dedicated workers are meant to leave idle
	sweepCutShare = 0.5  // of cycles that began with sweeping unfinished
	scavengeWait  = 100 * time.Millisecond
)

func (r *Report) findings() []Finding {
	fs := []Finding{}
	add := func(id string, critical bool, remedy, summary string, evidence ...string) {
		s := Warning
		if critical {
			s = Critical
		}
		fs = append(fs, Finding{ID: id, Severity: s, Summary: summary, Evidence: evidence, Remedy: remedy})
	}

	if p := &r.Peak; p.SlowMark+p.SlowSweep > 0 {
		longest := max(p.MarkTermination.v, p.SweepTermination.v)
		add("gc-pause", longest >= verySlowStop,
			"The work in a GC stop is short; a long one waits for a P that does not stop: a starved or throttled CPU (look at CPU pressure and the cgroup's quota, and set GOMAXPROCS to what there is), or a loop that cannot be preempted.",
			fmt.Sprintf("GC stopped the world for up to %s.", round(longest)),
			fmt.Sprintf("mark termination: %d of %d over %s, longest %s", p.SlowMark, r.CycleCount, slowStop, round(p.MarkTermination.v)),
			fmt.Sprintf("sweep termination: %d of %d over %s, longest %s", p.SlowSweep, r.CycleCount, slowStop, round(p.SweepTermination.v)))
	}

	marking := r.CPU.Dedicated + r.CPU.Fractional + r.CPU.Assist
	if marking > 0 {
		share := float64(r.CPU.Assist) / float64(marking)
		if share > assistShare && r.Assists.Wall > time.Millisecond {
			ev := []string{
				fmt.Sprintf("assists %s of %s marking", round(r.CPU.Assist), round(marking)),
				fmt.Sprintf("%d assists held goroutines up for %s", r.Assists.Count, round(r.Assists.Wall)),
			}
			if len(r.Assists.Stacks) > 0 {
				p := &r.Assists.Stacks[0]
				ev = append(ev, fmt.Sprintf("most in %s: %s", p.Name, round(p.Wall)))
			}
			add("gc-assist", share > 0.5,
				"Allocation outruns the background workers. Allocate less at the stacks that pay, or give the collector room: a higher GOGC under a memory limit makes each cycle rarer and its pacing gentler.",
				fmt.Sprintf("Goroutines that allocate did %.0f %% of the marking themselves.", 100*share), ev...)
		}
	}

	if p := &r.Peak; p.CyclesPerSecond.v >= stormRate {
		add("gc-storm", p.CyclesPerSecond.v >= 4*stormRate,
			"The heap goal is too close to the live heap for this allocation rate: raise GOGC (for a small heap a lot, with a GOMEMLIMIT above it), or raise a GOMEMLIMIT that the live heap has reached. If the cycles are forced, remove the calls.",
			fmt.Sprintf("GC ran at %.0f cycles a second.", p.CyclesPerSecond.v),
			fmt.Sprintf("fastest %d cycles in a row; %d cycles in %s overall", stormCycles, r.CycleCount, round(r.Span)))
	}

	if p := &r.Peak; p.Overshoots > 0 {
		add("gc-overshoot", p.Overshoot.v >= 2,
			"Bytes above the goal are bytes that no limit planned for. One allocation larger than the headroom passes any goal: split or pool it. If it is a burst, lower GOGC or admit fewer requests at once.",
			fmt.Sprintf("The heap reached %.2f times its goal.", p.Overshoot.v),
			fmt.Sprintf("%d of %d cycles over by more than 20 %% and 16 MiB; worst is cycle %d", p.Overshoots, r.CycleCount, p.OvershootCycle))
	}

	if n := r.Peak.SweepsCut; n >= 2 && float64(n) >= sweepCutShare*float64(r.CycleCount) {
		add("sweep-lag", false,
			"Allocating goroutines are made to sweep what the background sweeper, which only takes idle time, did not get to. Fewer cycles (a higher goal) or a spare P help.",
			fmt.Sprintf("%d of %d cycles began before the last one's sweeping was over.", n, r.CycleCount),
			fmt.Sprintf("goroutines swept for %s before they could allocate, the background sweeper for %s", round(r.CPU.Sweeping), round(r.CPU.Sweeper)))
	}

	if w := r.ScavengerWait; w >= scavengeWait && w > r.CPU.Scavenger {
		add("scavenge-lag", false,
			"Free memory goes back to the system late because the background scavenger does not get a P. Relieve the CPU, or release memory on purpose.",
			fmt.Sprintf("The background scavenger waited %s for a P.", round(w)),
			fmt.Sprintf("it ran for %s", round(r.CPU.Scavenger)))
	}
	return fs
}

// verdict says what to think of the trace: the gravest finding, and what GC
// came to.
func (r *Report) verdict() string {
	if r.Span == 0 {
		return "Nothing of the trace could be told."
	}
	if r.CycleCount == 0 {
		return fmt.Sprintf("No GC cycle in %s.", round(r.Span))
	}
	sum := fmt.Sprintf("%d GC cycles in %s", r.CycleCount, round(r.Span))
	if r.CycleCount == 1 {
		sum = fmt.Sprintf("One GC cycle in %s", round(r.Span))
	}
	if share, ok := r.CPU.Share(); ok {
		sum += fmt.Sprintf(", %.1f %% of the CPU spent marking", 100*share)
	}
	if longest := max(r.Peak.MarkTermination.v, r.Peak.SweepTermination.v); longest > 0 {
		sum += fmt.Sprintf(", longest GC stop %s", round(longest))
	}
	sum += "."
	if len(r.Findings) == 0 {
		return "Nothing is wrong. " + sum
	}
	gravest := r.Findings[0]
	for _, f := range r.Findings {
		if f.Severity == Critical {
			gravest = f
			break
		}
	}
	return gravest.Summary + " " + sum
}

// round keeps about three digits of a duration.
func round(d time.Duration) time.Duration {
	for unit := time.Duration(1); unit < time.Hour; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
	return d.Round(time.Hour)
}
