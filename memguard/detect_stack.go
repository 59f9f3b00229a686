// SPDX-License-Identifier: Apache-2.0

package memguard

import "fmt"

// stackBloat: goroutine stacks hold a large part of the memory.
type stackBloat struct{}

const (
	stackLeast = 64 << 20
	stackShare = 0.25
)

func (stackBloat) id() ID { return "stack-bloat" }

func (stackBloat) step(s *Sample) verdict {
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
	return v
}

func (stackBloat) say(v *verdict) string {
	s := fmt.Sprintf("Goroutine stacks hold %s of %s", mib(v.fact("stacks")), mib(v.fact("held by the runtime")))
	if n := v.fact("goroutines"); n > 0 {
		return s + fmt.Sprintf(": %.0f goroutines with %s each.", n, mib(v.fact("bytes per goroutine")))
	}
	return s + "."
}
