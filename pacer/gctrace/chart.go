// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"fmt"
	"math"
	"strings"
)

const (
	chartRows   = 10
	chartMargin = 11 // " 1234 MiB ┤" less one
)

// chart draws the heap over time, one column for a slice of it: solid up to
// the live heap, shaded up to the heap at the cycle's start and lightly shaded
// up to its end, with the goal as a line across. Where no cycle ran only the
// live heap is drawn, which stays what it is until the next one.
func (t *text) chart(points []Point) {
	const margin = chartMargin
	columns := t.width - margin - 1
	from, to := points[0].From, points[len(points)-1].To
	if to <= from {
		return
	}
	cells := make([]Point, columns)
	for _, p := range points {
		first := int((p.From - from) / (to - from) * float64(columns-1))
		last := int((p.To - from) / (to - from) * float64(columns-1))
		for i := first; i <= last; i++ {
			if cells[i].Cycles == 0 {
				cells[i] = p
			} else {
				cells[i].merge(p)
			}
		}
	}
	for i := 1; i < columns; i++ {
		if cells[i].Cycles == 0 {
			cells[i].Live = cells[i-1].Live
		}
	}
	top := uint64(1)
	for _, p := range cells {
		top = max(top, p.Start, p.End, p.Live)
	}
	top += top / 20
	for _, p := range cells {
		if goal, ok := p.Goal.Get(); ok && goal < top*3/2 { // a goal far above would squeeze the heap
			top = max(top, goal+goal/20)
		}
	}
	for row := chartRows - 1; row >= 0; row-- {
		low, high := float64(top)*float64(row)/chartRows, float64(top)*float64(row+1)/chartRows
		label := ""
		if row%3 == 0 {
			label = size(uint64(low))
		}
		fmt.Fprintf(t, "%*s %s", margin-1, label, t.paint(dim, axis(row)))
		var line strings.Builder
		color := ""
		for _, p := range cells {
			mark, paint := cell(&p, low, high)
			if t.color && paint != color {
				line.WriteString(plain + paint)
				color = paint
			}
			line.WriteRune(mark)
		}
		text := line.String()
		if t.color {
			text += plain
		} else {
			text = strings.TrimRight(text, " ")
		}
		t.WriteString(text + "\n")
	}
	begin, end := "@"+span(from), "@"+span(to)
	fmt.Fprintf(t, "%*s└%s\n", margin, "", strings.Repeat("─", columns))
	fmt.Fprintf(t, "%*s%s%*s\n", margin+1, "", begin, columns-len(begin), end)
	t.wrap(strings.Repeat(" ", margin+1), margin+1,
		t.paint(green, "█")+"\u00a0live "+t.paint(yellow, "▒")+"\u00a0at\u00a0start "+t.paint(yellow, "░")+"\u00a0at\u00a0end "+t.paint(bold, "─")+"\u00a0goal")
}

func axis(row int) string {
	if row%3 == 0 {
		return "┤"
	}
	return "│"
}

// cell returns what to draw of a column between two sizes.
func cell(p *Point, low, high float64) (mark rune, color string) {
	middle := (low + high) / 2
	if goal, ok := p.Goal.Get(); ok && float64(goal) >= low && float64(goal) < high {
		return '─', bold
	}
	live := float64(p.Live)
	switch {
	case live >= high:
		return '█', green
	case live > low && float64(max(p.Start, p.End)) < middle:
		eighths := math.Floor((live - low) / (high - low) * 8)
		if eighths >= 1 {
			return rune('▁' + int(eighths) - 1), green
		}
		return ' ', ""
	case live >= middle:
		return '█', green
	case float64(p.Start) >= middle:
		return '▒', yellow
	case float64(p.End) >= middle:
		return '░', yellow
	}
	return ' ', ""
}
