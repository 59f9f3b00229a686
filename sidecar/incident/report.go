// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/target"
)

// ReportVersion is the version of a Report as JSON. It rises when a name in it
// changes its meaning or goes.
const ReportVersion = 1

// Report is what is known of the end of one process. Every text in it that the
// process chose is one line of bounded length without control characters; as HTML
// or Markdown it still has to be escaped, which the writers here do. Sizes are
// bytes, and null is unknown.
type Report struct {
	Version  int               `json:"version"`
	ID       string            `json:"id"`                 // in its store; empty if it is in none
	Verdict  string            `json:"verdict"`            // one sentence
	Cause    Cause             `json:"cause"`              //
	Severity memguard.Severity `json:"severity,omitempty"` // absent is none
	Why      []string          `json:"why"`                // what the verdict is read from

	Target  string         `json:"target"`
	Process target.Process `json:"process"`
	Where   Meta           `json:"where"`
	Ended   time.Time      `json:"ended"`
	Lived   *float64       `json:"lived_seconds"`
	Exit    Exit           `json:"exit"`
	Eye     string         `json:"eye"`          // agent, attach or kernel: whose figures these are
	Held    float64        `json:"held_seconds"` // for which the exit was held up

	Usage     memguard.Bytes `json:"usage"`      // of the cgroup, or of the process where there is none, at the last look
	Limit     memguard.Bytes `json:"limit"`      // null also where there is none
	LimitFrom string         `json:"limit_from"` // the cgroup that has it
	Cgroups   []Level        `json:"cgroups"`    // from its own up
	Machine   Machine        `json:"machine"`

	Words      *Words           `json:"last_words"`   // of the Go runtime
	Stderr     []string         `json:"stderr"`       // the last lines
	Timeline   *Timeline        `json:"timeline"`     //
	Notes      []Note           `json:"notes"`        // what was found and done, in the order of time
	Ledger     *memguard.Ledger `json:"ledger"`       // before the end
	Growth     *Growth          `json:"growth"`       //
	Goroutines *Goroutines      `json:"goroutines"`   //
	Classes    []Class          `json:"size_classes"` // of the heap, those that matter, the largest first
	BlackBox   *Box             `json:"black_box"`    // of a service with a guard
	Files      []Named          `json:"files"`        // kept with the report
	Unknown    []memguard.Blind `json:"unknown"`      // what could not be seen, and why
}

// Class is a size class of the heap.
type Class struct {
	Size    uint64 `json:"object_bytes"` // 0 for large objects
	Objects uint64 `json:"objects"`
	Bytes   uint64 `json:"bytes"`
	Free    uint64 `json:"free_bytes"` // in slots that hold no object
}

// Box says which black box was read, and how whole it was.
type Box struct {
	Verdict string `json:"verdict"`
	Cause   Cause  `json:"cause"`
	Path    string `json:"path"`
	Service string `json:"service"`
	Build   string `json:"build"`
	Records string `json:"records"`
}

// Named is a file that is kept with a report.
type Named struct {
	Name  string `json:"name"`
	What  string `json:"what"` // one phrase for people
	Bytes int    `json:"bytes"`
}

// File is a file to be kept with a report.
type File struct {
	Name    string // lower-case letters, digits, - and .
	What    string
	Content []byte
}

