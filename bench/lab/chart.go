// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
)

// chart draws the runs of one summary above each other on one axis of time:
// memory against the limit, work done, and the latency of answers.
type chart struct {
	seconds float64 // right end
	limit   uint64
	rate    float64 // top of the work panel
	latency bool    // with a latency panel
}

// Sizes in units of the picture, which a page scales to its column.
const (
	chartWidth = 360
	plotLeft   = 44
	plotRight  = 352
	memoryTop  = 14
	memoryEnd  = 134
	workTop    = 152
	workEnd    = 202
	delayTop   = 220
	delayEnd   = 262
	bins       = 160 // points of a curve
)

// Ends of the latency axis, which is logarithmic.
const (
	fastest = 0.001
	slowest = 2.0
)

type xy struct{ x, y float64 }

// newChart fits the axes to all runs of a scenario, so that guards compare.
func newChart(group []*summary) (c chart) {
	c.latency = group[0].scenario.Load
	for _, s := range group {
		for _, r := range s.runs {
			c.seconds = max(c.seconds, r.Planned)
			c.limit = max(c.limit, r.Limit)
			for _, p := range rates(r) {
				c.rate = max(c.rate, p.y)
			}
		}
	}
	c.rate = roundUp(c.rate)
	return c
}

// roundUp returns the next round number at or above v.
func roundUp(v float64) float64 {
	if v <= 0 {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 1.5, 2, 3, 4, 5, 6, 8} {
		if m*p >= v {
			return m * p
		}
	}
	return 10 * p
}

// rates is the work for each second between two reports.
func rates(r *Result) (points []xy) {
	var last Work
	for _, w := range r.Work {
		if d := w.At - last.At; d > 0.2 && w.Done >= last.Done {
			points = append(points, xy{w.At, float64(w.Done-last.Done) / d})
			last = w
		}
	}
	return points
}

func (c *chart) x(t float64) float64 {
	return plotLeft + (plotRight-plotLeft)*min(max(t/c.seconds, 0), 1)
}

// memoryY leaves room above the limit: a kill happens there.
func (c *chart) memoryY(bytes uint64) float64 {
	return memoryEnd - (memoryEnd-memoryTop)*min(float64(bytes)/(1.05*float64(c.limit)), 1)
}

func (c *chart) workY(rate float64) float64 {
	return workEnd - (workEnd-workTop)*min(rate/c.rate, 1)
}

func delayY(s float64) float64 {
	share := math.Log(min(max(s, fastest), slowest)/fastest) / math.Log(slowest/fastest)
	return delayEnd - (delayEnd-delayTop)*share
}

