// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/internal/plain"
)

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	yellow = "33"
	cyan   = "36"
)

// page is a text being written.
type page struct {
	strings.Builder
	width int
	color bool
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) section(title string) { p.line("\n%s", p.paint(bold, title)) }

func (p *page) paint(code, s string) string {
	if !p.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// wrap writes s in lines of the page's width, all but the first indented as deep
// as first is long.
func (p *page) wrap(first, s string) {
	line, indent := first, strings.Repeat(" ", utf8.RuneCountInString(first))
	empty := true
	for word := range strings.FieldsSeq(plain.Line(s)) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > p.width {
			p.line("%s", line)
			line, empty = indent, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	p.line("%s", strings.TrimRight(line, " "))
}

const rows = 8

// instant is what a plot on a terminal shows of one moment.
type instant struct {
	Time               time.Time
	Usage, Limit, Heap memguard.Bytes
}

// plot draws the usage over time and in it the heap, the limit on top. It ends with
// a cross if the process died.
func (p *page) plot(ms []instant, heap string, died bool) {
	ms = slices.DeleteFunc(ms, func(m instant) bool {
		_, ok := m.Usage.Get()
		return !ok
	})
	if len(ms) < 2 || !ms[0].Time.Before(ms[len(ms)-1].Time) {
		return
	}
	var top, limit uint64
	for _, m := range ms {
		u, _ := m.Usage.Get()
		l, _ := m.Limit.Get()
		top, limit = max(top, u, l), max(limit, l)
	}
	if top == 0 {
		return
	}
	columns := p.width - 16
	begin := ms[0].Time
	span := ms[len(ms)-1].Time.Sub(begin)
	usage, live := make([]float64, columns), make([]float64, columns)
	for c := range usage {
		usage[c] = -1 // no moment
	}
	for _, m := range ms {
		c := int(float64(m.Time.Sub(begin)) / float64(span) * float64(columns-1))
		if c = min(max(c, 0), columns-1); usage[c] < 0 {
			usage[c] = 0
		}
		u, _ := m.Usage.Get()
		l, _ := m.Heap.Get()
		usage[c] = max(usage[c], float64(u)/float64(top))
		live[c] = max(live[c], float64(l)/float64(top))
	}
	for c := 1; c < columns; c++ { // between two moments
		if usage[c] < 0 {
			usage[c], live[c] = usage[c-1], live[c-1]
		}
	}
	title := "MEMORY"
	if limit > 0 {
		title += " AGAINST THE LIMIT"
	}
	p.section(title)
	for r := rows; r >= 1; r-- {
		label := ""
		if r == rows {
			label = mib(float64(top))
		}
		var b strings.Builder
		for c := range columns {
			at := (float64(r) - 0.5) / rows
			switch {
			case r == rows && c == columns-1 && died:
				b.WriteString(p.paint(red, "✗"))
			case live[c] >= at:
				b.WriteString("█")
			case usage[c] >= at:
				b.WriteString("▒")
			case r == rows && limit > 0:
				b.WriteString("·")
			default:
				b.WriteString(" ")
			}
		}
		p.line("%s", strings.TrimRight(fmt.Sprintf("  %11s ┤%s", label, b.String()), " "))
	}
	p.line("  %11s └%s", "0", strings.Repeat("─", columns))
	from := "-" + span.Round(time.Millisecond).String()
	p.line("  %11s  %s%*s", "", from, max(columns-len(from), 1), "last record")
	p.line("%s", p.paint(dim, "               █ "+heap+"   ▒ everything else that is charged"))
}

func size(b memguard.Bytes) string {
	n, ok := b.Get()
	switch {
	case !ok:
		return "?"
	case n >= 1<<50: // a goal without a limit and GOGC=off
		return "none"
	}
	return mib(float64(n))
}

func count(c memguard.Count) string {
	n, ok := c.Get()
	if !ok {
		return "?"
	}
	return fmt.Sprint(n)
}

// ago is a time before the last record.
func ago(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// quote makes a path safe to paste into a shell.
func quote(path string) string {
	if strings.IndexFunc(path, func(r rune) bool {
		return !(r == '/' || r == '.' || r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(plain.Line(path), "'", `'\''`) + "'"
}

// mib renders a byte count.
func mib(n float64) string { return fmt.Sprintf("%.1f MiB", n/(1<<20)) }
