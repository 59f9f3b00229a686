// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Colours, as ANSI escapes. The text says the same without them.
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	dim    = "\x1b[2m"
	bold   = "\x1b[1m"
	plain  = "\x1b[0m"
)

var severityColor = map[Severity]string{Critical: red, Warning: yellow, Info: green}

// text lays out a report. It collects everything before anything is written.
type text struct {
	bytes.Buffer
	width int
	color bool
}

// WriteText writes the report for people: the verdict, the numbers, the heap
// over time, the findings, and what could not be read. Lines are at most width
// columns wide, 80 if width is 0 and never below 60; color adds ANSI escapes.
func (s *Summary) WriteText(w io.Writer, width int, color bool) error {
	if width == 0 {
		width = 80
	}
	t := &text{width: max(width, 60), color: color}
	r := s.Report()
	t.verdict(&r)
	if r.Lines > 0 {
		t.WriteByte('\n')
		t.numbers(&r)
	}
	if len(r.Series) > 1 {
		t.WriteByte('\n')
		t.chart(r.Series)
		if r.Runs > 1 {
			t.WriteString(strings.Repeat(" ", chartMargin+1) + "since the last of " + count(r.Runs-1, "restart") + "\n")
		}
	}
	for _, f := range r.Findings {
		t.WriteByte('\n')
		t.finding(f)
	}
	if r.SyntaxErrors > 0 {
		t.WriteByte('\n')
		t.unread(&r)
	}
	_, err := w.Write(t.Bytes())
	return err
}

func (t *text) paint(color, s string) string {
	if !t.color || s == "" {
		return s
	}
	return color + s + plain
}

// wrap writes s in lines, the first behind head and the others below it. Head
// is width columns wide on the screen.
func (t *text) wrap(head string, width int, s string) {
	t.WriteString(head)
	column := width
	for i, word := range strings.Split(s, " ") {
		n := utf8.RuneCountInString(word)
		if i > 0 {
			if column+1+n > t.width {
				t.WriteString("\n" + strings.Repeat(" ", width))
				column = width
			} else {
				t.WriteByte(' ')
				column++
			}
		}
		t.WriteString(word)
		column += n
	}
	t.WriteByte('\n')
}

func (t *text) verdict(r *Report) {
	label, color := "OK", green
	switch {
	case len(r.Findings) > 0:
		label = strings.ToUpper(string(r.Findings[0].Severity))
		color = severityColor[r.Findings[0].Severity]
	case r.Cycles == 0:
		label, color = "NOTHING TO JUDGE", yellow
	}
	t.wrap(t.paint(bold+color, label)+"  ", len(label)+2, r.Verdict)
	if more := len(r.Findings) - 1; more > 0 {
		t.wrap(strings.Repeat(" ", len(label)+2), len(label)+2, fmt.Sprintf("(and %s, below)", count(more, "more finding")))
	}
}

// row writes one line of the table of numbers, from parts that go together.
// Parts that are empty are unknown and left out.
func (t *text) row(label string, parts ...string) {
	const indent = 15
	head := "  " + t.paint(dim, label) + strings.Repeat(" ", indent-2-len(label))
	var known []string
	for _, part := range parts {
		if part != "" {
			known = append(known, strings.ReplaceAll(part, " ", "\u00a0")) // a part stays on one line
		}
	}
	if len(known) == 0 {
		return
	}
	var line text
	line.width = t.width
	line.wrap(head, indent, strings.Join(known, ", "))
	t.WriteString(strings.ReplaceAll(line.String(), "\u00a0", " "))
}

func (t *text) numbers(r *Report) {
	if r.Cycles > 0 {
		cycles := fmt.Sprintf("%d", r.Cycles)
		if observed, ok := r.Observed.Get(); ok {
			cycles += " in " + span(observed)
		}
		t.row("cycles", cycles,
			known(r.CyclesPerSecond, "%.3g a second"),
			known(r.MostInOneSecond, "%d in the worst second"),
			some(r.Forced, "%d forced"), some(r.Periodic, "%d periodic"), some(r.LeakChecks, "%d leak checks"),
			some(int(min(r.MissingCycles, 1<<31)), "%d missing"), some(r.Runs-1, "%d restarts"))
		cpu, since := "", ""
		if v, ok := r.GCCPU.Get(); ok {
			cpu = fmt.Sprintf("%.1f %% between these cycles", 100*v)
		}
		if v, ok := r.GCCPUSinceStart.Get(); ok {
			since = fmt.Sprintf("%.0f %% since the program's start", 100*v)
		}
		t.row("GC CPU", cpu, since)
		t.pauses("sweep term.", r.SweepTermination)
		t.pauses("mark term.", r.MarkTermination)
		t.heap(r)
	}
	if sc := r.Scavenger; sc != nil {
		util := ""
		if v, ok := sc.Utilization.Get(); ok {
			util = fmt.Sprintf("%.0f %% of the rest in use", 100*v)
		}
		t.row("scavenger", count(r.Scavenges, "line"), some(sc.Forced, "%d forced"), size(sc.Returned)+" returned in all",
			bytesKnown(sc.Released, "%s returned now"), util)
		t.row("retained", atLeast(sc.Retained, "at least %s"), atLeast(sc.Idle, "%s of it not live"),
			atLeast(sc.IdleMost, "%s not live at the worst"))
	}
	t.row("lines", fmt.Sprintf("%d", r.Lines), fmt.Sprintf("%d not the runtime's", r.SkippedLines),
		some(r.SyntaxErrors, "%d torn"), some(r.UnknownTextLines, "%d with new text"),
		some(r.ScanLines, "%d scan"), some(r.PacerLines, "%d pacer"))
}

