// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/leak"
)

// section is a part of a report, the same for the terminal, Markdown and HTML. None
// of it is escaped.
type section struct {
	title string
	say   []string // sentences, one after the other
	list  []string // sentences, one below the other
	head  []column
	rows  []row
	lines []string // as they are, in a fixed width
}

type column struct {
	name  string
	right bool // figures
	stack bool // what the rows' stacks lead to
}

type row struct {
	cells []string
	more  []string // a stack: shown below, or when asked for
	mark  string   // critical, warning, info: how to paint it
}

// sections are all parts but the verdict and the plot, the most telling first.
func (r *Report) sections() (all []section) {
	for _, s := range []section{
		r.facts(), {title: "How that is known", list: r.Why}, r.lastWords(), r.growth(), r.goroutines(), r.happened(),
		r.ledger(), r.cgroupLedger(), r.classes(), r.cgroups(), r.printed(), r.box(), r.unseen(),
	} {
		if len(s.say)+len(s.list)+len(s.rows)+len(s.lines) > 0 {
			all = append(all, s)
		}
	}
	return all
}

func (r *Report) facts() section {
	s := section{head: make([]column, 2)}
	add := func(name, value string) {
		if value != "" {
			s.rows = append(s.rows, row{cells: []string{name, value}})
		}
	}
	w := r.Where
	add("Pod", strings.Trim(w.Namespace+"/"+w.Pod, "/"))
	add("Pod UID", w.PodUID)
	add("Container", cmp.Or(w.Container, w.ContainerID))
	add("Node", w.Node)
	add("Unit", w.Unit)
	limit := "none seen"
	if n, ok := bounded(r.Limit); ok {
		limit = mib(float64(n))
		if r.LimitFrom != "" {
			limit += ", of " + r.LimitFrom
		}
	}
	add("Limit", limit)
	last := "?"
	if u, ok := r.Usage.Get(); ok {
		last = mib(float64(u))
		if n, ok := bounded(r.Limit); ok {
			last += fmt.Sprintf(", %.0f %% of the limit", 100*float64(u)/float64(n))
		}
	}
	add("Memory at the last look", last)
	exit := "not seen"
	switch {
	case r.Exit.Known && r.Exit.Signal != 0:
		exit = signalName(r.Exit.Signal)
	case r.Exit.Known:
		exit = "status " + strconv.Itoa(r.Exit.Code)
	}
	if r.Held > 0 {
		exit += fmt.Sprintf(", held up for %s to read its state", ago(time.Duration(r.Held*float64(time.Second))))
	}
	add("Exit", exit)
	add("Figures by", r.Eye)
	add("Ended", r.Ended.UTC().Format("2006-01-02 15:04:05.000 MST"))
	if !r.Process.Started.IsZero() {
		add("Started", r.Process.Started.UTC().Format("2006-01-02 15:04:05 MST"))
	}
	add("Executable", r.Process.Exe)
	add("Build id", r.Process.Build)
	add("Go version", r.Process.Go)
	add("Incident", r.ID)
	return s
}

func (r *Report) lastWords() section {
	if r.Words == nil {
		return section{}
	}
	s := section{title: "Last words", say: []string{fmt.Sprintf("The Go runtime said: %s", r.Words.Text)}, lines: stackLines(r.Words.Stack)}
	if r.Words.State != "" {
		s.say = append(s.say, "First goroutine printed: "+r.Words.State+".")
	}
	return s
}

func (r *Report) growth() section {
	g := r.Growth
	if g == nil || len(g.Top) == 0 {
		return section{}
	}
	s := section{
		title: "Heap in use, by who allocated it", head: []column{{name: "bytes", right: true}, {name: "share", right: true}, {name: "objects", right: true}, {name: "allocated by", stack: true}},
		say: []string{fmt.Sprintf("%s in all, by the heap profile of: %s.", mib(float64(g.Total)), g.Later)},
	}
	if g.Base != "" {
		s.title = "What the heap grew by, and who allocated it"
		s.say = []string{fmt.Sprintf("%s in all, from one heap profile (%s) to a later one (%s).", mib(float64(g.Total)), g.Base, g.Later)}
	}
	for i := range g.Top {
		t := &g.Top[i]
		s.rows = append(s.rows, row{cells: []string{mib(float64(t.Bytes)), percent(g.share(t)), strconv.FormatInt(t.Objects, 10), own(t.Stack).String()}, more: stackLines(t.Stack)})
	}
	return s
}

func (r *Report) goroutines() section {
	g := r.Goroutines
	if g == nil || len(g.Clusters) == 0 {
		return section{}
	}
	s := section{
		title: "Goroutines", head: []column{{name: "goroutines", right: true}, {name: "longest wait", right: true}, {name: "state"}, {name: "in", stack: true}, {name: "started by"}},
		say: []string{fmt.Sprintf("%s in all; %s.", count(g.Total), g.From)},
	}
	for _, c := range g.Clusters {
		wait := ""
		if c.Longest != nil {
			wait = ago(time.Duration(min(*c.Longest, 1e9) * 1e9))
		}
		s.rows = append(s.rows, row{cells: []string{
			strconv.FormatUint(c.Count, 10), wait, c.State, cmp.Or(own(c.Stack).String(), c.Func), c.Created.String()}, more: stackLines(c.Stack)})
	}
	return s
}

