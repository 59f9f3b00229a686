// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/memguard/memguard-go/memguard"
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

// WriteText writes the incident for people: the verdict, memory against the
// limit, what was found and done before, and where the profiles are.
func (i *Incident) WriteText(w io.Writer, width int, color bool) error {
	p := &page{width: max(width, 40), color: color}
	p.section("VERDICT")
	p.wrap("  ", i.Verdict)
	p.plot(i)
	p.moments(i)
	p.notes("WHAT WAS FOUND", i, Finding)
	p.notes("WHAT WAS DONE", i, Action)
	p.notes("WHAT ELSE WAS SAID", i, Other)
	p.files(i)
	p.section("THE BLACK BOX")
	for _, row := range [][2]string{
		{"file", i.Box}, {"service", fmt.Sprintf("%s, pid %d", i.Service, i.PID)}, {"build", i.Build},
		{"started", i.Started.UTC().Format(time.RFC3339Nano)}, {"last", i.Last.UTC().Format(time.RFC3339Nano)},
		{"records", i.completeness()},
	} {
		p.wrap(fmt.Sprintf("  %-8s ", row[0]), row[1])
	}
	_, err := io.WriteString(w, strings.TrimPrefix(p.String(), "\n"))
	return err
}

// completeness says what the box had and what it lacks.
func (i *Incident) completeness() string {
	s := fmt.Sprintf("%d", i.Records)
	if i.Torn > 0 {
		s += fmt.Sprintf(", %d torn", i.Torn)
	}
	if i.Missing > 0 {
		s += fmt.Sprintf(", %d missing", i.Missing)
	}
	if i.Unread > 0 {
		s += fmt.Sprintf(", %d not understood (%s)", i.Unread, i.Why)
	}
	return s
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
	for word := range strings.FieldsSeq(clean(s)) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > p.width {
			p.line("%s", line)
			line, empty = indent, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	p.line("%s", line)
}

const rows = 8

// plot draws the usage over time and in it the live heap, the limit on top.
func (p *page) plot(i *Incident) {
	ms := slices.DeleteFunc(slices.Clone(i.Moments), func(m Moment) bool {
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
		l, _ := m.Live.Get()
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
			case r == rows && c == columns-1 && i.Cause.Severity() > 0:
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
	p.line("%s", p.paint(dim, "               █ live heap   ▒ everything else that is charged"))
}

// moments shows the last moments, ever closer to the end.
func (p *page) moments(i *Incident) {
	if len(i.Moments) == 0 {
		return
	}
	p.section("THE LAST MOMENTS")
	p.line("%s", p.paint(dim, fmt.Sprintf("  %9s %11s %11s %11s %11s %10s", "before", "charged", "Go holds", "live heap", "heap goal", "goroutines")))
	shown := time.Time{}
	for _, before := range []time.Duration{time.Minute, 30 * time.Second, 10 * time.Second, 5 * time.Second, 2 * time.Second, time.Second, 500 * time.Millisecond, 100 * time.Millisecond, 0} {
		at := i.Last.Add(-before)
		var m *Moment
		for n := range slices.Backward(i.Moments) { // the last one that is at least so old
			if before == 0 || !i.Moments[n].Time.After(at) {
				m = &i.Moments[n]
				break
			}
		}
		if m == nil || m.Time.Equal(shown) {
			continue
		}
		shown = m.Time
		p.line("  %9s %11s %11s %11s %11s %10s", ago(i.Last.Sub(m.Time)), size(m.Usage), size(m.Mapped), size(m.Live), size(m.Goal), count(m.Goroutines))
	}
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

// mostNotes bounds a section; JSON has them all.
const mostNotes = 20

func (p *page) notes(title string, i *Incident, kind Kind) {
	var ns []Note
	for _, n := range i.Notes {
		if n.Kind == kind {
			ns = append(ns, n)
		}
	}
	if len(ns) == 0 {
		return
	}
	p.section(title)
	if more := len(ns) - mostNotes; more > 0 {
		p.line("%s", p.paint(dim, fmt.Sprintf("  %d earlier ones are in --json", more)))
		ns = ns[more:]
	}
	for _, n := range ns {
		color := map[memguard.Severity]string{memguard.Critical: red, memguard.Warning: yellow}[n.Severity]
		name := clean(n.Name)
		if n.Severity > 0 {
			name = n.Severity.String() + " " + name
		}
		p.line("  %9s before  %s", ago(i.Last.Sub(n.Time)), p.paint(cmp.Or(color, cyan), name))
		p.wrap("                    ", n.Text)
	}
}

// files names what was captured, and how to compare it.
func (p *page) files(i *Incident) {
	if len(i.Files) == 0 {
		return
	}
	p.section("WHAT WAS CAPTURED")
	p.line("  in %s", clean(filepath.Dir(i.Box)))
	for _, f := range i.Files {
		p.line("  %s", clean(filepath.Base(f)))
	}
	for _, pair := range i.Pairs {
		p.line("  what grew from %d %% to %d %% of the limit:", pair.Base.Score, pair.Later.Score)
		p.line("    go tool pprof -base %s %s", quote(pair.Base.Path), quote(pair.Later.Path))
	}
}

// quote makes a path safe to paste into a shell.
func quote(path string) string {
	if strings.IndexFunc(path, func(r rune) bool {
		return !(r == '/' || r == '.' || r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(clean(path), "'", `'\''`) + "'"
}