func (t *text) pauses(label string, p *Pauses) {
	t.row(label, "p50 "+pause(p.P50), "p90 "+pause(p.P90), "p99 "+pause(p.P99), "max "+pause(p.Max),
		fmt.Sprintf("%d over 500 µs", p.Over500us))
}

func (t *text) heap(r *Report) {
	goal := "no goal"
	if v, ok := r.Heap.Goal.Get(); ok {
		goal = "goal " + size(v)
	}
	growth := ""
	if v, ok := r.Heap.Growth.Get(); ok && r.Observed.v >= 10 {
		switch perMinute := 60 * v; {
		case perMinute >= mib:
			growth = "growing " + size(uint64(perMinute)) + " a minute"
		case perMinute <= -mib:
			growth = "shrinking " + size(uint64(-perMinute)) + " a minute"
		default:
			growth = "steady"
		}
	}
	live := "live " + size(r.Heap.Live)
	if r.Heap.Live == 0 {
		live = "live below 1 MiB"
	}
	t.row("heap", live, "peak "+size(r.Heap.Peak), goal, growth,
		known(r.InferredGOGC, "GOGC about %d"),
		some(r.Overshoots.v, "%d over the goal"), some(r.HiddenOvershoots.v, "%d over it unseen"))
}

func (t *text) finding(f Finding) {
	t.WriteString(t.paint(bold+severityColor[f.Severity], f.ID) + "  " + t.paint(dim, string(f.Severity)) + "\n")
	t.wrap("  ", 2, f.Summary)
	var evidence []string
	for _, e := range f.Evidence {
		evidence = append(evidence, e.text())
	}
	t.row("evidence", evidence...)
	const label = "  do           "
	t.wrap("  "+t.paint(dim, "do")+label[4:], len(label), f.Remedy)
}

// text renders a number in the unit that its name ends in.
func (e Evidence) text() string {
	for _, unit := range []struct {
		suffix string
		format func(float64) string
	}{
		{"_bytes_per_second", func(v float64) string { return size(uint64(max(60*v, 0))) + " a minute" }},
		{"_bytes", func(v float64) string { return size(uint64(min(max(v, 0), 1<<63))) }},
		{"_seconds", func(v float64) string {
			if v < 1 {
				return pause(v)
			}
			return span(v)
		}},
		{"_ratio", func(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }},
	} {
		if name, ok := strings.CutSuffix(e.Name, unit.suffix); ok {
			return strings.ReplaceAll(name, "_", " ") + " " + unit.format(e.Value)
		}
	}
	return fmt.Sprintf("%s %.4g", strings.ReplaceAll(e.Name, "_", " "), e.Value)
}

func (t *text) unread(r *Report) {
	t.WriteString(t.paint(bold, "not read") + "  " + count(r.SyntaxErrors, "torn line") + "\n")
	for _, e := range r.FirstSyntaxErrors {
		line := []rune(fmt.Sprintf("  %6d  %q", e.Line, e.Text))
		if len(line) > t.width {
			line = append(line[:t.width-1], '…')
		}
		t.WriteString(string(line) + "\n")
	}
	if more := r.SyntaxErrors - len(r.FirstSyntaxErrors); more > 0 {
		fmt.Fprintf(t, "          and %d more\n", more)
	}
}

// count returns n things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// some formats n, or returns nothing if there are none.
func some(n int, format string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(format, n)
}

func known[T int | int64 | uint64 | float64](v Opt[T], format string) string {
	if !v.ok {
		return ""
	}
	return fmt.Sprintf(format, v.v)
}

// atLeast formats a lower bound, or nothing if it says nothing.
func atLeast(v Opt[uint64], format string) string {
	if v.v == 0 {
		return ""
	}
	return bytesKnown(v, format)
}

func bytesKnown(v Opt[uint64], format string) string {
	if !v.ok {
		return ""
	}
	return fmt.Sprintf(format, size(v.v))
}

// size renders bytes.
func size(n uint64) string {
	switch {
	case n >= Unbounded:
		return "unbounded"
	case n >= 10<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= mib:
		return fmt.Sprintf("%d MiB", n/mib)
	case n >= kib:
		return fmt.Sprintf("%d KiB", n/kib)
	}
	return fmt.Sprintf("%d", n)
}

// pause renders a short time, given in seconds.
func pause(seconds float64) string {
	switch us := seconds * 1e6; {
	case us >= 1e6:
		return fmt.Sprintf("%.3g s", seconds)
	case us >= 1e3:
		return fmt.Sprintf("%.3g ms", us/1e3)
	default:
		return fmt.Sprintf("%.0f µs", us)
	}
}

// span renders a long time, given in seconds.
func span(seconds float64) string {
	if seconds < 10 {
		return fmt.Sprintf("%.3g s", seconds)
	}
	if seconds > 1e9 {
		return fmt.Sprintf("%.3g s", seconds)
	}
	return time.Duration(seconds * 1e9).Round(time.Second).String()
}