// New tells what the evidence says. The files belong to the report, and are for
// [Store.Add]: the profiles that are part of the evidence, and those that the
// service's own guard captured on the way to its limit.
func New(e *Evidence, m Meta) (*Report, []File) {
	part := *e
	e = &part
	e.Cgroups = e.Cgroups[:min(len(e.Cgroups), mostLevels)]
	r := &Report{
		Version: ReportVersion, Why: []string{}, Target: tame(e.Target, mostName), Ended: tameTime(e.Ended), Exit: e.Exit, Machine: e.Machine, Eye: tame(e.Eye, mostName), Held: e.Held.Seconds(),
		Stderr: lines(e.Stderr), Notes: []Note{}, Classes: []Class{}, Files: []Named{}, Unknown: []memguard.Blind{}, Cgroups: []Level{},
		Ledger: tamedLedger(e.Ledger), Where: m.within(e.Process.Cgroup),
	}
	p := &r.Process
	*p = e.Process
	p.Build, p.Exe, p.Command, p.Go, p.Cgroup = tame(p.Build, mostName), tame(p.Exe, mostName), tame(p.Command, mostName), tame(p.Go, mostName), tame(p.Cgroup, mostName)
	p.Started = tameTime(e.begun())
	r.Exit.From = tame(e.Exit.From, mostName)
	if d := e.Ended.Sub(p.Started); !p.Started.IsZero() && d >= 0 {
		s := d.Seconds()
		r.Lived = &s
	}
	for _, l := range e.Cgroups {
		l.Dir = tame(l.Dir, mostName)
		r.Cgroups = append(r.Cgroups, l)
	}
	bb, files := r.join(e)
	r.timeline(e, bb)
	r.fullest(e)
	files = append(r.profiles(e, files), files...)
	r.runtime(e.Snapshot)
	r.Words = ReadWords(e.Stderr)
	r.notes(e, bb)
	r.judge(e, bb)
	r.Verdict = tame(r.Verdict+r.suspect(), 2*mostText) + "."
	r.Severity = r.Cause.Severity()
	if r.Cause == Signalled && slices.Contains([]string{"SIGTERM", "SIGINT", "SIGHUP"}, signalName(e.Exit.Signal)) {
		r.Severity = memguard.Info // how a supervisor stops a service that does not listen
	}
	r.gaps(e)
	for _, f := range files {
		r.Files = append(r.Files, Named{f.Name, f.What, len(f.Content)})
	}
	return r, files
}

// lines are the last lines of a text.
func lines(b []byte) []string {
	if n := len(b) - mostStderr; n > 0 {
		b = b[n:]
	}
	all := []string{}
	for l := range strings.Lines(strings.ReplaceAll(string(b), "\t", "    ")) {
		all = append(all, strings.TrimRight(l, "\r\n"))
	}
	all = all[max(len(all)-mostLines, 0):]
	for i, l := range all {
		all[i] = tameLine(l, mostName)
	}
	return all
}

// fullest finds the limit that was nearest, and the usage that counts against it.
func (r *Report) fullest(e *Evidence) {
	most := -1.0
	for i := range r.Cgroups {
		l := &r.Cgroups[i]
		if fill, ok := l.fill(); ok && fill > most {
			most, r.Usage, r.Limit, r.LimitFrom = fill, l.Usage, l.Limit, l.Dir
		}
	}
	if most >= 0 || r.Timeline == nil {
		return
	}
	for _, p := range slices.Backward(r.Timeline.Points) {
		if _, ok := p.Usage.Get(); ok {
			r.Usage = p.Usage
			if _, ok := bounded(p.Limit); ok {
				r.Limit = p.Limit
			}
			return
		}
	}
}

