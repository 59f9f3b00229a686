// SPDX-License-Identifier: Apache-2.0

package report

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/memguard/memguard-go/pacer/exectrace"
)

//go:embed head.html
var pageHead string

//go:embed timeline.html
var pageTimeline string

//go:embed page.js
var pageScript string

const (
	pageCycles = 200 // rows of the table; the timeline has them all
	pagePayers = 20
)

// HTML writes the report as one page with a timeline to zoom into. The page
// loads nothing. Title says what the trace is, a file's name or a URL.
//
// It is written by hand: html/template calls methods by name, with which the
// linker keeps every exported method of a program.
func HTML(w io.Writer, r *exectrace.Report, title string) error {
	drawn, err := json.Marshal(newData(r)) // leaves no "<"
	if err != nil {
		return err
	}
	var p page
	p.raw(strings.Replace(pageHead, "{title}", html.EscapeString(show(title)), 1))
	p.put("<header>\n<p class=\"file\">%s</p>\n", show(title))
	p.header(r)
	p.findings(r)
	p.raw(pageTimeline)
	p.phases(r)
	p.cpu(&r.CPU)
	p.assists(&r.Assists)
	p.cycles(r)
	p.unknown(r)
	p.put(`<footer>Times are offsets from the first event. “Mark term” is the whole stop; gctrace's third figure ends earlier in it. Peak is the heap when marking ended, goal the one set by the cycle before. A trace does not tell of scavenging outside the background scavenger, nor of a goal while GOGC=off.</footer>
</main>
`)
	p.raw(`<script id="data" type="application/json">` + string(drawn) + "</script>\n<script>\n" + pageScript + "\n</script>\n</body>\n</html>\n")
	_, err = io.WriteString(w, p.b.String())
	return err
}

// page is a page that is being written.
type page struct{ b strings.Builder }

func (p *page) raw(s string) { p.b.WriteString(s) }

// put writes HTML in which every string among args is text: it is escaped.
func (p *page) put(format string, args ...any) {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = html.EscapeString(s)
		}
	}
	fmt.Fprintf(&p.b, format, args...)
}

func (p *page) header(r *exectrace.Report) {
	lead, rest, ok := strings.Cut(r.Verdict, ". ")
	if ok {
		lead += "."
	}
	p.put(`<h1><span class="%s">%s</span>`, grave(r), show(lead))
	if rest != "" {
		p.put(" <small>%s</small>", show(rest))
	}
	p.put("</h1>\n<p class=\"file\">%s trace, %d events, %.1f MB", show(r.Format), r.Events, float64(r.Bytes)/1e6)
	if n, ok := r.Procs.Value(); ok {
		p.put(", GOMAXPROCS %d", n)
	}
	p.raw("</p>\n")
	if r.Broken != nil {
		p.put("<p class=\"broken\">%s</p>\n", brokenNote(r.Broken))
	}
	p.raw("</header>\n\n")
}

func (p *page) findings(r *exectrace.Report) {
	if len(r.Findings) == 0 {
		return
	}
	p.raw("<h2>Findings</h2>\n")
	for _, f := range r.Findings {
		p.put("<section class=\"finding\">\n<div class=\"id %s\">%s<small>%s</small></div>\n<div><p>%s</p><ul>", string(f.Severity), string(f.ID), string(f.Severity), show(f.Summary))
		for _, e := range f.Evidence {
			p.put("<li>%s</li>", show(e))
		}
		p.put("</ul><p>%s</p></div>\n</section>\n", f.Remedy)
	}
}

// bar is the end of a table's row: a length, its share, and a bar of that.
func (p *page) bar(d, of time.Duration, colour int) {
	p.put(`<td>%s</td><td>%s</td><td class="track">`, dur(d), percent(d, of))
	if d > 0 {
		p.put(`<div style="width:%.4f%%;background:var(--p%d)"></div>`, share(d, of), colour)
	}
	p.raw("</td>")
}

func (p *page) phases(r *exectrace.Report) {
	p.raw("<div class=\"two\">\n<section><h2>Phases</h2>\n<div class=\"wide\"><table>\n")
	for phase, d := range r.Phases {
		p.put(`<tr><td class="l">%s</td>`, exectrace.Phase(phase).String())
		p.bar(d, r.Span, phase)
		p.raw("</tr>\n")
	}
	p.raw("</table></div></section>\n<section><h2>The world stopped</h2>\n")
	if len(r.Reasons) == 0 {
		p.raw("<p>Never.</p>")
	} else {
		p.raw("<div class=\"wide\"><table>\n<tr><th class=\"l\">why</th><th>count</th><th>total</th><th>mean</th><th>longest</th></tr>\n")
		for i := range r.Reasons {
			reason := &r.Reasons[i]
			p.put(`<tr><td class="l">%s`, show(reason.Name))
			if reason.Cut > 0 {
				p.put(` <span class="note">and %d without an end</span>`, reason.Cut)
			}
			p.put("</td><td>%d</td><td>%s</td><td>%s</td><td>%s</td></tr>\n", reason.Count, dur(reason.Total), mean(reason), dur(reason.Max))
		}
		p.raw("</table></div>")
	}
	p.raw("</section>\n</div>\n\n")
}