// draw returns the picture of a summary.
func (c *chart) draw(s *summary) template.HTML {
	var b strings.Builder
	height := workEnd + 16
	if c.latency {
		height = delayEnd + 16
	}
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, chartWidth, height,
		html.EscapeString(fmt.Sprintf("%s under %s: %s. Memory against the limit, and work, over time.", s.scenario.Name, s.guard, s.odds())))
	work := "work/s"
	if c.latency {
		work = "answers/s"
	}
	c.axes(&b, height, work)
	for _, r := range s.runs {
		var usage, held []xy
		apart := false
		for _, u := range r.Memory {
			if u.At > c.seconds {
				break
			}
			usage = append(usage, xy{c.x(u.At), c.memoryY(u.Usage)})
			if u.Held != nil {
				held = append(held, xy{c.x(u.At), c.memoryY(*u.Held)})
				apart = apart || float64(u.Usage)-float64(*u.Held) > 0.02*float64(r.Limit)
			}
		}
		curve(&b, "usage", usage)
		if apart {
			curve(&b, "held", held)
		}
		var done, delay []xy
		for _, p := range rates(r) {
			if p.x <= c.seconds+loadEvery.Seconds() {
				done = append(done, xy{c.x(p.x), c.workY(p.y)})
			}
		}
		curve(&b, "work", done)
		for _, w := range r.Work {
			switch p99, ok := w.P99.Value(); {
			case ok && w.At <= c.seconds+loadEvery.Seconds():
				delay = append(delay, xy{c.x(w.At), delayY(p99)})
			default: // nothing was answered: the curve has a gap
				curve(&b, "delay", delay)
				delay = nil
			}
		}
		if c.latency {
			curve(&b, "delay", delay)
		}
	}
	for _, r := range s.runs {
		for _, d := range r.Deaths {
			c.death(&b, &d, height)
		}
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

func (c *chart) axes(b *strings.Builder, height int, work string) {
	line := func(class string, y float64) {
		fmt.Fprintf(b, `<line class="%s" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`, class, plotLeft, plotRight, y, y)
	}
	label := func(class string, x, y float64, text string) {
		fmt.Fprintf(b, `<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, text)
	}
	line("base", memoryEnd)
	line("limit", c.memoryY(c.limit))
	line("grid", c.memoryY(c.limit/2))
	label("y", plotLeft-4, c.memoryY(c.limit)+3.5, fmt.Sprint(c.limit>>20))
	label("y", plotLeft-4, c.memoryY(c.limit/2)+3.5, fmt.Sprint(c.limit>>21))
	label("y", plotLeft-4, memoryEnd+3.5, "0")
	label("what", plotLeft, memoryTop-4, "memory, MiB")
	line("base", workEnd)
	label("y", plotLeft-4, workTop+3.5, short(c.rate))
	label("y", plotLeft-4, workEnd+3.5, "0")
	label("what", plotLeft, workTop-4, work)
	if c.latency {
		line("base", delayEnd)
		for _, s := range []struct {
			at   float64
			text string
		}{{0.001, "1 ms"}, {0.01, ""}, {0.1, "0.1 s"}, {1, "1 s"}} {
			if s.at > fastest {
				line("grid", delayY(s.at))
			}
			label("y", plotLeft-4, delayY(s.at)+3.5, s.text)
		}
		label("what", plotLeft, delayTop-4, "p99 of answers")
	}
	for i := range 5 {
		t := c.seconds * float64(i) / 4
		class := "x"
		switch i {
		case 0:
			class = "x first"
		case 4:
			class = "x last"
		}
		text := fmt.Sprintf("%.3g", t)
		if i == 4 {
			text += " s"
		}
		label(class, c.x(t), float64(height)-3, text)
	}
}

func short(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.3gk", v/1000)
	}
	return fmt.Sprintf("%.3g", v)
}

// death marks where a process died, in all panels.
func (c *chart) death(b *strings.Builder, d *Death, height int) {
	by := d.How
	if d.Kernel {
		by = "killed by the kernel"
	}
	x, y := c.x(d.At), c.memoryY(c.limit)
	fmt.Fprintf(b, `<g class="death %s"><title>%s %s at %.1f s</title><line x1="%.1f" x2="%.1f" y1="%.1f" y2="%d"/><path d="M%.1f %.1fl8 8m0 -8l-8 8"/></g>`,
		d.Who, html.EscapeString(d.Who), html.EscapeString(by), d.At, x, x, y, height-16, x-4, y-4)
}

// curve draws points as a line. Of those that fall into one bin the highest is
// kept: what counts of memory is how near it came.
func curve(b *strings.Builder, class string, points []xy) {
	if len(points) == 0 {
		return
	}
	const width = float64(plotRight-plotLeft) / bins
	fmt.Fprintf(b, `<polyline class="%s" points="`, class)
	top := points[0]
	for i, p := range points {
		if math.Floor(p.x/width) != math.Floor(top.x/width) {
			fmt.Fprintf(b, "%.1f,%.1f ", top.x, top.y)
			top = p
		} else if p.y < top.y {
			top = p
		}
		if i == len(points)-1 {
			fmt.Fprintf(b, "%.1f,%.1f", top.x, top.y)
			if len(points) == 1 { // a line of no length is not drawn
				fmt.Fprintf(b, " %.1f,%.1f", top.x+width, top.y)
			}
		}
	}
	b.WriteString(`"/>`)
}
