// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// cell is one field of a table for people.
type cell struct {
	text  string
	right bool   // aligned
	color string // ANSI sequence; empty for none
}

const (
	red   = "\x1b[31m"
	green = "\x1b[32m"
	bold  = "\x1b[1m"
	reset = "\x1b[0m"
)

// writeCells writes rows with columns of one width; a column without any text is
// left out.
func writeCells(b *strings.Builder, rows [][]cell, color bool) {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for i := range widths { // a header alone is no column
		if !slices.ContainsFunc(rows[1:], func(row []cell) bool { return i < len(row) && row[i].text != "" }) {
			widths[i] = 0
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			if widths[i] == 0 {
				continue
			}
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
			text := c.text
			if color && c.color != "" {
				text = c.color + text + reset
			}
			if c.right {
				text = pad + text
			} else {
				text += pad
			}
			line.WriteString("  " + text)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// writeTable tells what came out, one block for each scenario.
func (r *Results) writeTable(w io.Writer, width int, color bool) error {
	var b strings.Builder
	all := r.summaries()
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].scenario.Name == all[0].scenario.Name {
			n++
		}
		writeBlock(&b, all[:n], color)
		all = all[n:]
	}
	wrap(&b, "* is the most work among those that died least, or as good as that. "+r.remarks()+" "+r.system(), 0, width)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeBlock tells of one scenario.
func writeBlock(b *strings.Builder, group []*summary, color bool) {
	name := group[0].scenario.Name
	if color {
		name = bold + name + reset
	}
	fmt.Fprintf(b, "%s  %s\n", name, group[0].frame())
	head := []cell{{text: "GUARD"}, {text: "OUTCOME"}, {text: "WORK/s", right: true}, {text: "SPREAD", right: true},
		{text: "p50", right: true}, {text: "p99", right: true}, {text: "REFUSED", right: true}, {text: "WORK/CPU s", right: true}, {text: "CAUSE NAMED"}}
	rows := [][]cell{head}
	best := bestOf(group)
	for _, s := range group {
		c := green
		if s.dead() > 0 || len(s.runs) == 0 {
			c = red
		}
		row := []cell{{text: s.guard}, {text: s.odds(), color: c}}
		for _, f := range s.figures() {
			row = append(row, cell{text: f.text, right: true})
		}
		if best[s] && len(group) > 1 {
			row[2].text, row[2].color = "* "+row[2].text, bold
		}
		rows = append(rows, append(row, cell{text: s.named()}))
	}
	writeCells(b, rows, color)
	for _, s := range group {
		for _, f := range s.failed {
			fmt.Fprintf(b, "  %s, repeat %d failed: %s\n", s.guard, f.Repeat, f.Error)
		}
	}
	b.WriteByte('\n')
}

// frame is what was asked for: limit, length, and whether it can be survived.
func (s *summary) frame() string {
	runs := append(slices.Clone(s.runs), s.failed...)
	text := fmt.Sprintf("%d MiB, %.0f s", runs[0].Limit>>20, runs[0].Planned)
	if s.scenario.Survivable {
		return text + ", it could live"
	}
	return text + ", nothing can save it"
}

// figure is one number of a summary, for people.
type figure struct {
	name string
	text string // empty: there is none
}

// figures are the columns between outcome and cause.
func (s *summary) figures() []figure {
	g := of(s.runs, goodput)
	fs := []figure{{"work/s", number(g)}, {"spread", g.ends()}}
	for _, l := range []struct {
		name string
		of   func(*Tally) Seconds
	}{{"p50", func(t *Tally) Seconds { return t.P50 }}, {"p99", func(t *Tally) Seconds { return t.P99 }}} {
		d := of(s.runs, func(r *Result) (float64, bool) { return r.latency(l.of) })
		fs = append(fs, figure{l.name, milliseconds(d)})
	}
	refused := of(s.runs, func(r *Result) (float64, bool) { return float64(r.Refused), r.Refused > 0 })
	cpu := of(s.runs, func(r *Result) (float64, bool) { return r.perCPU() })
	return append(fs, figure{"refused", number(refused)}, figure{"work/cpu s", number(cpu)})
}

func number(s spread) string {
	switch {
	case s.n == 0:
		return ""
	case s.mid < 10:
		return fmt.Sprintf("%.2g", s.mid)
	}
	return fmt.Sprintf("%.0f", s.mid)
}

func milliseconds(s spread) string {
	switch {
	case s.n == 0:
		return ""
	case s.mid < 0.01:
		return fmt.Sprintf("%.1f ms", 1000*s.mid)
	}
	return fmt.Sprintf("%.0f ms", 1000*s.mid)
}

// ends is how far the repeats lie from the middle one.
func (s spread) ends() string {
	if s.n < 2 || s.mid == 0 {
		return ""
	}
	return fmt.Sprintf("±%.0f %%", 100*max(s.high-s.mid, s.mid-s.low)/s.mid)
}

// alike is how far a middle may lie below the best and still count as its equal.
const alike = 0.95

// bestOf returns those that did most work among those that died in the smallest
// share of the repeats: the first of them, and who cannot be told from it,
// because the middles are close or the ranges overlap.
func bestOf(group []*summary) map[*summary]bool {
	var first *summary
	deadShare := func(s *summary) float64 { return float64(s.dead()) / float64(len(s.runs)) }
	work := func(s *summary) spread { return of(s.runs, goodput) }
	for _, s := range group {
		if len(s.runs) == 0 {
			continue
		}
		if first == nil || deadShare(s) < deadShare(first) || deadShare(s) == deadShare(first) && work(s).mid > work(first).mid {
			first = s
		}
	}
	best := map[*summary]bool{}
	for _, s := range group {
		if len(s.runs) == 0 || deadShare(s) > deadShare(first) {
			continue
		}
		a, b := work(first), work(s)
		best[s] = b.mid > 0 && (b.mid >= alike*a.mid || a.n > 1 && b.n > 1 && b.high >= a.low)
	}
	return best
}

// remarks says how far the figures can be trusted.
func (r *Results) remarks() string {
	var tosses []string
	repeated := 0
	for _, s := range r.summaries() {
		if len(s.runs) > 1 {
			repeated++
		}
		if s.toss() {
			tosses = append(tosses, s.scenario.Name+" under "+s.guard)
		}
	}
	var text []string
	switch {
	case len(r.Results) == 0:
		text = append(text, "No run came to its end.")
	case repeated == 0:
		text = append(text, "Nothing was repeated: an outcome here may be a coin toss.")
	case len(tosses) == 0:
		text = append(text, fmt.Sprintf("Repeats agree on the outcome in all %d cases.", repeated))
	default:
		text = append(text, fmt.Sprintf("Repeats agree on the outcome in %d of %d cases; coin tosses: %s.", repeated-len(tosses), repeated, strings.Join(tosses, ", ")))
	}
	if r.Cut != "" {
		text = append(text, "Cut short: "+r.Cut+".")
	}
	return strings.Join(text, " ")
}

// system is what the runs were made on.
func (i *Index) system() string {
	return fmt.Sprintf("%s, %s, kernel %s, %d CPUs.", i.Go, i.OS, i.Kernel, i.CPUs)
}
