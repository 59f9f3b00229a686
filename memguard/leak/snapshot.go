// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"sort"
	"time"
)

// Bounds of what is kept of one snapshot, whatever is read.
const (
	maxClusters = 4096
	maxFrames   = 128 // of a stack; a profile has no more (runtime/mprof.go, maxProfStackDepth)
	maxCreators = 8   // of a cluster
	maxLabels   = 8   // of a cluster
)

// Key identifies a cluster: goroutines of the same state class and the same
// functions, whatever the lines. It is the same in two builds and two formats,
// except that the text of debug=1 does not say what a goroutine waits for.
type Key [16]byte

// String is the key in hexadecimal.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// MarshalText writes the key in hexadecimal.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a key in hexadecimal.
func (k *Key) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(k)) {
		return fmt.Errorf("leak: key %q: want %d digits", b, hex.EncodedLen(len(k)))
	}
	if _, err := hex.Decode(k[:], b); err != nil {
		return fmt.Errorf("leak: key %q: %w", b, err)
	}
	return nil
}

// keyOf is the key of a stack whose names are canonical.
func keyOf(c class, stack []Frame) (k Key) {
	h := fnv.New128a()
	buf := append(make([]byte, 0, 256), byte(c))
	for _, f := range stack {
		buf = append(append(buf, f.Func...), 0)
		_, _ = h.Write(buf)
		buf = buf[:0]
	}
	_, _ = h.Write(buf)
	h.Sum(k[:0])
	return k
}

// Cluster is the goroutines of one key.
type Cluster struct {
	Key   Key   `json:"key"`
	State State `json:"state,omitempty"`
	// Stack is innermost first, as Go prints it, without the runtime's own
	// frames, and with one for a function that calls itself. The lines are those of
	// the most common stack.
	Stack []Frame `json:"stack"`
	// Depth is the most calls that a stack was seen with, recursion and the
	// runtime's frames included.
	Depth int `json:"depth"`
	Count int `json:"count"`
	// Proved are those that the collector found blocked on what nothing can
	// reach (the goroutineleak profile, or "(leaked)" in a dump).
	Proved int `json:"proved,omitempty"`
	// Created are the go statements, the most frequent first: file and line
	// where the goroutines were started. Only dumps say, and profiles of package
	// attach; of the runtime's own it is empty. See [Cluster.Origin].
	Created []Creator `json:"created,omitempty"`
	Labels  []Label   `json:"labels,omitempty"` // the most frequent pprof labels
	Waits   Waits     `json:"waits"`
	Locked  int       `json:"locked,omitempty"`    // locked to their thread
	Cut     bool      `json:"cut,omitempty"`       // the stack's end is missing
	Of      int       `json:"instances,omitempty"` // instances that have it, of a merged snapshot

	most int // goroutines with the lines of Stack
}

// Creator is a go statement and how many goroutines of a cluster came from it.
type Creator struct {
	Frame
	Count int `json:"count"`
}

// Label is a pprof label and how many goroutines of a cluster have it.
type Label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Count int    `json:"count"`
}

// Figure is a number that may be unknown. The zero Figure is unknown.
type Figure struct {
	n  float64
	ok bool
}

func known(n float64) Figure { return Figure{n, true} }

// Get returns the number, false if it is unknown.
func (f Figure) Get() (n float64, ok bool) { return f.n, f.ok }

