// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// comparison is what all ways cost, beside the first.
type comparison struct {
	Go     string    `json:"go"`
	CPUs   int       `json:"cpus"`
	Limit  uint64    `json:"limit_bytes"`
	Load   float64   `json:"load_seconds"` // of each turn
	Rounds int       `json:"rounds"`
	Ways   []outcome `json:"ways"`
}

// outcome is what one way costs: medians, and what they are beside the first way.
type outcome struct {
	Name  string `json:"name"`
	Setup string `json:"setup"`

	PerRequest float64 `json:"cpu_seconds_per_request"`
	CPU        float64 `json:"cpu_share"` // of one CPU, under load and in its pauses
	RestCPU    float64 `json:"rest_cpu_share"`
	P50        float64 `json:"p50_seconds"`
	P99        float64 `json:"p99_seconds"`
	Memory     memory  `json:"memory"`
	Cycles     float64 `json:"gc_cycles"`

	Answered uint64 `json:"answered"` // of all rounds
	Refused  uint64 `json:"refused"`
	Failed   uint64 `json:"failed"`
	Error    string `json:"error,omitempty"` // of one that failed

	More *more `json:"more,omitempty"` // nil of the first way

	Rounds []figures `json:"rounds"`
}

// more is what a way costs more than the first, round by round.
type more struct {
	PerRequest interval `json:"cpu_per_request_percent"`
	RestCPU    interval `json:"rest_cpu_share"`
	// Rest is RestCPU as a part of what the first way takes under load. Under load
	// a tick is cheaper: it need not wake a thread.
	Rest interval `json:"rest_cpu_of_load_percent"`
	P50  interval `json:"p50_percent"`
	P99  interval `json:"p99_percent"`
	RSS  interval `json:"rss_bytes"`
	Anon interval `json:"anon_bytes"`
	File interval `json:"file_bytes"`
}

// compare runs all ways, round by round.
func compare(ctx context.Context, rounds int, t plan, progress io.Writer) (*comparison, error) {
	c := &comparison{
		Go: runtime.Version(), CPUs: runtime.NumCPU(), Limit: limit, Load: t.load.Seconds(), Rounds: rounds,
		Ways: make([]outcome, len(ways)),
	}
	for round := range rounds {
		sequence := make([]int, len(ways))
		for i := range sequence {
			sequence[i] = i
		}
		if round%2 == 1 {
			slices.Reverse(sequence)
		}
		for _, i := range sequence {
			f, err := turn(ctx, &ways[i], t, uint64(round+1))
			if err != nil {
				return nil, fmt.Errorf("round %d, %s: %w", round+1, ways[i].name, err)
			}
			c.Ways[i].Rounds = append(c.Ways[i].Rounds, f)
			fmt.Fprintf(progress, "round %d of %d  %-8s %4.0f µs of CPU for each of %d requests, p99 %.1f ms, at rest %.3f %%, RSS %.1f MiB\n",
				round+1, rounds, ways[i].name, f.perRequest()*1e6, f.Requests.Answered, f.Requests.P99*1e3, f.RestCPU*100, mib(f.Memory.RSS))
		}
	}
	for i := range c.Ways {
		c.Ways[i].sum(&ways[i], &c.Ways[0])
	}
	return c, nil
}

// column is one figure of all rounds.
func (o *outcome) column(of func(*figures) float64) []float64 {
	c := make([]float64, len(o.Rounds))
	for i := range o.Rounds {
		c[i] = of(&o.Rounds[i])
	}
	return c
}

// sum sums the rounds up, beside those of the first way.
func (o *outcome) sum(w *way, first *outcome) {
	o.Name, o.Setup = w.name, w.setup
	var (
		cpu  = func(f *figures) float64 { return f.CPU / f.Wall }
		rest = func(f *figures) float64 { return f.RestCPU }
		p50  = func(f *figures) float64 { return f.Requests.P50 }
		p99  = func(f *figures) float64 { return f.Requests.P99 }
		rss  = func(f *figures) float64 { return float64(f.Memory.RSS) }
		anon = func(f *figures) float64 { return float64(f.Memory.Anon) }
		file = func(f *figures) float64 { return float64(f.Memory.File) }
		gcs  = func(f *figures) float64 { return float64(f.Cycles) }
	)
	typical := func(of func(*figures) float64) float64 { return median(o.column(of)) }
	o.PerRequest, o.CPU, o.RestCPU = typical((*figures).perRequest), typical(cpu), typical(rest)
	o.P50, o.P99, o.Cycles = typical(p50), typical(p99), typical(gcs)
	o.Memory = memory{uint64(typical(rss)), uint64(typical(anon)), uint64(typical(file))}
	for i := range o.Rounds {
		r := &o.Rounds[i].Requests
		o.Answered, o.Refused, o.Failed = o.Answered+r.Answered, o.Refused+r.Refused, o.Failed+r.Failed
		if r.Error != "" {
			o.Error = r.Error
		}
	}
	if o == first {
		return
	}
	by := func(compare func(old, new []float64) interval, of func(*figures) float64) interval {
		return compare(first.column(of), o.column(of))
	}
	o.More = &more{
		PerRequest: by(ratio, (*figures).perRequest), P50: by(ratio, p50), P99: by(ratio, p99),
		RestCPU: by(difference, rest), RSS: by(difference, rss), Anon: by(difference, anon), File: by(difference, file),
	}
	o.More.Rest = o.More.RestCPU.each(func(x float64) float64 { return 100 * x / first.CPU })
}

