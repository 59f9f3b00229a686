// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/memguard/memguard-go/memguard"
)

// Tell writes what happened: the verdict first, then the evidence.
func (o *Outcome) Tell(w io.Writer, t memguard.Text) error {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }

	say("WHAT HAPPENED\n  %s", o.verdict())
	say("\nMEMORY AGAINST THE LIMIT")
	b.WriteString(o.chart(64, 8))
	if len(o.Growth) > 0 {
		say("\nWHAT GREW, FROM THE FIRST REPORT TO THE LAST")
		for i, g := range o.Growth {
			if d := g.To - g.From; i < 5 && d > 1<<20 {
				say("  %-16s %+8.1f MiB   (%.1f -> %.1f)", g.Row, mib(d), mib(g.From), mib(g.To))
			}
		}
	}
	if len(o.Warned) > 0 {
		say("\nWHAT WAS SAID BEFORE IT DIED")
		for _, f := range o.Warned {
			say("  %5.1f s before  %-8s %s: %s", o.Seconds-f.Second, f.Severity, f.ID, f.Summary)
		}
	}
	if o.Before != nil {
		say("\nTHE SERVICE'S LAST OWN REPORT, %.1f s BEFORE", o.Seconds-o.lastLook())
		if err := t.Ledger(&b, o.Before.Ledger); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// verdict says in a sentence or two how it died and of what.
func (o *Outcome) verdict() string {
	v := fmt.Sprintf("The service lived for %.1f s and answered %d orders (%d failed). ", o.Seconds, o.Answered, o.Failed)
	kills, counted := o.OOMKills.Get()
	switch {
	case counted && kills > 0:
		v += fmt.Sprintf("Then the kernel killed it at its limit of %d MiB: oom_kill %d, exit %q.", o.Limit>>20, kills, o.Exit)
	case !counted && o.Killed:
		v += fmt.Sprintf("Then it passed %d MiB and was killed by this demo in the kernel's place: exit %q.", o.Limit>>20, o.Exit)
	default:
		return v + fmt.Sprintf("It ended by itself, not at its limit: exit %q.", o.Exit)
	}
	if len(o.Growth) > 0 {
		g := o.Growth[0]
		v += fmt.Sprintf("\n  %s had grown by %.0f MiB to %.0f MiB", g.Row, mib(g.To-g.From), mib(g.To))
		if g.Row == memguard.RowLive {
			v += ": objects that something still points to. A leak, not a burst"
		}
		v += "."
	}
	return v
}

func (o *Outcome) lastLook() float64 {
	if len(o.Points) == 0 {
		return math.NaN()
	}
	return o.Points[len(o.Points)-1].Second
}

// chart draws usage over time, the limit on top and the death at the end.
func (o *Outcome) chart(columns, rows int) string {
	if len(o.Points) == 0 || o.Seconds <= 0 {
		return "  nothing was seen\n"
	}
	heights := make([]float64, columns) // share of the limit, highest in the column
	for _, p := range o.Points {
		c := min(int(p.Second/o.Seconds*float64(columns)), columns-1)
		heights[c] = max(heights[c], float64(p.Usage)/float64(o.Limit))
	}
	for c := 1; c < columns; c++ { // columns between two looks
		if heights[c] == 0 {
			heights[c] = heights[c-1]
		}
	}
	var b strings.Builder
	for r := rows; r >= 1; r-- {
		label := ""
		if r == rows {
			label = fmt.Sprintf("%d MiB", o.Limit>>20)
		}
		fmt.Fprintf(&b, "  %8s ┤", label)
		for c, h := range heights {
			eighths := int(math.Round((h*float64(rows) - float64(r-1)) * 8))
			switch {
			case r == rows && c == columns-1:
				b.WriteString("✗")
			case eighths >= 8:
				b.WriteString("█")
			case eighths > 0:
				b.WriteRune([]rune(" ▁▂▃▄▅▆▇")[eighths])
			case r == rows:
				b.WriteString("·")
			default:
				b.WriteString(" ")
			}
		}
		b.WriteString("\n")
	}
	end := fmt.Sprintf("%.0f s", o.Seconds)
	fmt.Fprintf(&b, "  %8s └%s\n  %8s  0%*s\n", "0", strings.Repeat("─", columns), "", columns-1, end)
	return b.String()
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
