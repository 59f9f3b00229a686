// SPDX-License-Identifier: Apache-2.0

//go:build !memguard_sidecar

package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/incident"
)

// looker looks at what takes a walk through the process's memory, and at what has
// died beside it.
type looker struct {
	target *attach.Target // nil where it cannot be read
	next   time.Time
}

// looks is what a looker saw.
type looks struct {
	Clusters  []attach.Cluster   `json:"goroutine_clusters"` // biggest first; null is unknown
	Classes   []attach.SizeClass `json:"size_classes"`       // biggest first; null is unknown
	Looked    time.Time          `json:"looked,omitzero"`    // when these were seen
	Incidents []incident.Summary `json:"incidents"`          // of the sidecar's store, the last first; null: there is none here
}

const (
	lookRest  = 10 * time.Second
	lookShare = 200 // a walk takes at most one part of so many
	looksKept = 20
	lastKept  = 3
)

func openLooker(pid int) *looker {
	t, err := attach.Open(pid)
	if err != nil {
		t = nil // why is among what the view is blind to
	}
	return &looker{target: t}
}

func (l *looker) close() {
	if l.target != nil {
		_ = l.target.Close()
	}
}

// look renews what is old enough.
func (l *looker) look(ctx context.Context, v *looks) {
	began := time.Now()
	if began.Before(l.next) {
		return
	}
	defer func() { l.next = time.Now().Add(max(lookRest, lookShare*time.Since(began))) }()
	v.Incidents = lastIncidents()
	if l.target == nil {
		return
	}
	s, err := l.target.Snapshot(ctx, attach.Spans|attach.Goroutines)
	if err != nil {
		return // that it has ended is to be seen elsewhere
	}
	v.Looked, v.Clusters, v.Classes = s.Time, s.Goroutines.Clusters, slices.Clone(s.SizeClasses)
	slices.SortStableFunc(v.Classes, func(a, b attach.SizeClass) int { return cmp.Compare(b.Bytes, a.Bytes) })
	v.Clusters = v.Clusters[:min(len(v.Clusters), looksKept)]
	v.Classes = v.Classes[:min(len(v.Classes), looksKept)]
}

// lastIncidents are the last of the store that memguard incident reads by default.
func lastIncidents() []incident.Summary {
	s, err := incident.ReadStore(defaultStore(os.Getenv))
	if err != nil {
		return nil
	}
	all, _ := s.List()
	slices.SortStableFunc(all, func(a, b incident.Summary) int { return b.Time.Compare(a.Time) })
	return all[:min(len(all), lastKept)]
}

// clusterLine is a cluster in one line: how many wait for what, and where.
func clusterLine(c *attach.Cluster) string {
	where := c.Start
	for _, f := range c.Stack {
		if !strings.HasPrefix(f.Func, "runtime.") {
			where = f.Func
			break
		}
	}
	what := c.State
	if c.Reason != "" {
		what = c.Reason
	}
	s := fmt.Sprintf("%8d  %-20s %s", c.Count, fit(what, 20), where)
	if c.CreatedBy.Func != "" {
		s += ", created in " + c.CreatedBy.Func
	}
	return s
}

// classLine is a size class in one line.
func classLine(c *attach.SizeClass) string {
	class := "large"
	if c.Size > 0 {
		class = fmt.Sprintf("%d B", c.Size)
	}
	return fmt.Sprintf("%8s  %10d objects  %10s in spans, %s of it free", class, c.Objects, size(float64(c.Bytes)), size(float64(c.Free)))
}
