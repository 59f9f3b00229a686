// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/memguard/memguard-go/memguard"
)

// How much of what a page shows.
const (
	maxRows        = 12 // size classes
	maxShown       = 10 // clusters
	maxShownFrames = 8  // of a cluster
)

// WriteText writes the snapshot for people, as wide as width columns (0 is 80),
// with ANSI colours if color.
func (s *Snapshot) WriteText(w io.Writer, width int, color bool) error {
	p := &page{width: max(cmp.Or(width, 80), 40), color: color}
	h, g := &s.Heap, &s.GC
	p.line("pid %d  %s  %s", s.PID, clean(filepath.Base(s.How.Exe)), clean(s.GoVersion))
	p.line("read in %s: %d calls, %s of its memory; %s, globals by %s", s.How.Took.Round(10*time.Microsecond), s.How.Calls,
		mib(memguard.Known(s.How.Bytes)), clean(s.How.Layout), s.How.Globals)
	if n, ok := s.How.Skew.Get(); ok && n > 0 {
		p.line("the target allocates: heap figures may be off by %s", mib(s.How.Skew))
	}

	p.section("HEAP")
	p.figures([]figure{
		{"live at the last mark", mib(h.Live)}, {"goal", mib(h.Goal)}, {"next cycle at", mib(h.Trigger)},
		{"objects, dead ones too", mib(h.Objects)}, {"unused in spans", mib(h.Unused)}, {"of that, kept by Ps", mib(h.Cached)},
		{"free", mib(h.Free)}, {"released", mib(h.Released)}, {"stacks", mib(h.Stacks)},
		{"metadata", mib(h.Metadata)}, {"total", mib(h.Total)}, {"allocated since start", mib(h.TotalAlloc)},
	})

	p.section("COLLECTOR")
	percent := "unknown"
	if n, ok := g.Percent.Get(); ok {
		if percent = fmt.Sprint(n); n < 0 {
			percent = "off"
		}
	}
	limit := mib(g.MemoryLimit)
	if n, ok := g.MemoryLimit.Get(); ok && n == memguard.Unlimited {
		limit = "none"
	}
	last := "never"
	if n, ok := g.Last.Get(); ok {
		last = ago(s.Time.Sub(time.Unix(0, n)))
	}
	pauses := "unknown"
	if n, ok := g.PauseTotal.Get(); ok {
		pauses = time.Duration(n).Round(time.Microsecond).String()
	}
	p.figures([]figure{
		{"phase", cmp.Or(g.Phase, "unknown")}, {"GOGC", percent}, {"GOMEMLIMIT", limit},
		{"cycles", count(g.Cycles)}, {"forced", count(g.Forced)}, {"last", last}, {"pauses in all", pauses}, {"timers", count(s.Timers)},
	})

	p.classes(s.SizeClasses)
	p.goroutines(&s.Goroutines)
	p.queue("FINALIZERS", &s.Finalizers)
	p.queue("CLEANUPS", &s.Cleanups)

	if slices.ContainsFunc(s.Checks, func(c Check) bool { return c.Want != c.Got }) {
		p.section("IDENTITIES THAT DO NOT HOLD AT THIS MOMENT")
		for _, c := range s.Checks {
			if c.Want != c.Got {
				p.line("  %s: %d, %d (%+.2f %%)", c.What, c.Want, c.Got, 100*(float64(c.Got)-float64(c.Want))/float64(max(c.Want, 1)))
			}
		}
	}
	if len(s.Unknown) > 0 {
		p.section("NOT SEEN")
		for _, b := range s.Unknown {
			p.line("  %s: %s", b.What, clean(b.Why))
		}
	}
	_, err := w.Write(p.Bytes())
	return err
}

// page is a text being written.
type page struct {
	bytes.Buffer
	width int
	color bool
}

// line writes a line, cut at the width.
func (p *page) line(format string, args ...any) {
	text := []rune(fmt.Sprintf(format, args...))
	if len(text) > p.width {
		text = append(text[:p.width-1], '…')
	}
	p.WriteString(string(text))
	p.WriteByte('\n')
}

func (p *page) section(title string) {
	if p.color {
		title = "\x1b[1m" + title + "\x1b[0m"
	}
	fmt.Fprintf(p, "\n%s\n", title)
}

