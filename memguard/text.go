// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Text is how a report or a ledger is written for people. The zero Text writes
// 80 columns without colour.
type Text struct {
	Width int  // columns; 0 is 80
	Color bool // ANSI colours
}

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	yellow = "33"
	cyan   = "36"
)

// Report writes a report: the verdict first, then where the memory is, then
// findings with their evidence and remedy, then what could not be seen.
func (t Text) Report(w io.Writer, r *Report) error {
	p := t.page()
	p.title(r)
	p.section("VERDICT")
	p.wrap("  ", "  ", r.Verdict)
	if left, ok := r.Left.Get(); ok {
		p.wrapPainted(bold, "  ", "  ", "Time left at the present growth: "+seconds(left))
	}
	if r.Ledger != nil {
		p.ledger(r.Ledger)
	}
	if len(r.Findings) > 0 {
		p.section("FINDINGS")
		for i, f := range r.Findings {
			if i > 0 {
				p.line("")
			}
			p.finding(f)
		}
	}
	p.blind(r.Blind)
	_, err := w.Write(p.Bytes())
	return err
}

// Ledger writes a ledger alone.
func (t Text) Ledger(w io.Writer, l *Ledger) error {
	p := t.page()
	p.ledger(l)
	_, err := w.Write(bytes.TrimLeft(p.Bytes(), "\n"))
	return err
}

// page is a text being written.
type page struct {
	bytes.Buffer
	width int
	color bool
}

func (t Text) page() *page {
	return &page{width: max(cmp.Or(t.Width, 80), 40), color: t.Color}
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) section(title string) { p.line("\n%s", p.paint(bold, title)) }

func (p *page) paint(code, s string) string {
	if !p.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *page) title(r *Report) {
	what := fmt.Sprintf("pid %d", r.PID)
	if r.Exe != "" {
		what += ", " + filepath.Base(r.Exe)
	}
	if r.Go != "" {
		what += ", " + r.Go
	}
	if r.Watched >= time.Second {
		what += ", watched for " + r.Watched.Round(time.Second).String()
	}
	p.wrapPainted(dim, "", "  ", what)
}

// ledger writes the process's rows and then the cgroup's, each as a bar chart.
func (p *page) ledger(l *Ledger) {
	p.section("WHERE THE PROCESS'S MEMORY IS")
	p.rows(l.Rows, l.Residual, "RSS", "", l.RSS)
	c := l.Cgroup
	if c == nil {
		return
	}
	of := ""
	if n, ok := c.Limit.Get(); ok {
		of = " of " + mib(float64(n))
		if used, ok := c.Usage.Get(); ok && n > 0 {
			of += fmt.Sprintf(" (%.0f %%)", 100*float64(used)/float64(n))
		}
	} else if c.Unlimited {
		of = ", no limit"
	} else {
		of = ", limit unknown"
	}
	p.section("WHAT THE KERNEL CHARGES TO ITS CGROUP")
	p.note(fmt.Sprintf("%s (v%d)", c.Path, c.Version))
	p.rows(foldProcesses(c.Rows), c.Residual, "usage", of, c.Usage)
}

// foldProcesses keeps the largest processes of a cgroup and makes one row of
// the others: a node's root cgroup has hundreds.
func foldProcesses(rows []Row) []Row {
	const keep = 5
	bySize := slices.Clone(rows)
	sort.SliceStable(bySize, func(i, j int) bool {
		m, _ := bySize[i].Bytes.Get()
		n, _ := bySize[j].Bytes.Get()
		return m > n
	})
	var folded, others []Row
	var sum int64
	for _, r := range bySize {
		n, ok := r.Bytes.Get()
		switch isProcess := strings.HasPrefix(r.Name, rowProcess); {
		case !isProcess || !ok:
		case len(folded) < keep:
			r.Note = ""
			folded = append(folded, r)
		default:
			others, sum = append(others, r), sum+n
		}
	}
	if len(others) == 1 {
		others[0].Note = ""
		folded = append(folded, others[0])
	} else if len(others) > 1 {
		folded = append(folded, Row{Name: fmt.Sprintf("%d processes", len(others)), Bytes: Known(sum)})
	}
	for _, r := range rows {
		if _, ok := r.Bytes.Get(); !ok || !strings.HasPrefix(r.Name, rowProcess) {
			folded = append(folded, r)
		}
	}
	return folded
}

