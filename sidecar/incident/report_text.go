// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/internal/plain"
)

// mostTextRows bounds a table on a terminal; the other formats have them all.
const mostTextRows = 20

// WriteText writes the report for a terminal of so many columns.
func (r *Report) WriteText(w io.Writer, width int, color bool) error {
	p := &page{width: max(width, 40), color: color}
	p.section("VERDICT")
	p.wrap("  ", r.Verdict)
	p.plot(r.instants(), "Go heap", r.Severity > 0)
	for _, s := range r.sections() {
		if s.title != "" {
			p.section(strings.ToUpper(s.title))
		} else {
			p.line("")
		}
		for _, text := range s.say {
			p.wrap("  ", text)
		}
		for _, text := range s.list {
			p.wrap("  - ", text)
		}
		p.table(&s)
		for _, l := range s.lines {
			p.line("  %s", clip(plain.Line(l), p.width-2))
		}
	}
	if len(r.Files) > 0 {
		p.section("FILES")
		for _, f := range r.Files {
			p.line("  %s", clip(plain.Line(fmt.Sprintf("%-30s %8d  %s", f.Name, f.Bytes, f.What)), p.width-2))
		}
	}
	_, err := io.WriteString(w, strings.TrimPrefix(p.String(), "\n"))
	return err
}

// table writes columns as wide as they must be, and wraps the last one.
func (p *page) table(s *section) {
	rows := s.rows
	if more := len(rows) - mostTextRows; more > 0 && s.title != "" {
		p.line("%s", p.paint(dim, fmt.Sprintf("  %d earlier ones are in the other formats", more)))
		rows = rows[more:]
	}
	if len(rows) == 0 {
		return
	}
	widths := make([]int, len(s.head))
	for i, c := range s.head {
		widths[i] = utf8.RuneCountInString(c.name)
		for _, r := range rows {
			widths[i] = min(max(widths[i], utf8.RuneCountInString(r.cells[i])), 44)
		}
	}
	last := len(widths) - 1
	for last > 0 && s.head[last].right { // what is wrapped is a text
		last--
	}
	lead := func(cells []string) string {
		var b strings.Builder
		b.WriteString("  ")
		for i, c := range cells {
			if i == len(cells)-1 && !s.head[i].right {
				return b.String()
			}
			c = clip(plain.Line(c), widths[i])
			pad := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(c), 0))
			if s.head[i].right {
				c = pad + c
			} else {
				c += pad
			}
			b.WriteString(c + "  ")
		}
		return b.String()
	}
	if s.title != "" {
		names := make([]string, len(s.head))
		for i, c := range s.head {
			names[i] = c.name
		}
		tail := names[len(names)-1]
		if s.head[len(names)-1].right {
			tail = ""
		}
		p.line("%s", p.paint(dim, strings.TrimRight(clip(lead(names)+tail, p.width), " ")))
	}
	for _, r := range rows {
		tail := r.cells[len(r.cells)-1]
		if s.head[len(r.cells)-1].right {
			tail = ""
		}
		first := lead(r.cells)
		if utf8.RuneCountInString(first) > p.width-20 { // no room beside it
			p.line("%s", strings.TrimRight(clip(first, p.width), " "))
			first = "      "
			if tail == "" {
				continue
			}
		}
		p.wrap(first, tail)
		for i, m := range r.more {
			if i == 6 {
				p.line("%s", p.paint(dim, fmt.Sprintf("        ... %d more", len(r.more)-i)))
				break
			}
			p.line("%s", p.paint(dim, clip("        "+plain.Line(m), p.width)))
		}
	}
}

// clip cuts a text to a width.
func clip(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	rs := []rune(s)
	return string(rs[:max(width-1, 0)]) + "…"
}

// instants are the timeline for a plot: usage, and of it the Go heap.
func (r *Report) instants() (is []instant) {
	if r.Timeline == nil {
		return nil
	}
	for _, p := range r.Timeline.Points {
		in := instant{Time: p.Time, Usage: p.Usage}
		if n, ok := bounded(p.Limit); ok {
			in.Limit = memguard.Known(n)
		}
		var heap int64
		for i, v := range p.Rows {
			if n, ok := v.Get(); ok && n > 0 && strings.HasPrefix(r.Timeline.Rows[i], memguard.RowHeap) && heap < 1<<60 {
				heap += min(n, 1<<60)
				in.Heap = memguard.Known(uint64(heap))
			}
		}
		is = append(is, in)
	}
	return is
}
