// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
)

// comparison is what guard and limiter cost. Times are in seconds of CPU.
type comparison struct {
	Go     string  `json:"go"`
	CPUs   int     `json:"cpus"`
	Limit  uint64  `json:"limit_bytes"`
	Load   float64 `json:"load_seconds"`  // of each round
	Start  float64 `json:"start_seconds"` // of each round, at rest while the guard is new
	Rest   float64 `json:"rest_seconds"`  // of each round, after that
	Rounds []bout  `json:"rounds"`

	Request interval `json:"cpu_seconds_per_request"` // without limiter, and without ticks
	Limiter interval `json:"limiter_cpu_seconds_per_request"`
	Tick    interval `json:"cpu_seconds_per_tick"`
	Rate    interval `json:"ticks_per_second"`
	// LimiterShare is Limiter as a part of Request, and GuardShare what ticks take
	// beside requests that come as densely as in a steady run, both in percent.
	LimiterShare interval `json:"limiter_percent"`
	GuardShare   interval `json:"guard_percent"`

	Ways []outcome `json:"ways"`
}

// outcome is what one way takes at rest: medians, and what they are beside the
// first way.
type outcome struct {
	Name   string  `json:"name"`
	Setup  string  `json:"setup"`
	Start  float64 `json:"start_cpu_share"` // of one CPU, while the guard is new
	CPU    float64 `json:"cpu_share"`       // of one CPU, after that
	Memory memory  `json:"memory"`
	Box    uint64  `json:"box_bytes"`      // size of the black box; 0 is that there is none
	More   *more   `json:"more,omitempty"` // nil of the first way
	Rests  []idle  `json:"rests"`
}

// more is what a way takes more than the first, round by round.
type more struct {
	Start interval `json:"start_cpu_share"`
	CPU   interval `json:"cpu_share"`
	RSS   interval `json:"rss_bytes"`
	Anon  interval `json:"anon_bytes"`
	File  interval `json:"file_bytes"`
}

// usualRate is how many requests a second come in a steady run.
const usualRate = perSecond * float64(busy) / float64(busy+pausing)

// compare runs rounds. Each has processes of its own: how the memory of one happens
// to lie favours nobody for long.
func compare(ctx context.Context, rounds int, t plan, progress io.Writer) (*comparison, error) {
	c := &comparison{
		Go: runtime.Version(), CPUs: runtime.NumCPU(), Limit: limit, Load: t.load.Seconds(), Start: t.start.Seconds(), Rest: t.rest.Seconds(),
		Ways: make([]outcome, len(ways)),
	}
	for round := range rounds {
		b, err := compared(ctx, t, uint64(round+1))
		if err != nil {
			return nil, fmt.Errorf("round %d: %w", round+1, err)
		}
		all, err := rest(ctx, t, uint64(round+1))
		if err != nil {
			return nil, fmt.Errorf("round %d, at rest: %w", round+1, err)
		}
		c.Rounds = append(c.Rounds, b)
		fmt.Fprintf(progress, "round %d of %d: a request %.1f µs, the limiter %+.2f µs, each of %.1f ticks a second %.0f µs; at rest", round+1, rounds,
			1e6*b.Request, 1e6*b.Limiter, b.rate(), 1e6*b.Tick)
		for i, r := range all {
			c.Ways[i].Rests = append(c.Ways[i].Rests, r)
			fmt.Fprintf(progress, " %s %.3f %% %.1f MiB", ways[i].name, 100*r.CPU, mib(r.Memory.RSS))
		}
		fmt.Fprintln(progress)
	}
	c.sum()
	return c, nil
}

// column is one figure of all rounds.
func column[T any](all []T, of func(*T) float64) []float64 {
	c := make([]float64, len(all))
	for i := range all {
		c[i] = of(&all[i])
	}
	return c
}

