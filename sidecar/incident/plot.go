// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"fmt"
	"html"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

// Bounds of what a plot shows.
const (
	mostAreas = 9
	mostMarks = 60
	// A limit that is higher than so many times the usage would flatten the rest.
	farLimit = 4
)

// chart is a timeline ready to be drawn: in hundredths of its width and height, so
// that it fits a phone and a printed page, with texts that do not shrink with it.
type chart struct {
	from, to time.Time
	top      float64 // bytes at the upper edge
	limit    uint64  // the last one; 0 is none
	far      bool    // the limit is beyond the upper edge
	points   []Point
	areas    []area
}

// area is one layer of the stack: for each point its lower and upper edge in bytes.
type area struct {
	name  string
	known []bool
	low   []float64
	high  []float64
	last  float64
}

// chart prepares the timeline, nil where there is none to draw.
func (r *Report) chart() *chart {
	t := r.Timeline
	if t == nil {
		return nil
	}
	c := &chart{}
	most := 0.0
	for _, p := range t.Points {
		u, ok := p.Usage.Get()
		if !ok {
			continue
		}
		c.points = append(c.points, p)
		most = max(most, float64(u))
		if n, ok := bounded(p.Limit); ok {
			c.limit = n
		}
	}
	if len(c.points) < 2 || most == 0 {
		return nil
	}
	c.from, c.to = c.points[0].Time, c.points[len(c.points)-1].Time
	if d := r.Ended.Sub(c.to); d > 0 && d <= max(c.to.Sub(c.from), time.Minute) {
		c.to = r.Ended
	}
	if !c.from.Before(c.to) {
		return nil
	}
	c.stack(t.Rows)
	for _, a := range c.areas {
		for _, h := range a.high {
			most = max(most, h)
		}
	}
	c.top = most * 1.05
	if c.far = float64(c.limit) > farLimit*most; !c.far {
		c.top = max(c.top, float64(c.limit)*1.08)
	}
	return c
}

// stack lays the rows over each other, the biggest ones by name and the others as
// one, and on top what no row tells of.
func (c *chart) stack(names []string) {
	type layer struct {
		row  int
		peak int64
	}
	var layers []layer
	for i := range names {
		l := layer{row: i}
		for _, p := range c.points {
			if i < len(p.Rows) {
				n, _ := p.Rows[i].Get()
				l.peak = max(l.peak, n)
			}
		}
		if l.peak > 0 {
			layers = append(layers, l)
		}
	}
	if len(layers) == 0 {
		return
	}
	sort.SliceStable(layers, func(i, j int) bool { return layers[i].peak > layers[j].peak })
	layers = layers[:min(len(layers), mostAreas-2)]
	sort.Slice(layers, func(i, j int) bool { return layers[i].row < layers[j].row })
	base := make([]float64, len(c.points))
	known := make([]bool, len(c.points))
	shown := map[int]bool{}
	put := func(name string, height func(i int) float64) {
		a := area{name: name, known: known, low: slices.Clone(base)}
		for i := range c.points {
			if known[i] {
				base[i] += height(i)
			}
		}
		a.high = slices.Clone(base)
		some := false
		for i := range a.high {
			some = some || a.high[i] > a.low[i]
		}
		a.last = a.high[len(base)-1] - a.low[len(base)-1]
		if some {
			c.areas = append(c.areas, a)
		}
	}
	for i, p := range c.points {
		for _, v := range p.Rows {
			if _, ok := v.Get(); ok {
				known[i] = true
			}
		}
	}
	value := func(i, row int) float64 {
		rows := c.points[i].Rows
		if row >= len(rows) {
			return 0
		}
		n, _ := rows[row].Get()
		return float64(max(n, 0)) // go/untouched is negative, and nothing that is held
	}
	for _, l := range layers {
		shown[l.row] = true
		put(names[l.row], func(i int) float64 { return value(i, l.row) })
	}
	put("other rows", func(i int) (sum float64) {
		for row := range names {
			if !shown[row] {
				sum += value(i, row)
			}
		}
		return sum
	})
	put("told by no row", func(i int) float64 {
		u, _ := c.points[i].Usage.Get()
		return max(float64(u)-base[i], 0)
	})
}

func (c *chart) x(t time.Time) float64 {
	return 100 * min(max(float64(t.Sub(c.from))/float64(c.to.Sub(c.from)), 0), 1)
}

func (c *chart) y(bytes float64) float64 { return 100 - 100*min(max(bytes/c.top, 0), 1) }