type figure struct{ name, value string }

// figures writes as many in a line as fit.
func (p *page) figures(fs []figure) {
	const cell = 38
	columns := max(1, (p.width-2)/cell)
	for row := range slices.Chunk(fs, columns) {
		var b strings.Builder
		for _, f := range row {
			fmt.Fprintf(&b, "  %-23s %11s ", f.name, f.value)
		}
		p.line("%s", strings.TrimRight(b.String(), " "))
	}
}

// classes writes the size classes with the most unused bytes.
func (p *page) classes(all []SizeClass) {
	if all == nil {
		return
	}
	p.section("SIZE CLASSES, MOST UNUSED FIRST")
	rows := slices.DeleteFunc(slices.Clone(all), func(c SizeClass) bool { return c.Spans == 0 })
	slices.SortStableFunc(rows, func(a, b SizeClass) int { return cmp.Compare(b.Free+b.Tail, a.Free+a.Tail) })
	p.line("  %8s %9s %11s %11s %11s %5s", "object", "spans", "memory", "objects", "unused", "full")
	for _, c := range rows[:min(len(rows), maxRows)] {
		size := "large"
		if c.Class > 0 {
			size = fmt.Sprintf("%d B", c.Size)
		}
		p.line("  %8s %9d %11s %11d %11s %4.0f%%", size, c.Spans, mib(memguard.Known(c.Bytes)), c.Objects,
			mib(memguard.Known(c.Free+c.Tail)), 100*float64(c.Objects)/float64(max(c.Slots, 1)))
	}
	if n := len(rows) - maxRows; n > 0 {
		p.line("  %d more", n)
	}
}

func (p *page) goroutines(g *GoroutineState) {
	p.section("GOROUTINES: " + count(g.Total))
	shown := 0
	user := slices.DeleteFunc(slices.Clone(g.Clusters), func(c Cluster) bool { return c.System })
	for _, c := range user[:min(len(user), maxShown)] {
		shown++
		what := c.State
		if c.Reason != "" {
			what = c.Reason
		}
		if n, ok := c.LongestNs.Get(); ok {
			what += ", for " + time.Duration(n).Round(time.Second).String()
		}
		p.line("  %d  %s", c.Count, clean(what))
		p.stack(c.Stack, c.StackWhy)
		if c.CreatedBy.Func != "" {
			p.line("      created by %s  %s:%d", clean(c.CreatedBy.Func), clean(filepath.Base(c.CreatedBy.File)), c.CreatedBy.Line)
		}
	}
	if n := len(user) - shown; n > 0 {
		p.line("  %d more clusters", n)
	}
}

// stack writes the frames that tell most: the runtime's own, which every parked
// goroutine begins with, are left out.
func (p *page) stack(frames []Frame, why string) {
	for len(frames) > 1 && strings.HasPrefix(frames[0].Func, "runtime.") {
		frames = frames[1:]
	}
	for i, f := range frames {
		if i == maxShownFrames {
			p.line("      … %d more", len(frames)-i)
			break
		}
		p.line("      %s  %s:%d", clean(f.Func), clean(filepath.Base(f.File)), f.Line)
	}
	if why != "" {
		p.line("      stack unknown: %s", why)
	}
}

func (p *page) queue(title string, q *Queue) {
	n, ok := q.Pending.Get()
	if !ok || n == 0 {
		return
	}
	p.section(fmt.Sprintf("%s: %d PENDING", title, n))
	for _, r := range q.Runners {
		p.line("  goroutine %d, %s", r.ID, clean(cmp.Or(r.Reason, r.State)))
		p.stack(r.Stack, r.Why)
	}
}

func count(c memguard.Count) string {
	n, ok := c.Get()
	if !ok {
		return "unknown"
	}
	return fmt.Sprint(n)
}

func mib(b memguard.Bytes) string {
	n, ok := b.Get()
	switch {
	case !ok:
		return "unknown"
	case n >= 1<<53:
		return "unbounded"
	case n >= 10<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}

func ago(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String() + " ago"
	}
	return d.Round(time.Second).String() + " ago"
}

// clean makes text of the target harmless on a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