// happened is what was found and done, relative to the end.
func (r *Report) happened() section {
	s := section{title: "What was found and done", head: []column{{name: "before the end", right: true}, {name: "what"}, {name: ""}}}
	for _, n := range r.Notes {
		name, mark := n.Name, ""
		if n.Severity > 0 {
			mark = n.Severity.String()
			name = mark + " " + name
		} else if n.Kind == Action {
			mark = "action"
		}
		s.rows = append(s.rows, row{cells: []string{ago(r.Ended.Sub(n.Time)), name, n.Text}, mark: mark})
	}
	return s
}

func (r *Report) ledger() section {
	if r.Ledger == nil {
		return section{}
	}
	l := r.Ledger
	return ledgerOf("Where the process's memory was", fmt.Sprintf("%s resident, %s before the end.", size(l.RSS), ago(r.Ended.Sub(l.Time))), l.RSS, l.Rows, l.Residual)
}

func (r *Report) cgroupLedger() section {
	if r.Ledger == nil || r.Ledger.Cgroup == nil {
		return section{}
	}
	l := r.Ledger.Cgroup
	return ledgerOf("What the cgroup was charged for", size(l.Usage)+" in all.", l.Usage, l.Rows, l.Residual)
}

func ledgerOf(title, say string, all memguard.Bytes, rows []memguard.Row, residual memguard.Value[int64]) section {
	s := section{title: title, say: []string{say}, head: []column{{name: "row"}, {name: "bytes", right: true}, {name: "share", right: true}, {name: ""}}}
	rows = slices.Clone(rows)
	sort.SliceStable(rows, func(i, j int) bool {
		x, _ := rows[i].Bytes.Get()
		y, _ := rows[j].Bytes.Get()
		return x > y
	})
	total, _ := all.Get()
	for _, r := range append(rows, memguard.Row{Name: memguard.RowResidual, Bytes: residual}) {
		n, ok := r.Bytes.Get()
		bytes, share := "?", ""
		if ok {
			bytes = mib(float64(n))
			if total > 0 {
				share = percent(float64(n) / float64(total))
			}
		}
		s.rows = append(s.rows, row{cells: []string{r.Name, bytes, share, cmp.Or(r.Why, r.Note)}})
	}
	return s
}

func (r *Report) classes() section {
	s := section{title: "Size classes of the heap", head: []column{{name: "object", right: true}, {name: "bytes", right: true}, {name: "objects", right: true}, {name: "free within", right: true}}}
	for _, c := range r.Classes {
		object := "large"
		if c.Size > 0 {
			object = fmt.Sprintf("%d B", c.Size)
		}
		s.rows = append(s.rows, row{cells: []string{object, mib(float64(c.Bytes)), strconv.FormatUint(c.Objects, 10), mib(float64(c.Free))}})
	}
	return s
}

func (r *Report) cgroups() section {
	s := section{title: "What the kernel counted", head: []column{{name: "cgroup"}, {name: "used", right: true}, {name: "limit", right: true}, {name: "OOM kills", right: true}, {name: "limit hits", right: true}}}
	step := func(before, after memguard.Count) string { return count(before) + " to " + count(after) }
	for _, l := range r.Cgroups {
		limit := size(l.Limit)
		if n, ok := l.Limit.Get(); ok && n == memguard.Unlimited {
			limit = "none"
		}
		s.rows = append(s.rows, row{cells: []string{l.Dir, size(l.Usage), limit, step(l.Before, l.After), step(l.HitBefore, l.HitAfter)}})
	}
	if _, ok := r.Machine.After.Get(); ok {
		s.rows = append(s.rows, row{cells: []string{"the machine", "", "", step(r.Machine.Before, r.Machine.After), ""}})
	}
	return s
}

func (r *Report) printed() section {
	if len(r.Stderr) == 0 {
		return section{}
	}
	return section{title: "The last lines of its standard error", lines: r.Stderr}
}

func (r *Report) box() section {
	b := r.BlackBox
	if b == nil {
		return section{}
	}
	return section{title: "Its own black box", say: []string{b.Verdict, fmt.Sprintf("Service %s, built from %s; records: %s; %s", b.Service, b.Build, b.Records, b.Path)}}
}

func (r *Report) unseen() section {
	s := section{title: "What could not be seen"}
	for _, b := range r.Unknown {
		s.list = append(s.list, b.What+": "+b.Why)
	}
	return s
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

func stackLines(stack []leak.Frame) (lines []string) {
	for _, f := range stack {
		lines = append(lines, f.String())
	}
	return lines
}
