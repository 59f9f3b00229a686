// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"math/bits"
	"runtime/metrics"
	"sort"
)

// StackUse is the stacks of one cluster.
type StackUse struct {
	Cluster *Cluster `json:"cluster"`
	Bytes   uint64   `json:"bytes"` // estimated; see [Snapshot.Stacks]
	// Pinned stacks are of goroutines in system calls or C: the collector does
	// not shrink them until they return (runtime/stack.go, isShrinkStackSafe),
	// and each holds a thread.
	Pinned bool `json:"pinned,omitempty"`
}

// A stack is a power of two. No interface says which, so it is estimated from
// the depth.
const (
	smallestStack = 2048 // runtime/stack.go, stackMin
	frameBytes    = 128  // of one call, in the middle
)

// stackBytes estimates the stacks of a cluster by the depth. Collections halve
// the stack of who waits until a quarter of it is in use or the smallest is
// reached (runtime/stack.go, shrinkstack), whatever size it began with.
func stackBytes(c *Cluster) uint64 {
	return uint64(c.Count) * max(smallestStack, ceil2(uint64(c.Depth+2)*frameBytes))
}

// Stacks estimates how the stack bytes are divided, the largest first. total is
// /memory/classes/heap/stacks:bytes of the same instant, 0 if it is unknown. If
// it is known, the estimates add up to it; what a goroutine's stack once grew to
// does not show in its depth.
func (s *Snapshot) Stacks(total uint64) []StackUse {
	us := make([]StackUse, 0, len(s.Clusters))
	sum := 0.0
	for _, c := range s.Clusters {
		u := StackUse{c, stackBytes(c), c.State.class() == inSyscall}
		sum += float64(u.Bytes)
		us = append(us, u)
	}
	if total > 0 && sum > 0 {
		for i := range us {
			us[i].Bytes = uint64(float64(us[i].Bytes) / sum * float64(total))
		}
	}
	sort.SliceStable(us, func(i, j int) bool { return us[i].Bytes > us[j].Bytes })
	return us
}

// StackMetrics returns what all stacks of the calling process hold, for
// [Snapshot.Stacks], and the size that a stack begins with; 0 is unknown. That
// size is, since Go 1.19, what the last collection found in use on average, rounded
// up to a power of two, so that some goroutines that are parked deep raise it. A
// goroutine gets it that takes over the descriptor of one that has ended, as most
// do in a service that has been running for a while; a new descriptor comes with 2
// KiB (runtime/proc.go, gfget and newproc1; runtime/stack.go,
// gcComputeStartingStackSize).
func StackMetrics() (total, starting uint64) {
	samples := [2]metrics.Sample{{Name: "/memory/classes/heap/stacks:bytes"}, {Name: "/gc/stack/starting-size:bytes"}}
	metrics.Read(samples[:])
	var n [2]uint64
	for i, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			n[i] = s.Value.Uint64()
		}
	}
	return n[0], n[1]
}

// ceil2 is the least power of two that is not below n.
func ceil2(n uint64) uint64 { return 1 << bits.Len64(max(n, 1)-1) }
