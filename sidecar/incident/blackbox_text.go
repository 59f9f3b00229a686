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

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/internal/plain"
)

// WriteText writes the incident for people: the verdict, memory against the
// limit, what was found and done before, and where the profiles are.
func (bb *BlackBox) WriteText(w io.Writer, width int, color bool) error {
	p := &page{width: max(width, 40), color: color}
	p.section("VERDICT")
	p.wrap("  ", bb.Verdict)
	p.plot(bb.instants(), "live heap", bb.Cause.Severity() > 0)
	p.moments(bb)
	p.notes("WHAT WAS FOUND", bb, Finding)
	p.notes("WHAT WAS DONE", bb, Action)
	p.notes("WHAT ELSE WAS SAID", bb, Other)
	p.files(bb)
	p.section("THE BLACK BOX")
	for _, row := range [][2]string{
		{"file", bb.Box}, {"service", fmt.Sprintf("%s, pid %d", bb.Service, bb.PID)}, {"build", bb.Build},
		{"started", bb.Started.UTC().Format(time.RFC3339Nano)}, {"last", bb.Last.UTC().Format(time.RFC3339Nano)},
		{"records", bb.completeness()},
	} {
		p.wrap(fmt.Sprintf("  %-8s ", row[0]), row[1])
	}
	_, err := io.WriteString(w, strings.TrimPrefix(p.String(), "\n"))
	return err
}

func (bb *BlackBox) instants() (is []instant) {
	for _, m := range bb.Moments {
		is = append(is, instant{m.Time, m.Usage, m.Limit, m.Live})
	}
	return is
}

// completeness says what the box had and what it lacks.
func (bb *BlackBox) completeness() string {
	s := fmt.Sprintf("%d", bb.Records)
	if bb.Torn > 0 {
		s += fmt.Sprintf(", %d torn", bb.Torn)
	}
	if bb.Missing > 0 {
		s += fmt.Sprintf(", %d missing", bb.Missing)
	}
	if bb.Unread > 0 {
		s += fmt.Sprintf(", %d not understood (%s)", bb.Unread, bb.Why)
	}
	return s
}

// moments shows the last moments, ever closer to the end.
func (p *page) moments(bb *BlackBox) {
	if len(bb.Moments) == 0 {
		return
	}
	p.section("THE LAST MOMENTS")
	p.line("%s", p.paint(dim, fmt.Sprintf("  %9s %11s %11s %11s %11s %10s", "before", "charged", "Go holds", "live heap", "heap goal", "goroutines")))
	shown := time.Time{}
	for _, before := range []time.Duration{time.Minute, 30 * time.Second, 10 * time.Second, 5 * time.Second, 2 * time.Second, time.Second, 500 * time.Millisecond, 100 * time.Millisecond, 0} {
		at := bb.Last.Add(-before)
		var m *Moment
		for n := range slices.Backward(bb.Moments) { // the last one that is at least so old
			if before == 0 || !bb.Moments[n].Time.After(at) {
				m = &bb.Moments[n]
				break
			}
		}
		if m == nil || m.Time.Equal(shown) {
			continue
		}
		shown = m.Time
		p.line("  %9s %11s %11s %11s %11s %10s", ago(bb.Last.Sub(m.Time)), size(m.Usage), size(m.Mapped), size(m.Live), size(m.Goal), count(m.Goroutines))
	}
}

// mostNotes bounds a section; JSON has them all.
const mostNotes = 20

func (p *page) notes(title string, bb *BlackBox, kind Kind) {
	var ns []Note
	for _, n := range bb.Notes {
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
		name := plain.Line(n.Name)
		if n.Severity > 0 {
			name = n.Severity.String() + " " + name
		}
		p.line("  %9s before  %s", ago(bb.Last.Sub(n.Time)), p.paint(cmp.Or(color, cyan), name))
		p.wrap("                    ", n.Text)
	}
}

// files names what was captured, and how to compare it.
func (p *page) files(bb *BlackBox) {
	if len(bb.Files) == 0 {
		return
	}
	p.section("WHAT WAS CAPTURED")
	p.line("  in %s", plain.Line(filepath.Dir(bb.Box)))
	for _, f := range bb.Files {
		p.line("  %s", plain.Line(filepath.Base(f)))
	}
	for _, pair := range bb.Pairs {
		p.line("  what grew from %d %% to %d %% of the limit:", pair.Base.Score, pair.Later.Score)
		p.line("    go tool pprof -base %s %s", quote(pair.Base.Path), quote(pair.Later.Path))
	}
}