// over reports whether a way certainly costs more CPU for each request than
// percent. A negative percent is any.
func (c *comparison) over(percent float64) bool {
	return percent >= 0 && slices.ContainsFunc(c.Ways, func(o outcome) bool {
		return o.More != nil && o.More.PerRequest.Low != nil && *o.More.PerRequest.Low > percent
	})
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

// print prints the table.
func (c *comparison) print(w io.Writer) error {
	fmt.Fprintf(w, "%d rounds; in each every way has %v of load (with pauses) and %v at rest, under a limit of %.0f MiB.\n",
		c.Rounds, seconds(c.Load), rest, mib(c.Limit))
	fmt.Fprintf(w, "%s, %d CPUs. Medians; then what is added to %s: typical [95 %% interval].\n\n", c.Go, c.CPUs, c.Ways[0].Name)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(title string, of func(*outcome) string) {
		fmt.Fprint(t, title)
		for i := range c.Ways {
			fmt.Fprint(t, "\t", of(&c.Ways[i]))
		}
		fmt.Fprintln(t)
	}
	// with is a figure and what it is more than that of the first way.
	with := func(title, figure, unit string, of func(*outcome) float64, added func(*more) interval, scale float64) {
		row(title, func(o *outcome) string { return fmt.Sprintf(figure, of(o)) })
		row("", func(o *outcome) string {
			if o.More == nil {
				return ""
			}
			return added(o.More).each(func(x float64) float64 { return x * scale }).text(unit)
		})
	}
	row("", func(o *outcome) string { return o.Name })
	with("CPU per request", "%.1f µs", "%", func(o *outcome) float64 { return o.PerRequest * 1e6 }, func(m *more) interval { return m.PerRequest }, 1)
	with("CPU at rest", "%.3f %% of a CPU", "% of a CPU", func(o *outcome) float64 { return o.RestCPU * 100 }, func(m *more) interval { return m.RestCPU }, 100)
	row("  beside the load's", func(o *outcome) string {
		if o.More == nil {
			return fmt.Sprintf("%.1f %% of a CPU", o.CPU*100)
		}
		return o.More.Rest.text("%")
	})
	with("p50", "%.2f ms", "%", func(o *outcome) float64 { return o.P50 * 1e3 }, func(m *more) interval { return m.P50 }, 1)
	with("p99", "%.2f ms", "%", func(o *outcome) float64 { return o.P99 * 1e3 }, func(m *more) interval { return m.P99 }, 1)
	with("RSS", "%.2f MiB", "MiB", func(o *outcome) float64 { return mib(o.Memory.RSS) }, func(m *more) interval { return m.RSS }, 1./(1<<20))
	with("  of it anonymous", "%.2f MiB", "MiB", func(o *outcome) float64 { return mib(o.Memory.Anon) }, func(m *more) interval { return m.Anon }, 1./(1<<20))
	with("  of it files", "%.2f MiB", "MiB", func(o *outcome) float64 { return mib(o.Memory.File) }, func(m *more) interval { return m.File }, 1./(1<<20))
	row("GC cycles", func(o *outcome) string { return fmt.Sprintf("%.1f", o.Cycles) })
	row("answered, refused, failed", func(o *outcome) string { return fmt.Sprintf("%d, %d, %d", o.Answered, o.Refused, o.Failed) })
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for i := range c.Ways {
		fmt.Fprintf(w, "%s: %s\n", c.Ways[i].Name, c.Ways[i].Setup)
		if c.Ways[i].Error != "" {
			fmt.Fprintf(w, "  a request failed: %s\n", c.Ways[i].Error)
		}
	}
	_, err := fmt.Fprintln(w, "The black box is a file of 1 MiB, mapped and held in memory where that is allowed: it counts among the files.")
	return err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// text prints an interval.
func (iv interval) text(unit string) string {
	s := fmt.Sprintf("%+.3f", iv.Typical)
	if iv.Low != nil {
		s += fmt.Sprintf(" [%+.3f, %+.3f]", *iv.Low, *iv.High)
	}
	return s + " " + unit
}
