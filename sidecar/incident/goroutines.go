// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"bytes"
	"cmp"
	"sort"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/memguard/memguard-go/sidecar/attach"
)

// Goroutines is what the goroutines did at the end.
type Goroutines struct {
	From     string         `json:"from"` // where that was read
	Total    memguard.Count `json:"total"`
	Clusters []Cluster      `json:"clusters"` // the most goroutines first
}

// Cluster are goroutines that did the same at the same place.
type Cluster struct {
	Count   uint64       `json:"count"`
	State   string       `json:"state"`
	Func    string       `json:"func"`             // the innermost of the program's own: where they are
	Created leak.Frame   `json:"created,omitzero"` // the go statement, if it is known
	Stack   []leak.Frame `json:"stack"`            // innermost first
	Why     string       `json:"stack_unknown,omitempty"`
	Longest *float64     `json:"longest_wait_seconds"` // of the one that waits longest; null is unknown
}

// fromSnapshot takes them from what was read from outside.
func fromSnapshot(s *attach.Snapshot) *Goroutines {
	if s == nil || s.Goroutines.Clusters == nil {
		return nil
	}
	g := &Goroutines{From: "read from outside, " + tame(s.How.Way, mostName), Total: s.Goroutines.Total}
	for _, c := range s.Goroutines.Clusters {
		if c.System {
			continue
		}
		out := Cluster{
			Count: c.Count, State: tame(cmp.Or(c.Reason, c.State), mostName), Stack: attached(c.Stack),
			Created: leak.Frame{Func: tame(c.CreatedBy.Func, mostName), File: tame(c.CreatedBy.File, mostName), Line: c.CreatedBy.Line},
			Why:     tame(c.StackWhy, mostText),
		}
		if out.Func = own(out.Stack).Func; out.Func == "" {
			out.Func = tame(c.Start, mostName)
		}
		if ns, ok := c.LongestNs.Get(); ok {
			s := float64(ns) / 1e9
			out.Longest = &s
		}
		g.add(out)
	}
	return g
}

// fromProfile takes them from a goroutine profile or a dump, whose bytes may be
// anything.
func fromProfile(b []byte, from string) (*Goroutines, error) {
	s, err := leak.Parse(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	g := &Goroutines{From: from, Total: memguard.Known(uint64(max(s.Goroutines, 0)))}
	for _, c := range s.Clusters {
		out := Cluster{Count: uint64(max(c.Count, 0)), State: tame(string(c.State), mostName), Stack: frames(c.Stack)}
		out.Func = own(out.Stack).Func
		if len(c.Created) > 0 {
			out.Created = frames([]leak.Frame{c.Created[0].Frame})[0]
		}
		if d, ok := c.Waits.Longest(); ok {
			s := d.Seconds()
			out.Longest = &s
		}
		g.add(out)
	}
	return g, nil
}

// add keeps the biggest ones.
func (g *Goroutines) add(c Cluster) {
	g.Clusters = append(g.Clusters, c)
	sort.SliceStable(g.Clusters, func(i, j int) bool { return g.Clusters[i].Count > g.Clusters[j].Count })
	g.Clusters = g.Clusters[:min(len(g.Clusters), mostShown)]
}
