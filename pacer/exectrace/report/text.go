// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/memguard/memguard-go/pacer/exectrace"
)

// TextOptions say what the terminal can do. The zero value is good for a file.
type TextOptions struct {
	Width int  // columns; 100 if not positive, at least 60
	Color bool // use ANSI colours
}

// Text writes the report for a terminal, the verdict first.
func Text(w io.Writer, r *exectrace.Report, o TextOptions) error {
	if o.Width <= 0 {
		o.Width = 100
	}
	t := &text{Writer: bufio.NewWriter(w), r: r, width: min(max(o.Width, 60), 240), color: o.Color}
	t.head()
	t.findings()
	t.timeline()
	t.phases()
	t.pauses()
	t.cpu()
	t.assists()
	t.cycles()
	t.unknown()
	return t.Flush()
}

type text struct {
	*bufio.Writer
	r     *exectrace.Report
	width int
	color bool
}

// ANSI colours, by what they mean here.
const (
	bold     = "1"
	dim      = "2"
	red      = "31"
	yellow   = "33"
	green    = "32"
	markHue  = "34"
	payHue   = "33"
	sweepHue = "36"
	scavHue  = "35"
)

func (t *text) paint(hue, s string) string {
	if !t.color || s == "" {
		return s
	}
	return "\x1b[" + hue + "m" + s + "\x1b[0m"
}

func (t *text) title(s string, args ...any) {
	fmt.Fprintf(t, "\n%s\n", t.paint(bold, fmt.Sprintf(s, args...)))
}

// wrap breaks prose into lines, each indented as far as the first.
func (t *text) wrap(first, s string) {
	for _, line := range t.lines(first, s) {
		fmt.Fprintln(t, line)
	}
}

func (t *text) lines(first, s string) (lines []string) {
	line, indent := first, strings.Repeat(" ", len([]rune(first)))
	for _, word := range strings.Fields(s) {
		if line != first && line != indent {
			if len([]rune(line))+1+len([]rune(word)) > t.width {
				lines = append(lines, line)
				line = indent
			} else {
				line += " "
			}
		}
		line += word
	}
	return append(lines, line)
}

func (t *text) head() {
	r := t.r
	hue := map[string]string{"good": green, "warning": yellow, "critical": red}[grave(r)]
	for _, line := range t.lines("", clean(r.Verdict, 1000)) {
		fmt.Fprintln(t, t.paint(bold+";"+hue, line))
	}
	procs := "?"
	if n, ok := r.Procs.Value(); ok {
		procs = fmt.Sprint(n)
	}
	fmt.Fprintln(t, t.paint(dim, fmt.Sprintf("%s trace, %d events, %.1f MB, GOMAXPROCS %s", clean(r.Format, 20), r.Events, float64(r.Bytes)/1e6, procs)))
	if r.Broken != nil {
		fmt.Fprintln(t)
		t.wrap("", brokenNote(r.Broken))
	}
}

func (t *text) findings() {
	if len(t.r.Findings) == 0 {
		return
	}
	t.title("Findings")
	for _, f := range t.r.Findings {
		hue := yellow
		if f.Severity == exectrace.Critical {
			hue = red
		}
		fmt.Fprintf(t, "  %s  %s\n", t.paint(bold+";"+hue, fmt.Sprintf("%-13s", f.ID)), clean(f.Summary, 300))
		for _, e := range f.Evidence {
			t.wrap("                 ", clean(e, 300))
		}
		t.wrap("               → ", f.Remedy)
	}
}

// table lines up cells that the callback writes, separated by tabs.
func (t *text) table(rows func(w io.Writer)) {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	rows(tw)
	tw.Flush()
	first := true
	for line := range strings.Lines(b.String()) {
		line = strings.TrimRight(line, " \n")
		if cells := []rune(line); len(cells) > t.width {
			line = string(cells[:t.width-1]) + "…"
		}
		if first {
			line, first = t.paint(dim, line), false
		}
		fmt.Fprintln(t, line)
	}
}

func (t *text) phases() {
	r := t.r
	t.title("Phases")
	var parts []string
	for p, d := range r.Phases {
		parts = append(parts, fmt.Sprintf("%s %s (%s)", exectrace.Phase(p), percent(d, r.Span), dur(d)))
	}
	t.wrap("  ", strings.Join(parts, " · "))
}

func (t *text) pauses() {
	r := t.r
	t.title("The world stopped")
	if len(r.Reasons) == 0 {
		fmt.Fprintln(t, "  never")
		return
	}
	t.table(func(w io.Writer) {
		fmt.Fprintln(w, "\tcount\ttotal\tmean\tlongest\t   why")
		for _, s := range r.Reasons {
			cut := ""
			if s.Cut > 0 {
				cut = fmt.Sprintf(" (and %d without an end)", s.Cut)
			}
			fmt.Fprintf(w, "\t%d\t%s\t%s\t%s\t   %s%s\n", s.Count, dur(s.Total), mean(&s), dur(s.Max), clean(s.Name, 60), cut)
		}
	})
}

