// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/evidence"
)

// Moment is the memory at one instant. Sizes are bytes.
type Moment struct {
	Time        time.Time             `json:"time"`
	Usage       memguard.Bytes        `json:"usage"`       // charged to the cgroup
	Undroppable memguard.Bytes        `json:"undroppable"` // of that, what the kernel cannot take back; the page cache it can
	Limit       memguard.Bytes        `json:"limit"`       // unknown also where there is none
	Mapped      memguard.Bytes        `json:"mapped"`      // what the Go runtime holds of the OS
	Live        memguard.Bytes        `json:"live"`        // heap, marked by the last cycle
	Stacks      memguard.Bytes        `json:"stacks"`      // of goroutines
	Goal        memguard.Bytes        `json:"goal"`        // heap at which the next cycle ends
	GCPercent   memguard.Value[int64] `json:"gc_percent"`  // -1 is off
	Goroutines  memguard.Count        `json:"goroutines"`
	OOMKills    memguard.Count        `json:"oom_kills"` // of the cgroup so far
}

// Kind says what a Note is about.
type Kind string

// The kinds of notes.
const (
	Finding Kind = "finding"
	Action  Kind = "action"
	Other   Kind = "other" // what could no longer be seen, was saved, and the like
)

// Note is something that was found or done.
type Note struct {
	Time     time.Time         `json:"time"`
	Kind     Kind              `json:"kind"`
	Severity memguard.Severity `json:"severity,omitempty"` // of a finding
	Name     string            `json:"name"`               // a finding's id, an action's name
	Text     string            `json:"text"`
}

// Line is one record of a black box, read: a moment or a note.
type Line struct {
	Moment *Moment
	Note   *Note
}

// Options are what an incident is read with.
type Options struct {
	Last     time.Duration  // so much of the timeline; 0 is 2 minutes
	OOMKills memguard.Count // of the process's cgroup, as the kernel counts now; may be unknown
	Boot     string         // id of this machine's start, for a box of this machine; "" is not known

	decode func(layout uint32, r evidence.BoxRecord) (Line, error) // nil is decode
}

// BlackBox is what the black box of a process says of its end, or of one that runs
// of its state so far.
type BlackBox struct {
	Verdict string `json:"verdict"` // one or two sentences
	Cause   Cause  `json:"cause"`

	Service string         `json:"service"`
	PID     int            `json:"pid"`
	Build   string         `json:"build"`
	Started time.Time      `json:"started"`
	Last    time.Time      `json:"last"`                    // sign of life
	Closed  time.Time      `json:"closed,omitzero"`         // when it ended as it meant to
	Growth  *float64       `json:"growth_bytes_per_second"` // of what cannot be dropped, in the last seconds; nil is unknown
	Before  memguard.Count `json:"oom_kills_before"`        // as the process counted them
	After   memguard.Count `json:"oom_kills_after"`         // as the kernel counts them now

	Moments []Moment        `json:"moments"` // of the last minutes
	Notes   []Note          `json:"notes"`   // all that are left
	Files   []string        `json:"files"`   // captured while it lived
	Pairs   []evidence.Pair `json:"-"`       // of the heap profiles among them

	Box     string `json:"box"`
	Records int    `json:"records"` // in the box
	Torn    int    `json:"torn"`    // with a wrong checksum
	Missing uint64 `json:"missing"` // that should be there
	Unread  int    `json:"unread"`  // whole, and not understood
	Why     string `json:"why_unread,omitempty"`
}

// ErrNone says that a directory has no black box.
var ErrNone = errors.New("no black box")

// Find returns the boxes that a path means, the newest first: those in a
// directory, or the file itself.
func Find(path string) ([]string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("incident: %w", err)
	}
	if !st.IsDir() {
		return []string{path}, nil
	}
	boxes, err := evidence.Boxes(path)
	if err != nil {
		return nil, fmt.Errorf("incident: %w", err)
	}
	if len(boxes) == 0 {
		return nil, fmt.Errorf("incident: %s: %w", path, ErrNone)
	}
	slices.Reverse(boxes)
	return boxes, nil
}

