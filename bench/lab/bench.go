// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"io"
	"strings"
)

// The Go benchmark format: https://go.dev/design/14313-benchmark-format, with the
// unit metadata of golang.org/x/perf/benchfmt. A run is a benchmark of one
// iteration; benchstat puts repeats together by name.

// unit is one figure of a run.
type unit struct {
	name, better string
	value        func(*Result) (v float64, ok bool)
}

var units = []unit{
	{"goodput/s", "higher", func(r *Result) (float64, bool) { return r.Goodput, true }},
	{"work/cpu-sec", "higher", func(r *Result) (float64, bool) { return r.perCPU() }},
	{"kills", "lower", func(r *Result) (float64, bool) { return float64(r.Kills), true }},
	{"p50-sec", "lower", func(r *Result) (float64, bool) { return r.latency(func(t *Tally) Seconds { return t.P50 }) }},
	{"p99-sec", "lower", func(r *Result) (float64, bool) { return r.latency(func(t *Tally) Seconds { return t.P99 }) }},
	{"refused", "lower", func(r *Result) (float64, bool) { return float64(r.Refused), true }},
	{"peak-bytes", "lower", func(r *Result) (float64, bool) {
		if r.Peak == nil {
			return 0, false
		}
		return float64(*r.Peak), true
	}},
}

// perCPU is work for each second of the victim's processor time.
func (r *Result) perCPU() (float64, bool) {
	if r.CPU <= 0 {
		return 0, false
	}
	return float64(r.Done) / r.CPU, true
}

func (r *Result) latency(of func(*Tally) Seconds) (float64, bool) {
	if r.Load == nil {
		return 0, false
	}
	return of(r.Load).Value()
}

// writeBench writes the runs that could be made.
func (r *Results) writeBench(w io.Writer) error {
	var b strings.Builder
	os, arch, _ := strings.Cut(r.OS, "/")
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\ntoolchain: %s\n", os, arch, r.Go)
	if r.Kernel != "" {
		fmt.Fprintf(&b, "kernel: %s\n", r.Kernel)
	}
	fmt.Fprintf(&b, "cpus: %d\n", r.CPUs)
	for _, u := range units {
		fmt.Fprintf(&b, "Unit %s better=%s\n", u.name, u.better)
	}
	for _, one := range r.Results {
		if one.Outcome == Failed {
			continue
		}
		fmt.Fprintf(&b, "BenchmarkOOM/scenario=%s/guard=%s 1", one.Scenario, one.Guard)
		for _, u := range units {
			if v, ok := u.value(one); ok {
				fmt.Fprintf(&b, " %.6g %s", v, u.name)
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
