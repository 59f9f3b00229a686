// SPDX-License-Identifier: Apache-2.0

package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/memguard/memguard-go/pacer/exectrace"
)

//go:embed page.html
var pageText string

//go:embed page.js
var pageScript string

// html/template escapes each value for the place that it stands in, and writes
// .Data as JSON in which no "<" is left.
var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"dur": dur, "optDur": optDur, "bytes": bytes, "optBytes": optBytes, "percent": percent,
	"frames": frames, "brokenNote": brokenNote, "share": share,
	"show":   func(s string) string { return clean(s, 300) },
	"at":     func(p exectrace.Payer) string { return where(&p) },
	"ratio":  func(c exectrace.Cycle) string { return overshoot(&c) },
	"over":   func(c exectrace.Cycle) bool { x, _ := c.Overshoot(); return x > 1.2 },
	"mean":   func(r exectrace.Reason) string { return mean(&r) },
	"mb":     func(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) },
	"count":  optCount,
	"script": func() template.JS { return template.JS(pageScript) },
}).Parse(pageText))

const (
	pageCycles = 200 // rows of the table; the timeline has them all
	pagePayers = 20
)

// HTML writes the report as one page with a timeline to zoom into. The page
// loads nothing. Title says what the trace is, a file's name or a URL.
func HTML(w io.Writer, r *exectrace.Report, title string) error {
	v := view{Report: r, Title: title, Data: newData(r), Rows: cycles(r, pageCycles)}
	v.Grave = grave(r)
	v.Lead = r.Verdict
	if lead, rest, ok := strings.Cut(r.Verdict, ". "); ok {
		v.Lead, v.Rest = lead+".", rest
	}
	for p, d := range r.Phases {
		v.PhaseRows = append(v.PhaseRows, phaseRow{exectrace.Phase(p).String(), p, d})
	}
	c := &r.CPU
	v.Available, _ = c.Available.Value()
	v.CPURows = []cpuRow{
		{"Dedicated workers", 1, c.Dedicated, ""},
		{"Fractional workers", 1, c.Fractional, ""},
		{"Idle workers", 1, c.Idle, "nothing else wanted the P"},
		{"Mark assists", 2, c.Assist, "paid by goroutines that allocate"},
		{"Background sweeper", 3, c.Sweeper, ""},
		{"Sweeping on demand", 3, c.Sweeping, "paid by goroutines that allocate"},
		{"Background scavenger", 4, c.Scavenger, ""},
	}
	v.Stacks, v.Goroutines = first(r.Assists.Stacks, pagePayers), first(r.Assists.Goroutines, pagePayers)
	return page.Execute(w, &v)
}

type view struct {
	*exectrace.Report
	Title      string
	Lead, Rest string // the verdict, and the figures that go with it
	Grave      string // "good", "warning" or "critical"
	Data       *data
	Rows       []exectrace.Cycle
	PhaseRows  []phaseRow
	Available  time.Duration // CPU time; 0 if unknown, and then not shown
	CPURows    []cpuRow
	Stacks     []exectrace.Payer
	Goroutines []exectrace.Payer
}

type phaseRow struct {
	Name string
	N    int // the colour
	D    time.Duration
}

type cpuRow struct {
	Name string
	N    int
	D    time.Duration
	Note string
}

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

// optCount is a number, or nothing.
func optCount(o exectrace.Opt[uint64]) string {
	if n, ok := o.Value(); ok {
		return fmt.Sprint(n)
	}
	return ""
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
func frames(p exectrace.Payer) string {
	var b strings.Builder
	for _, f := range p.Stack {
		fmt.Fprintf(&b, "%s\n    %s:%d\n", clean(f.Func, 200), clean(f.File, 200), f.Line)
	}
	return b.String()
}

func first[T any](s []T, n int) []T { return s[:min(n, len(s))] }