// MarshalJSON writes the number, or null.
func (f Figure) MarshalJSON() ([]byte, error) {
	if !f.ok {
		return []byte("null"), nil
	}
	return json.Marshal(f.n)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (f *Figure) UnmarshalJSON(b []byte) error {
	*f = Figure{}
	if string(b) == "null" {
		return nil
	}
	if err := json.Unmarshal(b, &f.n); err != nil {
		return fmt.Errorf("leak: figure: %w", err)
	}
	f.ok = true
	return nil
}

// Waits says how long the goroutines of a cluster have been waiting. Only dumps
// say, in minutes. The zero Waits is unknown.
type Waits struct {
	longest time.Duration
	known   bool
}

// Longest is the longest wait, to the minute, false if it is unknown.
func (w Waits) Longest() (time.Duration, bool) { return w.longest, w.known }

// MarshalJSON writes seconds, or null.
func (w Waits) MarshalJSON() ([]byte, error) {
	return Figure{w.longest.Seconds(), w.known}.MarshalJSON()
}

// UnmarshalJSON reads what MarshalJSON writes.
func (w *Waits) UnmarshalJSON(b []byte) error {
	var f Figure
	err := f.UnmarshalJSON(b)
	*w = Waits{time.Duration(f.n * float64(time.Second)), f.ok}
	return err
}

func (w *Waits) add(v Waits) {
	if v.known {
		*w = Waits{max(w.longest, v.longest), true}
	}
}

// Entry is the outermost function: what the go statement started. Its line is
// where the call in it is, not the go statement.
func (c *Cluster) Entry() Frame {
	for i := len(c.Stack) - 1; i >= 0; i-- {
		if _, ok := queueFrames[c.Stack[i].Func]; !ok {
			return c.Stack[i]
		}
	}
	return Frame{}
}

// Origin is the line to look at: the go statement where it is known and is not
// in a library (the standard one, golang.org/x or grpc), else the outermost frame
// of the program's own code (a handler, a task of an errgroup, a function of
// time.AfterFunc), else the go statement wherever it is, else the outermost
// function.
func (c *Cluster) Origin() Frame {
	if len(c.Created) > 0 && !library(c.Created[0].Func) {
		return c.Created[0].Frame
	}
	for i := len(c.Stack) - 1; i >= 0; i-- {
		if f := c.Stack[i]; !library(f.Func) {
			return f
		}
	}
	if len(c.Created) > 0 {
		return c.Created[0].Frame
	}
	return c.Entry()
}

// Blocked is the innermost frame of the program's own code, or of whatever is
// innermost if all is a library's: the line that waits.
func (c *Cluster) Blocked() Frame {
	for _, f := range c.Stack {
		if !library(f.Func) {
			return f
		}
	}
	if len(c.Stack) > 0 {
		return c.Stack[0]
	}
	return Frame{}
}

// Snapshot is the goroutines of one instant, as clusters.
type Snapshot struct {
	Time       time.Time  `json:"time,omitzero"` // set by who took it
	Format     Format     `json:"format"`
	Goroutines int        `json:"goroutines"` // all that were read
	Clusters   []*Cluster `json:"clusters"`   // the largest first
	// Beyond are goroutines of stacks past the bound of 4096 clusters.
	Beyond int `json:"beyond,omitempty"`
	// Torn is how many lines among the goroutines' could not be read, or were
	// missing. The rest of each goroutine is kept.
	Torn  int          `json:"torn,omitempty"`
	First *SyntaxError `json:"first_error,omitempty"` // the first of Torn
	Of    int          `json:"instances,omitempty"`   // how many were merged

	index map[Key]*Cluster
}

// Format is what a snapshot was read from.
type Format string

// The formats that [Parse] knows.
const (
	Profile     Format = "profile"      // pprof protocol buffer, debug=0
	TextProfile Format = "text profile" // debug=1
	Dump        Format = "dump"         // debug=2, panic, SIGQUIT, runtime.Stack
	Merged      Format = "merged"
)

// goroutine is one or more goroutines with the same stack, as read. Its strings
// may be the reader's buffer: put copies what it keeps.
type goroutine struct {
	id      uint64 // 0 if it is unknown
	state   State
	stack   []Frame
	created Frame
	labels  []Label
	waits   Waits
	count   int
	proved  int
	locked  bool
	cut     bool
}

// put adds goroutines to the cluster of their stack.
func (s *Snapshot) put(g *goroutine) *Cluster {
	stack := visible(g.stack)
	for i := range stack {
		stack[i].Func = canonical(stack[i].Func)
	}
	key := keyOf(g.state.class(), stack)
	s.Goroutines += g.count
	c := s.index[key]
	if c == nil {
		if len(s.Clusters) >= maxClusters {
			s.Beyond += g.count
			return nil
		}
		if s.index == nil {
			s.index = map[Key]*Cluster{}
		}
		c = &Cluster{Key: key, State: clone(g.state), Stack: make([]Frame, len(stack))}
		for i, f := range stack {
			c.Stack[i] = Frame{clone(f.Func), clone(f.File), f.Line}
		}
		s.index[key] = c
		s.Clusters = append(s.Clusters, c)
	}
	if c.Count == 0 || g.count > c.most && !sameLines(c.Stack, stack) {
		for i, f := range stack {
			c.Stack[i].Line = f.Line
		}
		c.most = 0
	}
	if sameLines(c.Stack, stack) {
		c.most += g.count
	}
	c.Count += g.count
	c.Proved += g.proved
	c.Cut = c.Cut || g.cut
	c.Depth = max(c.Depth, len(g.stack))
	if g.locked {
		c.Locked += g.count
	}
	c.Waits.add(g.waits)
	if g.created.Func != "" {
		c.creator(g.created, g.count)
	}
	for _, l := range g.labels {
		c.label(l, g.count)
	}
	return c
}

func (c *Cluster) creator(f Frame, n int) {
	f.Func = canonical(f.Func)
	for i := range c.Created {
		if c.Created[i].Frame == f {
			c.Created[i].Count += n
			return
		}
	}
	if len(c.Created) < maxCreators {
		c.Created = append(c.Created, Creator{Frame{clone(f.Func), clone(f.File), f.Line}, n})
	}
}

func (c *Cluster) label(l Label, n int) {
	for i := range c.Labels {
		if c.Labels[i].Key == l.Key && c.Labels[i].Value == l.Value {
			c.Labels[i].Count += n
			return
		}
	}
	if len(c.Labels) < maxLabels {
		c.Labels = append(c.Labels, Label{clone(l.Key), clone(l.Value), n})
	}
}

// done puts everything into its order: the same input, the same output.
func (s *Snapshot) done() {
	slices.SortStableFunc(s.Clusters, func(a, b *Cluster) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), slices.Compare(a.Key[:], b.Key[:]))
	})
	for _, c := range s.Clusters {
		sort.SliceStable(c.Created, func(i, j int) bool { return c.Created[i].Count > c.Created[j].Count })
		sort.SliceStable(c.Labels, func(i, j int) bool {
			a, b := &c.Labels[i], &c.Labels[j]
			return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value)) < 0
		})
	}
}

// Find returns the cluster of a key, nil if there is none.
func (s *Snapshot) Find(k Key) *Cluster {
	for _, c := range s.Clusters {
		if c.Key == k {
			return c
		}
	}
	return nil
}

// visible is a stack without the runtime's own frames, or the stack as it is if
// it has no others. Calls of a function to itself are one frame, the innermost:
// the depth of a recursion says nothing about the place.
func visible(stack []Frame) []Frame {
	keep := make([]Frame, 0, len(stack))
	add := func(f Frame) {
		if n := len(keep); n == 0 || keep[n-1].Func != f.Func {
			keep = append(keep, f)
		}
	}
	for _, f := range stack {
		_, queue := queueFrames[f.Func]
		if queue || f.Func != "panic" && !ofRuntime(f.Func) && !wrapper(f.Func) {
			add(f)
		}
	}
	if len(keep) == 0 {
		for _, f := range stack {
			add(f)
		}
	}
	return keep[:min(len(keep), maxFrames)]
}

func sameLines(a, b []Frame) bool {
	return slices.EqualFunc(a, b, func(a, b Frame) bool { return a.Line == b.Line })
}

func clone[S ~string](s S) S { return S(append([]byte(nil), s...)) }