// profiles reads the heap and goroutine profiles: growth from a pair that the
// service's guard captured, else from the profile of its end, else from the last
// one captured.
func (r *Report) profiles(e *Evidence, captured []File) (files []File) {
	var base, later *File
	for i := range captured {
		switch f := &captured[i]; {
		case strings.HasSuffix(f.Name, "heap.pb.gz") && base == nil:
			base, later = f, f
		case strings.HasSuffix(f.Name, "heap.pb.gz"):
			later = f
		}
	}
	look := func(base, later []byte, from, to string) bool {
		g, err := grown(base, later)
		if err != nil {
			r.blind("growth by stack", err)
			return false
		}
		g.Base, g.Later = from, to
		r.Growth = g
		return len(g.Top) > 0
	}
	of, by := "the process as it ended", "read from outside"
	if !e.HeapAsked.IsZero() {
		of, by = "the process "+ago(max(e.Ended.Sub(e.HeapAsked), 0))+" before its end", "as its net/http/pprof gave it"
	}
	if e.Heap != nil {
		files = append(files, File{"heap.pb.gz", "heap profile of " + of + ", " + by, e.Heap})
	}
	switch {
	case later != nil && later != base && look(base.Content, later.Content, base.What, later.What):
	case e.Heap != nil && look(nil, e.Heap, "", of):
	case later != nil:
		look(nil, later.Content, "", later.What)
	}
	if e.Goroutines != nil {
		files = append(files, File{"goroutine.pb.gz", "goroutine profile of the process as it ended, read from outside", e.Goroutines})
	}
	r.Goroutines = fromSnapshot(e.Snapshot)
	from := func(b []byte, what string) {
		if r.Goroutines != nil || b == nil {
			return
		}
		g, err := fromProfile(b, what)
		if err != nil {
			r.blind("goroutines", fmt.Errorf("%s: %w", what, err))
			return
		}
		r.Goroutines = g
	}
	from(e.Goroutines, "profile of the process as it ended")
	for _, f := range slices.Backward(captured) {
		if strings.HasSuffix(f.Name, "goroutine.pb.gz") {
			from(f.Content, f.What)
		}
	}
	if b := e.Stderr[max(len(e.Stderr)-mostStderr, 0):]; r.Goroutines == nil && goroutineHead.Match(b) {
		from(b, "what it printed as it ended")
		if g := r.Goroutines; g != nil && missingBytes.Match(b) {
			g.Total, g.From = memguard.Count{}, g.From+", of which a part is missing"
		}
	}
	return files
}

// runtime takes from the snapshot the size classes that matter: a hundredth of the
// heap or more.
func (r *Report) runtime(s *attach.Snapshot) {
	if s == nil {
		return
	}
	var all uint64
	for _, c := range s.SizeClasses {
		all += c.Bytes
	}
	for _, c := range s.SizeClasses {
		if c.Bytes > 0 && c.Bytes >= all/100 {
			r.Classes = append(r.Classes, Class{c.Size, c.Objects, c.Bytes, c.Free})
		}
	}
	sort.Slice(r.Classes, func(i, j int) bool {
		a, b := &r.Classes[i], &r.Classes[j]
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Size, b.Size)) < 0
	})
	r.Classes = r.Classes[:min(len(r.Classes), mostShown)]
	for _, b := range s.Unknown {
		r.unknown(b.What, b.Why)
	}
}

// notes puts what the guards said and what the black box holds into one order; a
// service's own guard says it in both.
func (r *Report) notes(e *Evidence, bb *BlackBox) {
	var all []Note
	for i := range e.Events {
		all = append(all, *note(&e.Events[i]))
	}
	if bb != nil {
		all = append(all, bb.Notes...)
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Time.Before(all[j].Time) })
	seen := map[string]bool{}
	for _, n := range all[max(len(all)-mostEvents, 0):] {
		n.Name, n.Text, n.Time = tame(n.Name, mostName), tame(n.Text, mostText), tameTime(n.Time)
		n.Severity = min(max(n.Severity, 0), memguard.Critical)
		key := fmt.Sprint(n.Time.UnixMilli(), n.Kind, n.Name)
		if !seen[key] {
			seen[key] = true
			r.Notes = append(r.Notes, n)
		}
	}
}

// blind notes why something could not be seen.
func (r *Report) blind(what string, err error) { r.unknown(what, err.Error()) }

func (r *Report) unknown(what, why string) {
	if len(r.Unknown) < mostUnknown {
		r.Unknown = append(r.Unknown, memguard.Blind{What: tame(what, mostName), Why: tame(why, mostText)})
	}
}

// gaps says what the report lacks.
func (r *Report) gaps(e *Evidence) {
	if !e.Exit.Known {
		r.unknown("exit status", "nobody who may ask for it told us")
	}
	if e.NoSnapshot != "" {
		r.unknown("state of the Go runtime at the end", e.NoSnapshot)
	}
	if len(e.Cgroups) == 0 {
		r.unknown("memory cgroup", "none was seen")
	}
	if e.Stderr == nil {
		r.unknown("what it printed", "its standard error did not pass through us")
	}
	if r.Ledger == nil {
		r.unknown("ledger", "nobody looked before the end")
	}
}