// sum sums the rounds up.
func (c *comparison) sum() {
	of := func(f func(*bout) float64) interval { return estimate(column(c.Rounds, f)) }
	c.Request = of(func(b *bout) float64 { return b.Request })
	c.Limiter = of(func(b *bout) float64 { return b.Limiter })
	c.Tick = of(func(b *bout) float64 { return b.Tick })
	c.Rate = of((*bout).rate)
	c.LimiterShare = of(func(b *bout) float64 { return 100 * b.Limiter / b.Request })
	c.GuardShare = of(func(b *bout) float64 { return 100 * b.Tick * b.rate() / (b.Request * usualRate) })
	var (
		start = func(r *idle) float64 { return r.Start }
		cpu   = func(r *idle) float64 { return r.CPU }
		rss   = func(r *idle) float64 { return float64(r.Memory.RSS) }
		anon  = func(r *idle) float64 { return float64(r.Memory.Anon) }
		file  = func(r *idle) float64 { return float64(r.Memory.File) }
		box   = func(r *idle) float64 { return float64(r.Box) }
	)
	first := c.Ways[0].Rests
	for i := range c.Ways {
		o := &c.Ways[i]
		o.Name, o.Setup = ways[i].name, ways[i].setup
		typical := func(of func(*idle) float64) float64 { return median(column(o.Rests, of)) }
		o.Start, o.CPU, o.Box = typical(start), typical(cpu), uint64(typical(box))
		o.Memory = memory{uint64(typical(rss)), uint64(typical(anon)), uint64(typical(file))}
		if i == 0 {
			continue
		}
		above := func(of func(*idle) float64) interval { return difference(column(first, of), column(o.Rests, of)) }
		o.More = &more{Start: above(start), CPU: above(cpu), RSS: above(rss), Anon: above(anon), File: above(file)}
	}
}

// over reports whether the guard certainly takes more of the service's CPU than
// percent. A negative percent is any.
func (c *comparison) over(percent float64) bool {
	return percent >= 0 && c.GuardShare.Low != nil && *c.GuardShare.Low > percent
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

// print prints the tables.
func (c *comparison) print(w io.Writer) error {
	fmt.Fprintf(w, "%d rounds of %.0f s of requests and %.0f s at rest, under a limit of %.0f MiB; %s, %d CPUs.\nTypical [95 %% interval].\n\n",
		len(c.Rounds), c.Load, c.Rest, mib(c.Limit), c.Go, c.CPUs)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(title string, iv interval, scale float64, unit, note string) {
		fmt.Fprintf(t, "%s\t%s\t%s\n", title, iv.each(func(x float64) float64 { return x * scale }).text(unit), note)
	}
	line("CPU of a request", c.Request, 1e6, "µs", "")
	line("  the limiter adds", c.Limiter, 1e6, "µs", "")
	line("", c.LimiterShare, 1, "%", "of the request's")
	line("CPU of a tick", c.Tick, 1e6, "µs", "")
	line("  ticks", c.Rate, 1, "a second", "")
	line("  all of them", c.GuardShare, 1, "%", fmt.Sprintf("of the service's, at %.0f requests a second", usualRate))
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nAt rest (medians; then what is added to %s):\n", c.Ways[0].Name)
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
	with("CPU of a new one", "%.3f %% of a CPU", "% of a CPU", func(o *outcome) float64 { return o.Start * 100 }, func(m *more) interval { return m.Start }, 100)
	with("CPU from then on", "%.3f %% of a CPU", "% of a CPU", func(o *outcome) float64 { return o.CPU * 100 }, func(m *more) interval { return m.CPU }, 100)
	with("RSS", "%.2f MiB", "MiB", func(o *outcome) float64 { return mib(o.Memory.RSS) }, func(m *more) interval { return m.RSS }, 1./(1<<20))
	with("  of it anonymous", "%.2f MiB", "MiB", func(o *outcome) float64 { return mib(o.Memory.Anon) }, func(m *more) interval { return m.Anon }, 1./(1<<20))
	with("  of it files", "%.2f MiB", "MiB", func(o *outcome) float64 { return mib(o.Memory.File) }, func(m *more) interval { return m.File }, 1./(1<<20))
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for i := range c.Ways {
		fmt.Fprintf(w, "%s: %s\n", c.Ways[i].Name, c.Ways[i].Setup)
	}
	for i := range c.Ways {
		if o := &c.Ways[i]; o.Box > 0 {
			fmt.Fprintf(w, "The black box of %s is a file of %d KiB, mapped and held in memory where that is allowed: it counts among the files.\n", o.Name, o.Box>>10)
		}
	}
	_, err := fmt.Fprintln(w, "A new one is within 10 s of its start, in which a guard looks more often.")
	return err
}

// text prints an interval.
func (iv interval) text(unit string) string {
	s := fmt.Sprintf("%+.3f", iv.Typical)
	if iv.Low != nil {
		s += fmt.Sprintf(" [%+.3f, %+.3f]", *iv.Low, *iv.High)
	}
	return s + " " + unit
}
