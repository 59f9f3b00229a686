// SPDX-License-Identifier: Apache-2.0

package scavenge

import (
	"fmt"
	"strings"
	"time"
)

// Reason is the trigger behind a plan, with its figures.
type Reason struct {
	Trigger   Trigger
	Figure    uint64 // bytes; objects for SizeClass
	Threshold uint64 // in the same unit; for Limit, the limit
	Gain      uint64 // bytes that a release may gain at most; 0 when unknown

	Class   Class   // for SizeClass
	Usage   uint64  // of the cgroup, in bytes; known when Limit is not 0
	Limit   uint64  // of the cgroup, in bytes
	Account Account // of the releases so far
}

// reason collects the figures behind a trigger's grade.
func (r *Releaser) reason(t Trigger, in *Reading) Reason {
	f := &r.triggers[t].figure
	reason := Reason{Trigger: t, Figure: f.value, Threshold: f.threshold, Gain: f.gain, Account: r.books.account}
	if in.Cgroup != nil {
		reason.Usage, reason.Limit = in.Cgroup.Usage, in.Cgroup.Limit
	}
	if t == SizeClass && in.Class != nil {
		reason.Class = *in.Class
	}
	return reason
}

// String says it in one line; empty for the zero Reason.
func (r *Reason) String() string {
	var b strings.Builder
	switch r.Trigger {
	case SizeClass:
		if fmt.Fprintf(&b, "%d objects", r.Figure); r.Class.Size > 0 {
			fmt.Fprintf(&b, " of %d B (%s)", r.Class.Size, mib(r.Class.Bytes))
		}
		fmt.Fprintf(&b, " are outstanding in a size class that grows; worth a look are %d", r.Threshold)
	case Neighbour:
		fmt.Fprintf(&b, "others fill the cgroup while we retain %s; worth returning are %s", mib(r.Figure), mib(r.Threshold))
	case Stacks:
		fmt.Fprintf(&b, "stacks are %s larger than what is in use on them; worth collecting are %s", mib(r.Figure), mib(r.Threshold))
	case Idle:
		fmt.Fprintf(&b, "%s are left over and no collection is coming; worth returning are %s", mib(r.Figure), mib(r.Threshold))
	case NonHeap:
		fmt.Fprintf(&b, "memory outside the heap grows near the limit, and the heap could give %s; worth returning are %s", mib(r.Figure), mib(r.Threshold))
	case Limit:
		fmt.Fprintf(&b, "%s of the limit of %s cannot be freed by any collection", mib(r.Figure), mib(r.Threshold))
	default:
		return ""
	}
	if r.Limit > 0 {
		fmt.Fprintf(&b, "; usage %s of %s", mib(r.Usage), mib(r.Limit))
	}
	if a := &r.Account; a.Ended > 0 {
		fmt.Fprintf(&b, "; the last release took %v", a.Last.Took.Round(time.Millisecond))
		if gained, ok := a.Last.Gained(); ok {
			fmt.Fprintf(&b, " and gave back %s", mib(max(gained, 0)))
		}
	}
	return b.String()
}

func mib[T int64 | uint64](n T) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
