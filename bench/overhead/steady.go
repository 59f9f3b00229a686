// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

// steadyRun is a long run of a healthy service under guard.
type steadyRun struct {
	Way     string   `json:"way"`
	Ran     float64  `json:"seconds"`
	Minutes []minute `json:"minutes"`

	Requests tally   `json:"requests"`
	CPU      float64 `json:"cpu_seconds"`
	Cycles   uint64  `json:"gc_cycles"`
	First    memory  `json:"memory_first"` // after the warm-up
	Last     memory  `json:"memory_last"`
	Guard    acts    `json:"guard"`
	Share    share   `json:"cpu_profile"`
}

// minute is what happened in one, or in what was left for the last.
type minute struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"`
	Percent uint64  `json:"gc_percent_changes"`
	Limit   uint64  `json:"memory_limit_changes"`
	Raised  uint64  `json:"findings_raised"`
	Memory  memory  `json:"memory"`
}

// steady runs the service with all that a guard has, for d.
func steady(ctx context.Context, d time.Duration, rate float64, keep string, progress io.Writer) (_ *steadyRun, err error) {
	w := &ways[len(ways)-1]
	s, err := open(ctx, role{Profile: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	pid := s.service.cmd.Process.Pid
	r := &steadyRun{Way: w.setup}
	to, err := s.begin(w, usual.warm, rate, 1)
	if err != nil {
		return nil, err
	}
	if r.First, err = readMemory(pid); err != nil {
		return nil, err
	}
	var last usage
	if err := s.service.ask(order{Do: look}, &last); err != nil {
		return nil, err
	}
	first := last

	start := time.Now()
	loaded := make(chan error, 1)
	go func() { loaded <- s.load.ask(order{Do: send, To: to, For: d, Rate: rate, Seed: 2}, &r.Requests) }()
	at := start
	for over := false; !over; {
		timer := time.NewTimer(time.Minute)
		select {
		case err := <-loaded:
			timer.Stop()
			if err != nil {
				return nil, err
			}
			over = true
		case <-timer.C:
		}
		m := minute{Seconds: time.Since(at).Seconds()}
		at = time.Now()
		do := look
		if over {
			do = finish
		}
		var now usage
		if err := s.service.ask(order{Do: do}, &now); err != nil {
			return nil, err
		}
		if m.Memory, err = readMemory(pid); err != nil {
			return nil, err
		}
		was, is := last.Guard, now.Guard
		m.CPU, m.Percent, m.Limit = now.CPU-last.CPU, is.Percent-was.Percent, is.Limit-was.Limit
		m.Raised = is.Loud + is.Quiet - was.Loud - was.Quiet
		r.Minutes = append(r.Minutes, m)
		last = now
		fmt.Fprintf(progress, "minute %d: %.0f s, CPU %.1f %%, %d + %d settings changed, %d findings raised, RSS %.1f MiB\n",
			len(r.Minutes), m.Seconds, 100*m.CPU/m.Seconds, m.Percent, m.Limit, m.Raised, mib(m.Memory.RSS))
	}
	r.Ran = at.Sub(start).Seconds()
	r.CPU, r.Cycles = last.CPU-first.CPU, last.Cycles-first.Cycles
	r.Last, r.Guard = r.Minutes[len(r.Minutes)-1].Memory, *last.Guard

	text, err := os.ReadFile(filepath.Join(s.dir, profileFile))
	if err != nil {
		return nil, err
	}
	if keep != "" {
		if err := os.WriteFile(keep, text, 0o644); err != nil {
			return nil, err
		}
	}
	r.Share, err = shareOf(text)
	return r, err
}

// bad reports whether the guard raised a finding of warning or above, or takes
// more CPU than percent. A negative percent is any.
func (r *steadyRun) bad(percent float64) bool {
	return r.Guard.Loud > 0 || percent >= 0 && r.Share.percent(r.Share.Guard) > percent
}

// print prints the run.
func (r *steadyRun) print(w io.Writer) error {
	a := &r.Guard
	fmt.Fprintf(w, "%.0f s of mixed load under a limit of %.0f MiB; %s.\n\n", r.Ran, mib(limit), r.Way)
	fmt.Fprintf(w, "requests   %d answered, %d refused, %d failed; p50 %.2f ms, p99 %.2f ms\n",
		r.Requests.Answered, r.Requests.Refused, r.Requests.Failed, r.Requests.P50*1e3, r.Requests.P99*1e3)
	if r.Requests.Error != "" {
		fmt.Fprintf(w, "           one failed: %s\n", r.Requests.Error)
	}
	fmt.Fprintf(w, "CPU        %.1f %% of one, %d GC cycles\n", 100*r.CPU/r.Ran, r.Cycles)
	h := &r.Share
	fmt.Fprintf(w, "guard      %.3f %% of it in the CPU profile (%d of %d samples), %d ticks\n", h.percent(h.Guard), h.Guard, h.All, a.Ticks)
	fmt.Fprintf(w, "limiter    %.3f %% (%d samples)\n", h.percent(h.Limiter), h.Limiter)
	for _, f := range r.Share.Where {
		fmt.Fprintf(w, "           %6d  %s\n", f.Samples, f.Function)
	}
	fmt.Fprintf(w, "memory     RSS %.1f MiB -> %.1f MiB, of it files %.2f -> %.2f MiB\n",
		mib(r.First.RSS), mib(r.Last.RSS), mib(r.First.File), mib(r.Last.File))
	fmt.Fprintf(w, "findings   %d of warning or above, %d below\n", a.Loud, a.Quiet)
	for _, f := range a.Findings {
		fmt.Fprintf(w, "           %7.1f s  %s  %s: %s\n", f.At, f.Severity, f.ID, f.Summary)
	}
	fmt.Fprintf(w, "releases   %d\n", a.Releases)
	for _, l := range a.Lost {
		fmt.Fprintf(w, "lost       %s\n", l)
	}
	fmt.Fprint(w, "events    ")
	for _, k := range slices.Sorted(maps.Keys(a.Events)) {
		fmt.Fprintf(w, " %s %d", k, a.Events[k])
	}
	fmt.Fprintf(w, "\nsettings   changed %d times: %s %d, %s %d, the first settings included\n\n",
		a.Percent+a.Limit, memguard.SetGCPercent, a.Percent, memguard.SetMemoryLimit, a.Limit)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "minute\tseconds\tCPU\t%s changes\t%s changes\tfindings\tRSS\t\n", memguard.SetGCPercent, memguard.SetMemoryLimit)
	for i, m := range r.Minutes {
		fmt.Fprintf(t, "%d\t%.0f\t%.1f %%\t%d\t%d\t%d\t%.1f MiB\t\n", i+1, m.Seconds, 100*m.CPU/m.Seconds, m.Percent, m.Limit, m.Raised, mib(m.Memory.RSS))
	}
	return t.Flush()
}
