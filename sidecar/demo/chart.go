// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"math"
	"strings"
)

const (
	columns = 66
	rows    = 6
)

// blocks are a column's last row, in eighths.
var blocks = []rune(" ▁▂▃▄▅▆▇█")

// chart draws the memory of a life over time: the limit is the top, and where a
// process died the column is crossed.
func (o *Outcome) chart(s *story, name string, l *Life) {
	column := func(second float64) int {
		return max(0, min(int(second/o.Seconds*columns), columns-1))
	}
	var heights [columns]float64 // share of the limit, the highest in the column
	filled := 0
	for _, p := range l.Points {
		c := column(p.Second)
		for ; filled < c; filled++ { // columns between two points
			if heights[filled] == 0 && filled > 0 {
				heights[filled] = heights[filled-1]
			}
		}
		heights[c] = max(heights[c], float64(p.Usage)/float64(o.Limit))
	}
	var died [columns]bool
	for _, d := range l.Deaths {
		died[column(d.Second)] = true
	}
	for r := rows; r >= 1; r-- {
		label := ""
		switch r {
		case rows:
			label = mib(o.Limit)
		case rows / 2:
			label = name
		}
		fmt.Fprintf(s, "  %9s ┤", label)
		line := make([]rune, columns)
		for c, h := range heights {
			eighths := max(0, min(8, int(math.Round((h*rows-float64(r-1))*8))))
			line[c] = blocks[eighths]
			switch {
			case r == rows && died[c]:
				line[c] = '✗'
			case r == rows && eighths == 0:
				line[c] = '·'
			}
		}
		s.say("%s", strings.TrimRight(string(line), " "))
	}
	s.say("  %9s └%s", "0", strings.Repeat("─", columns))
}

// loadLine draws the load over the same time.
func (o *Outcome) loadLine(s *story) {
	line := make([]rune, columns)
	for c := range line {
		share := rate((float64(c)+0.5)/columns*o.Seconds) / burstRate
		line[c] = blocks[max(1, int(math.Round(share*8)))]
	}
	s.say("  %9s  %s", "orders", string(line))
	end := fmt.Sprintf("%.0f s", o.Seconds)
	s.say("  %9s  0%*s", fmt.Sprintf("%.0f/s", burstRate), columns-1, end)
}