func (p *page) cpu(c *exectrace.CPU) {
	available, _ := c.Available.Value()
	if available == 0 {
		return // unknown
	}
	p.put("<h2>GC on the CPUs, of %s available</h2>\n<div class=\"wide\"><table>\n", dur(available))
	for _, row := range []struct {
		name   string
		colour int
		d      time.Duration
		note   string
	}{
		{"Dedicated workers", 1, c.Dedicated, ""},
		{"Fractional workers", 1, c.Fractional, ""},
		{"Idle workers", 1, c.Idle, "nothing else wanted the P"},
		{"Mark assists", 2, c.Assist, "paid by goroutines that allocate"},
		{"Background sweeper", 3, c.Sweeper, ""},
		{"Sweeping on demand", 3, c.Sweeping, "paid by goroutines that allocate"},
		{"Background scavenger", 4, c.Scavenger, ""},
	} {
		if row.d == 0 {
			row.note = ""
		}
		p.put(`<tr><td class="l">%s</td>`, row.name)
		p.bar(row.d, available, row.colour)
		p.put("<td class=\"l note\">%s</td></tr>\n", row.note)
	}
	p.raw("</table></div>\n\n")
}

func (p *page) assists(a *exectrace.Assists) {
	if a.Count == 0 {
		return
	}
	p.put("<h2>Who pays: %d mark assists held goroutines up for %s</h2>\n<div class=\"two payers\"><div class=\"wide\"><table>\n", a.Count, dur(a.Wall))
	const columns = "<tr><th>share</th><th>held up</th><th>of it marking</th><th>assists</th>"
	p.raw(columns + "<th class=\"l\">by stack</th></tr>\n")
	row := func(payer *exectrace.Payer) {
		p.put("<tr><td>%s</td><td>%s</td><td>%s</td><td>%d</td>", percent(payer.Wall, a.Wall), dur(payer.Wall), dur(payer.CPU), payer.Count)
	}
	for _, payer := range first(a.Stacks, pagePayers) {
		row(&payer)
		if len(payer.Stack) > 0 {
			p.put("<td class=\"l\"><details><summary>%s <span class=\"note\">%s</span></summary><pre>%s</pre></details></td></tr>\n", show(payer.Name), show(where(&payer)), frames(&payer))
		} else {
			p.put("<td class=\"l\">%s</td></tr>\n", show(payer.Name))
		}
	}
	p.raw("</table></div>\n<div class=\"wide\"><table>\n" + columns + "<th>goroutine</th><th class=\"l\">began in</th></tr>\n")
	for _, payer := range first(a.Goroutines, pagePayers) {
		row(&payer)
		p.raw("<td>")
		if payer.Goroutine != 0 {
			p.put("%d", payer.Goroutine)
		}
		p.put("</td><td class=\"l\">%s</td></tr>\n", show(payer.Name))
	}
	p.raw("</table></div></div>\n\n")
}

func (p *page) cycles(r *exectrace.Report) {
	rows := cycles(r, pageCycles)
	if len(rows) == 0 {
		return
	}
	p.raw("<h2>Cycles")
	if len(rows) < len(r.Cycles) {
		p.put(": the %d of %d that marked longest", len(rows), r.CycleCount)
	}
	p.raw("</h2>\n<div class=\"wide\"><table>\n<tr><th>#</th><th>at</th><th>sweep term</th><th>mark</th><th>mark term</th><th>heap</th><th>peak</th><th>live</th><th>goal</th><th>peak/goal</th><th class=\"l\">trigger</th></tr>\n")
	for i := range rows {
		c := &rows[i]
		p.put("<tr><td>%d</td>", c.N)
		for _, s := range []string{
			optDur(c.Start), optDur(c.SweepTermination), optDur(c.Mark), optDur(c.MarkStop),
			optBytes(c.HeapStart), optBytes(c.HeapEnd), optBytes(c.Marked), optBytes(c.Goal),
		} {
			p.put("<td>%s</td>", s)
		}
		if x, _ := c.Overshoot(); x > 1.2 {
			p.put(`<td class="over">%s</td>`, overshoot(c))
		} else {
			p.put("<td>%s</td>", overshoot(c))
		}
		p.put(`<td class="l">%s`, show(c.Trigger))
		if c.By != "" {
			p.put(` <span class="note">by %s</span>`, show(c.By))
		}
		p.raw("</td></tr>\n")
	}
	p.raw("</table></div>\n\n")
}