// write draws the chart: lines and areas as SVG that is stretched, and texts beside
// it as HTML at the same hundredths.
func (c *chart) write(b *strings.Builder, r *Report) {
	desc := fmt.Sprintf("Memory from %s before the end: %s at first, %s at the last look.", ago(r.Ended.Sub(c.from)), size(c.points[0].Usage), size(c.points[len(c.points)-1].Usage))
	if c.limit > 0 {
		desc += " The limit is " + mib(float64(c.limit)) + "."
	}
	b.WriteString(`<figure class="plot"><div class="frame">`)
	for _, n := range ticks(c.top) {
		fmt.Fprintf(b, `<span class="tick y" style="top:%.2f%%" aria-hidden="true">%s</span>`, c.y(n), short(n))
	}
	fmt.Fprintf(b, `<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-labelledby="plot-title plot-desc"><title id="plot-title">Memory against the limit</title><desc id="plot-desc">%s</desc>`, html.EscapeString(desc))
	for _, n := range ticks(c.top) {
		fmt.Fprintf(b, `<path class="grid" d="M0 %.2fH100"/>`, c.y(n))
	}
	for i, a := range c.areas {
		fmt.Fprintf(b, `<path class="area a%d" d="%s"><title>%s</title></path>`, i, c.shape(&a), html.EscapeString(a.name))
	}
	fmt.Fprintf(b, `<path class="usage" d="%s"/>`, c.line(func(p *Point) (uint64, bool) { return p.Usage.Get() }))
	if c.limit > 0 && !c.far {
		fmt.Fprintf(b, `<path class="limit" d="%s"/>`, c.line(func(p *Point) (uint64, bool) { return bounded(p.Limit) }))
	}
	marks := c.marks(r)
	for _, m := range marks {
		fmt.Fprintf(b, `<path class="mark %s" d="M%.2f 0V100"/>`, m.class, m.x)
	}
	b.WriteString(`</svg>`)
	for _, m := range marks {
		fmt.Fprintf(b, `<span class="sign %s" style="left:%.2f%%" title="%s">%s</span>`, m.class, m.x, html.EscapeString(m.text), m.sign)
	}
	if c.limit > 0 && !c.far {
		fmt.Fprintf(b, `<span class="limit-name" style="top:%.2f%%" aria-hidden="true">limit %s</span>`, c.y(float64(c.limit)), mib(float64(c.limit)))
	}
	b.WriteString(`</div><div class="times" aria-hidden="true">`)
	for i := range 5 {
		at := c.from.Add(c.to.Sub(c.from) / 4 * time.Duration(i))
		text := "end"
		if d := r.Ended.Sub(at); i < 4 || d >= 50*time.Millisecond {
			text = "-" + ago(d)
		}
		fmt.Fprintf(b, `<span>%s</span>`, text)
	}
	b.WriteString(`</div><figcaption><ul class="legend">`)
	for i, a := range slices.Backward(c.areas) {
		fmt.Fprintf(b, `<li><i class="a%d"></i>%s <b>%s</b></li>`, i, html.EscapeString(a.name), mib(a.last))
	}
	for _, l := range []struct{ class, sign, text string }{{"kill", "✗", "the end"}, {"critical", "▼", "critical finding"}, {"warning", "▼", "finding"}, {"action", "●", "action"}} {
		if slices.ContainsFunc(marks, func(m mark) bool { return m.class == l.class }) {
			fmt.Fprintf(b, `<li><em class="%s">%s</em>%s</li>`, l.class, l.sign, l.text)
		}
	}
	b.WriteString(`</ul>`)
	if c.far {
		fmt.Fprintf(b, `<p>The limit, %s, is far above what is shown.</p>`, mib(float64(c.limit)))
	}
	b.WriteString(`</figcaption></figure>`)
}

// shape is the outline of an area, one for each stretch in which rows are known.
func (c *chart) shape(a *area) string {
	var d strings.Builder
	for i := 0; i < len(c.points); {
		if !a.known[i] {
			i++
			continue
		}
		j := i
		for ; j < len(c.points) && a.known[j]; j++ {
			verb := "L"
			if j == i {
				verb = "M"
			}
			fmt.Fprintf(&d, "%s%.2f %.2f", verb, c.x(c.points[j].Time), c.y(a.high[j]))
		}
		for k := j - 1; k >= i; k-- {
			fmt.Fprintf(&d, "L%.2f %.2f", c.x(c.points[k].Time), c.y(a.low[k]))
		}
		d.WriteString("Z")
		i = j
	}
	return d.String()
}

// line is a figure over time, with gaps where it is unknown.
func (c *chart) line(get func(*Point) (uint64, bool)) string {
	var d strings.Builder
	verb := "M"
	for i := range c.points {
		p := &c.points[i]
		n, ok := get(p)
		if !ok {
			verb = "M"
			continue
		}
		fmt.Fprintf(&d, "%s%.2f %.2f", verb, c.x(p.Time), c.y(float64(n)))
		verb = "L"
	}
	return d.String()
}

// mark is something that happened, on the plot.
type mark struct {
	x                 float64
	class, sign, text string
}

// marks are the last findings and actions, and the end.
func (c *chart) marks(r *Report) (ms []mark) {
	for _, n := range r.Notes {
		if n.Time.Before(c.from) || n.Time.After(c.to) {
			continue
		}
		m := mark{x: c.x(n.Time), class: "action", sign: "●", text: n.Name + ": " + n.Text}
		switch {
		case n.Severity >= memguard.Critical:
			m.class, m.sign = "critical", "▼"
		case n.Severity > 0:
			m.class, m.sign = "warning", "▼"
		case n.Kind != Action:
			continue
		}
		ms = append(ms, m)
	}
	ms = ms[max(len(ms)-mostMarks, 0):]
	if r.Severity > 0 {
		ms = append(ms, mark{c.x(r.Ended), "kill", "✗", "the end"})
	}
	return ms
}

// ticks are three to six round figures up to a top, in bytes.
func ticks(top float64) (at []float64) {
	if top < 1 || math.IsInf(top, 0) || math.IsNaN(top) {
		return nil
	}
	step := math.Exp2(math.Ceil(math.Log2(top / 5)))
	for n := 0.0; n < top; n += step {
		at = append(at, n)
	}
	return at
}

// short is a size for an axis.
func short(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n >= 1<<30:
		return fmt.Sprintf("%.4g GiB", n/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.4g MiB", n/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.4g KiB", n/(1<<10))
	}
	return fmt.Sprintf("%.0f B", n)
}