// Read reads one box, and finds what was captured beside it. A record that cannot
// be understood is counted, and no error.
func Read(box string, o Options) (*BlackBox, error) {
	r, err := evidence.ReadBox(box)
	if err != nil {
		return nil, fmt.Errorf("incident: %w", err)
	}
	bb := &BlackBox{
		Service: r.Service, PID: r.PID, Build: r.Build, Started: r.Start, Last: r.Start, Closed: r.End,
		Box: box, Records: len(r.Records), Torn: r.Torn, Missing: r.Missing, After: o.OOMKills,
	}
	bb.read(r, o)
	bb.Growth = growth(bb.Moments)
	bb.judge(r, o)
	// The timeline's last part; what is judged is the end of it in any case.
	from := bb.Last.Add(-cmp.Or(o.Last, 2*time.Minute))
	bb.Moments = slices.DeleteFunc(bb.Moments, func(m Moment) bool { return m.Time.Before(from) })
	return bb, bb.gather(r)
}

// read decodes the records.
func (bb *BlackBox) read(r *evidence.Recording, o Options) {
	read := o.decode
	if read == nil {
		read = decode
	}
	for n, rec := range r.Records {
		if n == len(r.Records)-1 {
			bb.Last = rec.Time
		}
		line, err := read(r.Layout, rec)
		switch {
		case err != nil:
			bb.Unread++
			bb.Why = err.Error()
		case line.Moment != nil:
			bb.Moments = append(bb.Moments, *line.Moment)
			if _, ok := line.Moment.OOMKills.Get(); ok {
				bb.Before = line.Moment.OOMKills
			}
		case line.Note != nil:
			bb.Notes = append(bb.Notes, *line.Note)
		}
	}
}

// held is what counts against the limit: a full page cache kills nobody.
func (m *Moment) held() (uint64, bool) {
	if n, ok := m.Undroppable.Get(); ok {
		return n, true
	}
	return m.Usage.Get()
}

// growth is how fast what is held grew in the last three seconds, in bytes a second.
func growth(ms []Moment) *float64 {
	var first, last *Moment
	for n := range slices.Backward(ms) {
		m := &ms[n]
		if _, ok := m.held(); !ok {
			continue
		}
		if last == nil {
			last = m
		}
		if last.Time.Sub(m.Time) > 3*time.Second {
			break
		}
		first = m
	}
	if last == nil || !first.Time.Before(last.Time) {
		return nil
	}
	from, _ := first.held()
	to, _ := last.held()
	g := (float64(to) - float64(from)) / last.Time.Sub(first.Time).Seconds()
	return &g
}

// near is the share of the limit from which an end without a word is suspected
// to be an OOM kill. It is also suspected where what is held would have been there
// a second later: at rest the box has a moment a second.
const near = 0.90

// gaveUp is why the guard ended the process, empty if it did not.
func (bb *BlackBox) gaveUp() string {
	for _, n := range bb.Notes {
		if n.Kind == Action && n.Name == string(memguard.Exit)+" "+string(memguard.Applied) {
			_, why, _ := strings.Cut(n.Text, ": ")
			return why
		}
	}
	return ""
}

