// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progress tells a person what goes on: on a terminal a line that changes and
// one for each run that is over, elsewhere the latter alone.
type progress struct {
	w     io.Writer
	live  bool
	of    int
	n     int
	bout  *bout
	left  time.Duration // when bout began
	width int
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, live: isTerminal(w)}
	p.width, _ = terminal(w)
	return p
}

func (p *progress) begin(n, of int, b *bout, left time.Duration) {
	p.n, p.of, p.bout, p.left = n, of, b, left
	p.show(moment{})
}

func (p *progress) show(m moment) {
	if !p.live {
		return
	}
	b := p.bout
	left := max(p.left-m.elapsed, 0).Round(time.Second)
	share := min(float64(m.usage)/float64(b.limit), 1)
	line := fmt.Sprintf("[%d/%d] %s under %s %3.0f s  %s %3d of %d MiB  %d done  kills %d  left %s",
		p.n, p.of, b.scenario.Name, b.guard.Name, m.elapsed.Seconds(), bar(share, 20), m.usage>>20, b.limit>>20, m.done, m.kills, left)
	fmt.Fprintf(p.w, "\r%s\x1b[K", cut(line, p.width-1))
}

func (p *progress) end(r *Result) {
	p.clear()
	fmt.Fprintf(p.w, "[%*d/%d] %-22s %-14s %s\n", len(fmt.Sprint(p.of)), p.n, p.of, r.Scenario, r.Guard, r.story())
}

// clear removes the line that changes.
func (p *progress) clear() {
	if p.live {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// story is a result in one line.
func (r *Result) story() string {
	if r.Outcome == Failed {
		return "FAILED: " + r.Error
	}
	var b strings.Builder
	switch {
	case r.Outcome == Alive:
		b.WriteString("alive")
	default:
		d := r.Deaths
		b.WriteString(string(r.Outcome))
		if len(d) > 0 {
			fmt.Fprintf(&b, " at %.1f s", d[0].At)
			if d[0].Who != victimPart {
				b.WriteString(" (" + d[0].Who + ")")
			}
			if len(d) > 1 {
				fmt.Fprintf(&b, ", %d times", len(d))
			}
			if !d[0].Kernel {
				b.WriteString(", " + d[0].How)
			}
		}
	}
	fmt.Fprintf(&b, ", %.0f/s", r.Goodput)
	if r.Refused > 0 {
		fmt.Fprintf(&b, ", %d refused", r.Refused)
	}
	return b.String()
}

// bar draws a share of the whole.
func bar(share float64, columns int) string {
	n := int(share * float64(columns))
	return strings.Repeat("█", n) + strings.Repeat("░", columns-n)
}

// cut shortens s to so many columns.
func cut(s string, columns int) string {
	if r := []rune(s); len(r) > columns {
		return string(r[:max(columns-1, 0)]) + "…"
	}
	return s
}
