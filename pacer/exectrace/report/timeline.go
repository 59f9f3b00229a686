// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/memguard/memguard-go/pacer/exectrace"
)

// column is what a terminal column of the timeline stands for.
type column struct {
	phases exectrace.PhaseTimes
	stop   time.Duration // the longest
	heap   uint64        // the highest
	goal   uint64
	known  bool // heap
	bound  bool // goal
}

// columns spreads a report over n columns.
func columns(r *exectrace.Report, n int) []column {
	cols := make([]column, n)
	if r.Span <= 0 {
		return cols
	}
	at := func(d time.Duration) int {
		return min(max(int(float64(d)/float64(r.Span)*float64(n)), 0), n-1)
	}
	width := float64(r.Span) / float64(n)
	for i := range r.Timeline {
		s := &r.Timeline[i]
		for c := at(s.Start); c <= at(s.End); c++ {
			begin, end := max(float64(s.Start), float64(c)*width), min(float64(s.End), float64(c+1)*width)
			part := (end - begin) / float64(s.End-s.Start)
			for p, d := range s.Time {
				cols[c].phases[p] += time.Duration(max(part, 0) * float64(d))
			}
		}
	}
	for _, p := range r.Pauses {
		c := &cols[at(p.Start)]
		c.stop = max(c.stop, p.Length)
	}
	for _, p := range r.Heap.Points {
		c := &cols[at(p.At)]
		if v, ok := p.Max.Value(); ok {
			c.heap, c.known = max(c.heap, v), true
		}
		if v, ok := p.Goal.Value(); ok {
			c.goal, c.bound = v, true
		}
	}
	// What was not reported has not changed.
	var heap, goal uint64
	var known, bound bool
	last := 0
	for i := range cols {
		c := &cols[i]
		if !c.known {
			c.heap, c.known = heap, known
		}
		if !c.bound {
			c.goal, c.bound = goal, bound
		}
		for ; last < len(r.Heap.Points) && at(r.Heap.Points[last].At) <= i; last++ {
			if v, ok := r.Heap.Points[last].Last.Value(); ok {
				heap, known = v, true
			}
		}
		goal, bound = c.goal, c.bound
	}
	return cols
}

const heapRows = 7

// timeline draws phases, stops, and heap against goal over time.
func (t *text) timeline() {
	r := t.r
	const left = 12 // of the axis
	n := t.width - left - 1
	if r.Span <= 0 {
		return
	}
	cols := columns(r, n)
	t.title("Timeline, %s a column", dur(r.Span/time.Duration(n)))

	shades := []rune(" ░▒▓█")
	for _, row := range []struct {
		name, hue string
		phase     exectrace.Phase
	}{
		{"mark", markHue, exectrace.Mark}, {"assists", payHue, exectrace.MarkAssist},
		{"sweep", sweepHue, exectrace.Sweep}, {"scavenge", scavHue, exectrace.Scavenge},
	} {
		var b strings.Builder
		for i := range cols {
			sum := cols[i].phases.Sum()
			d := cols[i].phases[row.phase]
			switch {
			case d <= 0 || sum <= 0:
				b.WriteRune(' ')
			default:
				b.WriteRune(shades[min(1+int(4*float64(d)/float64(sum)), 4)])
			}
		}
		t.row(row.name, t.paint(row.hue, strings.TrimRight(b.String(), " ")))
	}
	var b strings.Builder
	for i := range cols {
		switch d := cols[i].stop; {
		case d == 0:
			b.WriteByte(' ')
		case d < 100*time.Microsecond:
			b.WriteRune('·')
		case d < 500*time.Microsecond:
			b.WriteRune('▪')
		default:
			b.WriteRune('█')
		}
	}
	t.row("stops", t.paint(red, strings.TrimRight(b.String(), " "))+t.paint(dim, stopKey(b.String(), n)))

	t.heap(cols)
	axis := []rune(strings.Repeat("─", n))
	for _, k := range []int{0, n / 4, n / 2, 3 * n / 4} {
		axis[k] = '┴'
	}
	fmt.Fprintf(t, "%*s└%s\n", left-1, "", t.paint(dim, string(axis)))
	labels := []rune(strings.Repeat(" ", n))
	for _, q := range []int{0, 1, 2, 3} {
		copy(labels[q*n/4:], []rune(dur(r.Span*time.Duration(q)/4)))
	}
	fmt.Fprintf(t, "%*s%s\n", left, "", t.paint(dim, strings.TrimRight(string(labels), " ")))
}

// stopKey explains the marks, where there is room after the last of them.
func stopKey(marks string, n int) string {
	const key = "  · <100 µs ▪ <500 µs █ more"
	if len([]rune(strings.TrimRight(marks, " ")))+len([]rune(key)) > n {
		return ""
	}
	return key
}

func (t *text) row(name, cells string) {
	fmt.Fprintln(t, strings.TrimRight(fmt.Sprintf("  %-8s │%s", name, cells), " "))
}

// heap draws the live heap as bars and the goal as a line.
func (t *text) heap(cols []column) {
	var top uint64
	for i := range cols {
		if cols[i].known {
			top = max(top, cols[i].heap)
		}
	}
	for i := range cols {
		// A goal far above the heap, an idle one, is cut off rather than
		// pressing the heap flat.
		if cols[i].bound && cols[i].goal <= 2*top {
			top = max(top, cols[i].goal)
		}
	}
	if top == 0 {
		return
	}
	eighths := []rune(" ▁▂▃▄▅▆▇█")
	level := func(v uint64) int { return int(float64(v)/float64(top)*heapRows*8 + 0.5) }
	for row := heapRows - 1; row >= 0; row-- {
		label := ""
		switch row {
		case heapRows - 1:
			label = bytes(top)
		case heapRows / 2:
			label = bytes(uint64(float64(top) * (heapRows/2 + 0.5) / heapRows))
		case 0:
			label = "0 B"
		}
		var b strings.Builder
		run, hue := strings.Builder{}, ""
		put := func(c rune, h string) {
			if h != hue {
				b.WriteString(t.paint(hue, run.String()))
				run.Reset()
				hue = h
			}
			run.WriteRune(c)
		}
		for i := range cols {
			c := &cols[i]
			fill := 0
			if c.known {
				fill = min(max(level(c.heap)-8*row, 0), 8)
			}
			if g := level(c.goal); c.bound && g > 0 && (g-1)/8 == row {
				put('─', bold)
			} else {
				put(eighths[fill], green)
			}
		}
		b.WriteString(t.paint(hue, run.String()))
		fmt.Fprintln(t, strings.TrimRight(fmt.Sprintf("%10s │%s", label, b.String()), " "))
	}
}