// judge says how it ended.
func (bb *BlackBox) judge(r *evidence.Recording, o Options) {
	who := fmt.Sprintf("%s (pid %d)", bb.Service, bb.PID)
	lived := bb.Last.Sub(bb.Started).Round(time.Second)
	usage, cache, limit, known := bb.fill()
	limited := limit > 0
	state := "its last record does not say how much memory it had"
	if known {
		state = fmt.Sprintf("its last record shows %s beside %s of page cache, and no limit that it knew of", mib(usage), mib(cache))
		if limited {
			state = fmt.Sprintf("its last record shows %s of %s (%.0f %%)", mib(usage), mib(limit), 100*usage/limit)
		}
		if bb.Growth != nil && *bb.Growth > 1<<20 {
			state += fmt.Sprintf(", growing by %s a second", mib(*bb.Growth))
		}
	}
	before, ok := bb.Before.Get()
	after, ok2 := bb.After.Get()
	switch {
	case r.State == evidence.Closed && bb.gaveUp() != "":
		bb.Last = bb.Closed
		bb.Cause, bb.Verdict = GaveUp, fmt.Sprintf("%s ended itself after %v, as it was told to do where collecting helps no longer: %s.", who, bb.Closed.Sub(bb.Started).Round(time.Second), bb.gaveUp())
	case r.State == evidence.Closed:
		bb.Last = bb.Closed
		bb.Cause, bb.Verdict = CleanExit, fmt.Sprintf("%s ended as it meant to, after %v.", who, bb.Closed.Sub(bb.Started).Round(time.Second))
	case r.State == evidence.Running:
		bb.Cause, bb.Verdict = StillRunning, fmt.Sprintf("%s is running; %s.", who, state)
	case ok && ok2 && after > before:
		bb.Cause = OOMKill
		bb.Verdict = fmt.Sprintf("%s was killed by the kernel for lack of memory after %v: the cgroup's oom_kill went from %d to %d; %s.", who, lived, before, after, state)
	case limited && (usage >= near*limit || bb.Growth != nil && usage+*bb.Growth >= limit):
		bb.Cause = OOMSuspected
		bb.Verdict = fmt.Sprintf("%s died after %v, and an OOM kill is suspected: %s, and it did not close its black box.", who, lived, state)
		if ok && ok2 {
			bb.Verdict += fmt.Sprintf(" But the cgroup that was asked counts no kill since (oom_kill %d): it may be another one.", after)
		}
	case o.Boot != "" && r.Boot != "" && o.Boot != r.Boot:
		bb.Cause = Restarted
		bb.Verdict = fmt.Sprintf("%s did not close its black box, and the machine was started anew since: %s.", who, state)
	case r.State == evidence.Unknown:
		bb.Cause = NotKnown
		bb.Verdict = fmt.Sprintf("%s has not closed its black box; whether it runs cannot be seen here: %s.", who, state)
	case !limited:
		bb.Cause = OtherDeath
		bb.Verdict = fmt.Sprintf("%s died after %v, without closing its black box: %s. Exit 137 and a higher oom_kill would say that the kernel killed it.", who, lived, state)
	default:
		bb.Cause = OtherDeath
		bb.Verdict = fmt.Sprintf("%s died after %v, and not for lack of memory by what is left: %s. A panic (exit 2, see its log), a SIGKILL from elsewhere or a failed probe leave this picture.", who, lived, state)
	}
}

// fill is how much was held at the last moment that says of how much, else at the
// last one that says it at all: then the limit is 0. cache is what was charged
// beside it.
func (bb *BlackBox) fill() (usage, cache, limit float64, ok bool) {
	for _, m := range slices.Backward(bb.Moments) {
		held, isHeld := m.held()
		if !isHeld {
			continue
		}
		l, _ := m.Limit.Get()
		if l == 0 && ok {
			continue
		}
		all, _ := m.Usage.Get()
		usage, cache, limit, ok = float64(held), float64(max(all, held)-held), float64(l), true
		if l > 0 {
			break
		}
	}
	return usage, cache, limit, ok
}

// gather finds the files that were captured while the process lived.
func (bb *BlackBox) gather(r *evidence.Recording) error {
	files, err := (&evidence.Store{Dir: filepath.Dir(bb.Box)}).Files()
	if errors.Is(err, fs.ErrPermission) {
		return nil // the box could be read: that is what was asked for
	}
	if err != nil {
		return fmt.Errorf("incident: %w", err)
	}
	// The name of a series is when it began; a minute is for the writing.
	from, to := bb.Started.Add(-time.Second), bb.Last.Add(time.Minute)
	for _, path := range files {
		if at, ok := evidence.PutTime(path); ok && !at.Before(from) && (r.State == evidence.Running || !at.After(to)) {
			bb.Files = append(bb.Files, path)
		}
	}
	bb.Pairs = evidence.Pairs(bb.Files)
	return nil
}
