// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"

	"github.com/memguard/memguard-go/memguard/leak"
)

// stackBloat: goroutine stacks hold a large part of the memory.
type stackBloat struct{ deepest *leak.Cluster }

const (
	stackLeast = 64 << 20
	stackShare = 0.25
)

func (*stackBloat) id() ID { return "stack-bloat" }

func (d *stackBloat) step(s *Sample) verdict {
	r := &s.Runtime
	stacks, ok := r.Stacks.Get()
	mapped, ok2 := r.mapped().Get()
	if !ok || !ok2 {
		return blindly("the runtime's memory classes are unknown")
	}
	if stacks < stackLeast || float64(stacks) < stackShare*float64(mapped) {
		return clearly()
	}
	v := verdict{state: found, severity: Warning}
	v.add("stacks", float64(stacks), UnitBytes)
	v.add("held by the runtime", float64(mapped), UnitBytes)
	if n, ok := r.Goroutines.Get(); ok && n > 0 {
		v.add("goroutines", float64(n), UnitCount)
		v.add("bytes per goroutine", float64(stacks)/float64(n), UnitBytes)
	}
	if d.deepest = nil; s.Leaks == nil {
		return v
	}
	if use := s.Leaks.Deepest; use != nil {
		d.deepest = use.Cluster
		v.add("of the largest cluster, about", float64(use.Bytes), UnitBytes)
	}
	if n, ok := s.Leaks.StackStart.Get(); ok {
		v.add(stackStart, float64(n), UnitBytes)
	}
	return v
}

const stackStart = "starting size"

func (d *stackBloat) say(v *verdict) string {
	s := fmt.Sprintf("Goroutine stacks hold %s of %s", mib(v.fact("stacks")), mib(v.fact("held by the runtime")))
	if n := v.fact("goroutines"); n > 0 {
		s += fmt.Sprintf(": %.0f goroutines with %s each", n, mib(v.fact("bytes per goroutine")))
	}
	if d.deepest != nil {
		s += fmt.Sprintf("; the most, about %s, are of %d in %s", mib(v.fact("of the largest cluster, about")), d.deepest.Count, d.deepest.Blocked())
	}
	// Twice the smallest: what is parked deep makes the others begin large.
	if n := v.fact(stackStart); n >= 4<<10 {
		s += fmt.Sprintf(". Goroutines that follow others begin with %.0f KiB, since that is in use on average", n/(1<<10))
	}
	return s + "."
}