// rows writes rows that are not zero as bars against the total, and the unknown
// ones by the reason why.
func (p *page) rows(rows []Row, rest Value[int64], total, of string, sum Bytes) {
	all, isKnown := sum.Get()
	whole := float64(all)
	for _, r := range rows {
		n, _ := r.Bytes.Get()
		whole = max(whole, float64(n))
	}
	name := len(RowResidual)
	for _, r := range rows {
		if n, ok := r.Bytes.Get(); ok && n != 0 {
			name = max(name, utf8.RuneCountInString(r.Name))
		}
	}
	bars := p.width - name - 22
	show := func(r Row, n int64) {
		share := 0.0
		if whole > 0 {
			share = max(float64(n), -float64(n)) / whole
		}
		p.line("%s", strings.TrimRight(fmt.Sprintf("  %-*s %10s %4.0f %%  %s", name, r.Name, mib(float64(n)), 100*share, p.bar(share, bars, n < 0)), " "))
	}
	unknown := map[string][]string{}
	zero := 0
	for _, r := range rows {
		n, ok := r.Bytes.Get()
		switch {
		case !ok:
			unknown[r.Why] = append(unknown[r.Why], r.Name)
		case n == 0:
			zero++
		default:
			show(r, n)
		}
	}
	if n, ok := rest.Get(); ok {
		show(Row{Name: RowResidual}, n)
	}
	if isKnown {
		is := fmt.Sprintf("%-*s %10s", name, "=", mib(float64(all)))
		if utf8.RuneCountInString(is+total+of)+11 <= p.width {
			p.line("  %s", p.paint(bold, is+"         "+total+of))
		} else {
			p.line("  %s", p.paint(bold, is))
			p.wrapPainted(bold, "    ", "    ", total+of)
		}
	} else {
		p.line("  %s is unknown", total)
	}
	switch zero {
	case 0:
	case 1:
		p.note("1 more is 0")
	default:
		p.note(fmt.Sprintf("%d more are 0", zero))
	}
	for _, r := range rows {
		if n, ok := r.Bytes.Get(); ok && n != 0 && r.Note != "" {
			p.note(r.Name + ": " + r.Note)
		}
	}
	whys := make([]string, 0, len(unknown))
	for why := range unknown {
		whys = append(whys, why)
	}
	slices.Sort(whys)
	for _, why := range whys {
		p.note("unknown: " + strings.Join(unknown[why], ", ") + ": " + why)
	}
}

func (p *page) note(s string) { p.wrapPainted(dim, "  ", "    ", s) }

// bar draws a share of the whole, in eighths of a column.
func (p *page) bar(share float64, columns int, negative bool) string {
	if columns < 4 {
		return ""
	}
	if negative {
		return p.paint(dim, strings.Repeat("-", max(1, int(share*float64(columns)))))
	}
	eighths := int(share*float64(columns)*8 + 0.5)
	if eighths == 0 {
		return ""
	}
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return p.paint(cyan, s)
}

func (p *page) finding(f Finding) {
	color := map[Severity]string{Critical: red, Warning: yellow, Info: cyan}[f.Severity]
	p.line("  %s %s", p.paint(color, strings.ToUpper(f.Severity.String())), p.paint(bold, string(f.ID)))
	p.wrap("  ", "  ", f.Summary)
	facts := make([]string, len(f.Evidence))
	for i, e := range f.Evidence {
		facts[i] = e.String()
	}
	if len(facts) > 0 {
		p.wrap("  evidence: ", "            ", strings.Join(facts, ", "))
	}
	p.wrap("  do:       ", "            ", f.Remedy)
}

func (p *page) blind(bs []Blind) {
	if len(bs) == 0 {
		return
	}
	p.section("NOT SEEN")
	whats := map[string][]string{}
	var order []string
	for _, b := range bs {
		if whats[b.Why] == nil {
			order = append(order, b.Why)
		}
		whats[b.Why] = append(whats[b.Why], b.What)
	}
	for _, why := range order {
		p.note(strings.Join(whats[why], ", ") + ": " + why)
	}
}

func (p *page) wrap(first, next, s string) { p.wrapPainted("", first, next, s) }

// wrapPainted writes s in lines of the page's width.
func (p *page) wrapPainted(code, first, next, s string) {
	line, prefix := "", first
	flush := func() {
		text := prefix + line
		if code != "" {
			text = p.paint(code, text)
		}
		p.line("%s", text)
		line, prefix = "", next
	}
	for word := range strings.FieldsSeq(clean(s)) {
		for room := p.width - max(len(first), len(next)); utf8.RuneCountInString(word) > room; { // a path, mostly
			if line != "" {
				flush()
			}
			runes := []rune(word)
			line, word = string(runes[:room]), string(runes[room:])
			flush()
		}
		if line != "" && utf8.RuneCountInString(prefix+line)+1+utf8.RuneCountInString(word) > p.width {
			flush()
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	flush()
}

// clean makes a string that another process may have chosen (a path, a cgroup's
// name) safe for a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsGraphic(r) {
			return '?'
		}
		return r
	}, s)
}

// seconds renders a time that a person plans by.
func seconds(s float64) string {
	switch {
	case s < 10:
		return fmt.Sprintf("%.1f s", s)
	case s < 120:
		return fmt.Sprintf("%.0f s", s)
	case s < 2*3600:
		return fmt.Sprintf("%.0f min", s/60)
	}
	return fmt.Sprintf("%.0f h", s/3600)
}
