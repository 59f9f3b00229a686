// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"cmp"
	"slices"
	"sort"
)

// Change is one cluster in two snapshots.
type Change struct {
	Cluster *Cluster `json:"cluster"` // of the later one if it is there, else of the earlier
	Before  int      `json:"before"`  // goroutines
	After   int      `json:"after"`
	Shape   *Shape   `json:"shape,omitempty"`
	// Instances is how many of the instances of a merged snapshot have it.
	Instances int `json:"instances,omitempty"`
}

// Grown is how many goroutines came, negative if they went.
func (c *Change) Grown() int { return c.After - c.Before }

// Diff is what changed between two snapshots.
type Diff struct {
	Before   int      `json:"before"` // goroutines
	After    int      `json:"after"`
	Appeared []Change `json:"appeared"` // clusters that are only in the later one
	Grew     []Change `json:"grew"`
	Stayed   []Change `json:"stayed"` // the same number
	Shrank   []Change `json:"shrank"` // with those that are gone
}

// Compare says what changed from one snapshot to a later one: each list ranked
// by the change, then by blocked before busy, then by size. The two may be of
// different builds of one program, and in different formats as far as [Key]
// allows.
func Compare(before, after *Snapshot) *Diff {
	d := &Diff{
		Before: before.Goroutines, After: after.Goroutines,
		Appeared: []Change{}, Grew: []Change{}, Stayed: []Change{}, Shrank: []Change{},
	}
	old := map[Key]*Cluster{}
	for _, c := range before.Clusters {
		old[c.Key] = c
	}
	for _, c := range after.Clusters {
		ch := Change{Cluster: c, After: c.Count, Shape: shapeOf(c), Instances: c.Of}
		if o := old[c.Key]; o != nil {
			ch.Before = o.Count
			delete(old, c.Key)
			if len(c.Created) == 0 && len(o.Created) > 0 {
				ch.Cluster = c.clone()
				ch.Cluster.Created = o.Created
			}
		}
		switch {
		case ch.Before == 0:
			d.Appeared = append(d.Appeared, ch)
		case ch.Grown() > 0:
			d.Grew = append(d.Grew, ch)
		case ch.Grown() == 0:
			d.Stayed = append(d.Stayed, ch)
		default:
			d.Shrank = append(d.Shrank, ch)
		}
	}
	for _, o := range old {
		d.Shrank = append(d.Shrank, Change{Cluster: o, Before: o.Count, Shape: shapeOf(o), Instances: o.Of})
	}
	for _, list := range [][]Change{d.Appeared, d.Grew, d.Stayed, d.Shrank} {
		sort.Slice(list, func(i, j int) bool {
			a, b := &list[i], &list[j]
			return cmp.Or(
				cmp.Compare(abs(b.Grown()), abs(a.Grown())),
				cmp.Compare(weight(b.Cluster), weight(a.Cluster)),
				cmp.Compare(max(b.After, b.Before), max(a.After, a.Before)),
				slices.Compare(a.Cluster.Key[:], b.Cluster.Key[:])) < 0
		})
	}
	return d
}

func abs(n int) int { return max(n, -n) }

func weight(c *Cluster) int {
	if c.Proved > 0 || c.State.class().blocked() {
		return 1
	}
	return 0
}

// Merge adds up snapshots of many instances of one service. The clusters say in
// how many of them they are: the same stack blocked in many instances is the
// strongest sign of a leak. They are ranked by that, then by size.
func Merge(snaps ...*Snapshot) *Snapshot {
	m := &Snapshot{Format: Merged, index: map[Key]*Cluster{}}
	for _, s := range snaps {
		m.Of += max(s.Of, 1)
		m.Goroutines += s.Goroutines
		m.Beyond += s.Beyond
		m.Torn += s.Torn
		m.First = cmp.Or(m.First, s.First)
		if s.Time.After(m.Time) {
			m.Time = s.Time
		}
		for _, c := range s.Clusters {
			m.join(c)
		}
	}
	m.done()
	slices.SortStableFunc(m.Clusters, func(a, b *Cluster) int { return cmp.Compare(b.Of, a.Of) })
	return m
}

func (s *Snapshot) join(c *Cluster) {
	own := s.index[c.Key]
	if own == nil {
		if len(s.Clusters) >= maxClusters {
			s.Beyond += c.Count
			return
		}
		own = c.clone()
		own.Of = max(c.Of, 1)
		s.index[c.Key] = own
		s.Clusters = append(s.Clusters, own)
		return
	}
	own.Count += c.Count
	own.Proved += c.Proved
	own.Locked += c.Locked
	own.Cut = own.Cut || c.Cut
	own.Depth = max(own.Depth, c.Depth)
	own.Of += max(c.Of, 1)
	own.Waits.add(c.Waits)
	for _, by := range c.Created {
		own.creator(by.Frame, by.Count)
	}
	for _, l := range c.Labels {
		own.label(l, l.Count)
	}
}
