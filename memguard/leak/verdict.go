// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"
)

// Level is how sure a verdict is.
type Level int

// The levels.
const (
	Growing Level = iota + 1 // grows, but may be load: it waits for a peer or a timer, or is woken
	Leaking                  // grows, and other signs say that it stays
	Proved                   // grows or is many, and the collector has found that nothing can wake it
)

var levelNames = [...]string{Growing: "growing", Leaking: "leaking", Proved: "proved"}

// String returns "growing", "leaking" or "proved".
func (l Level) String() string {
	if l < Growing || l > Proved {
		return fmt.Sprintf("Level(%d)", int(l))
	}
	return levelNames[l]
}

// MarshalText writes the level's name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads a level's name.
func (l *Level) UnmarshalText(b []byte) error {
	for i, name := range levelNames {
		if name != "" && name == string(b) {
			*l = Level(i)
			return nil
		}
	}
	return fmt.Errorf("leak: level %q: want growing, leaking or proved", b)
}

// Verdict is what a Tracker says of one cluster.
type Verdict struct {
	Level     Level         `json:"level"`
	Cluster   *Cluster      `json:"cluster"`
	Grown     int           `json:"grown"` // goroutines added over Over
	Over      time.Duration `json:"over_ns"`
	PerMinute float64       `json:"per_minute"`
	Age       time.Duration `json:"age_ns"` // of the oldest, at least: since first seen, or as a dump says
	Stacks    float64       `json:"stacks"` // their part of all stack bytes, 0 to 1, by the estimate of [Snapshot.Stacks]
	Proved    int           `json:"proved,omitempty"`
	Shape     *Shape        `json:"shape,omitempty"` // nil if the stack is none that is known
	Signs     []string      `json:"signs"`           // the evidence, one sentence each
}

// Origin is the line to look at. See [Cluster.Origin].
func (v *Verdict) Origin() Frame { return v.Cluster.Origin() }

// Summary is the verdict in one sentence.
func (v *Verdict) Summary() string {
	from := "entered at"
	if len(v.Cluster.Created) > 0 {
		from = "created by"
	}
	what := "goroutines wait"
	if v.Cluster.State.class() == onCPU {
		what = "goroutines are"
	}
	s := fmt.Sprintf("%d %s in %s", v.Cluster.Count, what, v.Cluster.Blocked())
	if v.Cluster.State != "" {
		s += fmt.Sprintf(" [%s]", v.Cluster.State)
	}
	s += fmt.Sprintf(", %s %s", from, v.Origin())
	if v.Grown > 0 {
		s += fmt.Sprintf(", %d more in %s", v.Grown, roughly(v.Over))
	}
	return s + "."
}

// Verdicts returns what grows or leaks now: the surest first, then the largest
// growth.
func (t *Tracker) Verdicts() []Verdict {
	var vs []Verdict
	for _, tr := range t.clusters {
		if v, ok := t.judge(tr); ok {
			vs = append(vs, v)
		}
	}
	sort.Slice(vs, func(i, j int) bool {
		a, b := &vs[i], &vs[j]
		return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(b.Grown, a.Grown),
			cmp.Compare(b.Cluster.Count, a.Cluster.Count), slices.Compare(a.Cluster.Key[:], b.Cluster.Key[:])) < 0
	})
	return vs
}

func (t *Tracker) judge(tr *track) (Verdict, bool) {
	v := Verdict{Proved: tr.proved, Age: tr.seen.Sub(tr.first), Grown: tr.growth.grown, Over: tr.growth.over, Stacks: tr.stacks}
	if !tr.suspect() {
		return Verdict{}, false
	}
	v.Cluster = tr.cluster.clone()
	if v.Grown > 0 {
		v.PerMinute = float64(v.Grown) / v.Over.Minutes()
		v.sign("from %d to %d goroutines in %s", v.Cluster.Count-v.Grown, v.Cluster.Count, roughly(v.Over))
	}
	v.Level = Growing
	waits, dumped := tr.cluster.Waits.Longest()
	if dumped {
		v.Age = max(v.Age, waits)
	}
	v.sign("this stack has been there for %s", roughly(v.Age))
	if waits >= time.Minute {
		v.sign("the longest wait is %s", waits)
	}
	if v.Stacks >= 0.01 {
		v.sign("they have about %.0f %% of all stack bytes", 100*v.Stacks)
	}
	if tr.mixed() {
		v.sign("go statements of %d places start it; which of them does more and more, the next dump says", len(tr.before))
	}
	class := tr.cluster.State.class()
	if class.blocked() {
		v.sign("all wait for another goroutine [%s]", tr.cluster.State)
	}
	v.Shape = t.shape(tr.cluster)
	if v.Shape != nil {
		v.sign("the stack is a known shape: %s", v.Shape.Name)
	}
	shaped, load := v.Shape != nil && v.Shape.Leak, v.Shape != nil && v.Shape.Load
	// A load may grow for hours. Dumps tell waits, in minutes: who has been woken
	// since it began works, who waits as long as it has been growing does not.
	woken := dumped && tr.dumped.Sub(tr.first) >= 4*time.Minute && waits < tr.dumped.Sub(tr.first)/4
	stuck := dumped && waits >= v.Over/2
	if fast := tr.growth.scale == 0; !woken && shaped || class.blocked() && !load && (fast && !woken || stuck) {
		v.Level = Leaking
	}
	if tr.proved > 0 {
		v.Level = Proved
		v.sign("the collector found %d of them blocked on what nothing can reach any more (goroutineleak profile)", tr.proved)
	}
	return v, true
}

// roughly rounds to what a person wants to know.
func roughly(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Second:
		return d.Round(time.Millisecond)
	case d < time.Hour:
		return d.Round(time.Second)
	}
	return d.Round(time.Minute)
}

// clone is a copy that later samples do not change.
func (c *Cluster) clone() *Cluster {
	d := *c
	d.Stack, d.Created, d.Labels = slices.Clone(c.Stack), slices.Clone(c.Created), slices.Clone(c.Labels)
	return &d
}

func (v *Verdict) sign(format string, args ...any) {
	v.Signs = append(v.Signs, fmt.Sprintf(format, args...))
}