func (t *text) cpu() {
	c := &t.r.CPU
	available, ok := c.Available.Value()
	if !ok || available <= 0 {
		return
	}
	t.title("GC on the CPUs, of %s available", dur(available))
	for _, row := range []struct {
		name, hue, note string
		d               time.Duration
	}{
		{"dedicated workers", markHue, "", c.Dedicated},
		{"fractional workers", markHue, "", c.Fractional},
		{"idle workers", markHue, "nothing else wanted the P", c.Idle},
		{"mark assists", payHue, "paid by goroutines that allocate", c.Assist},
		{"background sweeper", sweepHue, "", c.Sweeper},
		{"sweeping on demand", sweepHue, "paid by goroutines that allocate", c.Sweeping},
		{"background scavenger", scavHue, "", c.Scavenger},
	} {
		const full = 18
		n := int(float64(row.d)/float64(available)*full + 0.5)
		bar := strings.Repeat("█", min(max(n, 0), full))
		if n == 0 && row.d > 0 {
			bar = "▏"
		}
		note := row.note
		if note != "" && row.d == 0 {
			note = ""
		}
		pad := strings.Repeat(" ", full-len([]rune(bar)))
		if t.width < 96 {
			note = ""
		}
		line := fmt.Sprintf("  %-21s %8s %8s  %s%s %s", row.name, dur(row.d), percent(row.d, available), t.paint(row.hue, bar), pad, t.paint(dim, note))
		fmt.Fprintln(t, strings.TrimRight(line, " "))
	}
}

func (t *text) assists() {
	a := &t.r.Assists
	if a.Count == 0 {
		return
	}
	t.title("Who pays: %d mark assists held goroutines up for %s", a.Count, dur(a.Wall))
	payers := func(what string, ps []exectrace.Payer, most int) {
		t.table(func(w io.Writer) {
			fmt.Fprintf(w, "\tshare\theld up\tof it marking\tassists\t   %s\n", what)
			for i := range ps {
				p := &ps[i]
				name := p.Name
				if p.Goroutine != 0 {
					name = fmt.Sprintf("%d %s", p.Goroutine, p.Name)
				}
				if i >= most {
					rest := exectrace.Payer{}
					for _, q := range ps[i:] {
						rest.Count, rest.Wall, rest.CPU = rest.Count+q.Count, rest.Wall+q.Wall, rest.CPU+q.CPU
					}
					fmt.Fprintf(w, "\t%s\t%s\t%s\t%d\t   (all others)\n", percent(rest.Wall, a.Wall), dur(rest.Wall), dur(rest.CPU), rest.Count)
					break
				}
				at := where(p)
				if at != "" {
					at = " " + at
				}
				fmt.Fprintf(w, "\t%s\t%s\t%s\t%d\t   %s%s\n", percent(p.Wall, a.Wall), dur(p.Wall), dur(p.CPU), p.Count, clean(name, 60), clean(at, 60))
			}
		})
	}
	payers("by stack", a.Stacks, 8)
	fmt.Fprintln(t)
	payers("by goroutine", a.Goroutines, 5)
}

const textCycles = 16

func (t *text) cycles() {
	r := t.r
	if r.CycleCount == 0 {
		return
	}
	cs := cycles(r, textCycles)
	if uint64(len(cs)) < r.CycleCount {
		t.title("Cycles: the %d of %d that marked longest", len(cs), r.CycleCount)
	} else {
		t.title("Cycles")
	}
	t.table(func(w io.Writer) {
		fmt.Fprintln(w, "\t#\tat\tsweep term\tmark\tmark term\tpeak\tlive\tgoal\tpeak/goal\t   trigger")
		for i := range cs {
			c := &cs[i]
			by := ""
			if c.By != "" {
				by = " by " + clean(c.By, 40)
			}
			fmt.Fprintf(w, "\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t   %s%s\n", c.N, optDur(c.Start),
				optDur(c.SweepTermination), optDur(c.Mark), optDur(c.MarkStop),
				optBytes(c.HeapEnd), optBytes(c.Marked), optBytes(c.Goal), overshoot(c), clean(c.Trigger, 20), by)
		}
	})
}

func (t *text) unknown() {
	u := t.r.Unknown
	if len(u) == 0 {
		return
	}
	t.title("Not known to this version")
	names := slices.SortedFunc(maps.Keys(u), func(a, b string) int { return cmp.Or(cmp.Compare(u[b], u[a]), cmp.Compare(a, b)) })
	for i, name := range names {
		if i == 10 {
			fmt.Fprintf(t, "  and %d more\n", len(names)-i)
			break
		}
		fmt.Fprintf(t, "  %d × %s\n", u[name], clean(name, 100))
	}
}