func (p *page) unknown(r *exectrace.Report) {
	if len(r.Unknown) == 0 {
		return
	}
	p.raw("<h2>Not known to this version</h2>\n<ul>")
	for _, name := range slices.Sorted(maps.Keys(r.Unknown)) {
		p.put("<li>%d × %s</li>", r.Unknown[name], show(name))
	}
	p.raw("</ul>\n\n")
}

// show is text that came with a trace, of a length for people.
func show(s string) string { return clean(s, 300) }

// data is what the page's script draws. Times are nanoseconds and sizes bytes;
// -1 is unknown. Rows are arrays because there may be thousands.
type data struct {
	Span   int64    `json:"span"`
	Phases []string `json:"phases"`
	// Start, end, phase, heap, goal, and for merged segments the time of each
	// phase.
	Segments [][]int64 `json:"segments"`
	// At, min, max, last, goal.
	Width  int64     `json:"width"`
	Points [][]int64 `json:"points"`
	// Start, length, index of the reason.
	Pauses  [][]int64 `json:"pauses"`
	Reasons []string  `json:"reasons"`
	// Number, start, end, heap end, goal.
	Cycles [][]int64 `json:"cycles"`
}

func newData(r *exectrace.Report) *data {
	d := &data{
		Span: int64(r.Span), Width: int64(r.Heap.Width),
		Segments: [][]int64{}, Points: [][]int64{}, Pauses: [][]int64{}, Reasons: []string{}, Cycles: [][]int64{},
	}
	for p := range r.Phases {
		d.Phases = append(d.Phases, exectrace.Phase(p).String())
	}
	for i := range r.Timeline {
		s := &r.Timeline[i]
		row := []int64{int64(s.Start), int64(s.End), int64(s.Phase), orNone(s.Heap), orNone(s.Goal)}
		if s.Merged > 1 {
			for _, t := range s.Time {
				row = append(row, int64(t))
			}
		}
		d.Segments = append(d.Segments, row)
	}
	for _, p := range r.Heap.Points {
		d.Points = append(d.Points, []int64{int64(p.At), orNone(p.Min), orNone(p.Max), orNone(p.Last), orNone(p.Goal)})
	}
	reasons := make(map[string]int64)
	for _, p := range r.Pauses {
		n, ok := reasons[p.Reason]
		if !ok {
			n = int64(len(d.Reasons))
			reasons[p.Reason] = n
			d.Reasons = append(d.Reasons, clean(p.Reason, 100))
		}
		d.Pauses = append(d.Pauses, []int64{int64(p.Start), int64(p.Length), n})
	}
	for i := range r.Cycles {
		c := &r.Cycles[i]
		d.Cycles = append(d.Cycles, []int64{int64(c.N), orNone(c.Start), orNone(c.End), orNone(c.HeapEnd), orNone(c.Goal)})
	}
	return d
}

func orNone[T ~int64 | ~uint64](o exectrace.Opt[T]) int64 {
	if v, ok := o.Value(); ok {
		return int64(min(v, 1<<62))
	}
	return -1
}

// grave is how bad it is, all together.
func grave(r *exectrace.Report) string {
	g := "good"
	if r.Broken != nil {
		g = string(exectrace.Warning)
	}
	for _, f := range r.Findings {
		if f.Severity == exectrace.Critical {
			return string(exectrace.Critical)
		}
		g = string(exectrace.Warning)
	}
	return g
}

func mean(r *exectrace.Reason) string {
	if r.Count == 0 {
		return "-"
	}
	return dur(r.Total / time.Duration(r.Count))
}

// share is part of whole in percent, for the width of a bar.
func share(part, whole time.Duration) float64 {
	if whole <= 0 {
		return 0
	}
	return min(100*float64(part)/float64(whole), 100)
}

// frames writes a stack as a traceback does.
func frames(p *exectrace.Payer) string {
	var b strings.Builder
	for _, f := range p.Stack {
		fmt.Fprintf(&b, "%s\n    %s:%d\n", clean(f.Func, 200), clean(f.File, 200), f.Line)
	}
	return b.String()
}

func first[T any](s []T, n int) []T { return s[:min(n, len(s))] }
