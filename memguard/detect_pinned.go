// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"

	"github.com/memguard/memguard-go/memguard/leak"
)

// stackPinned: large stacks of goroutines in system calls, which the collector
// does not shrink until they return (runtime/stack.go, isShrinkStackSafe).
type stackPinned struct{ largest *leak.Cluster }

func (*stackPinned) id() ID { return "stack-pinned" }

func (d *stackPinned) step(s *Sample) verdict {
	if s.Leaks == nil {
		return blindly(noGoroutines)
	}
	mapped, ok := s.Runtime.mapped().Get()
	stacks, ok2 := s.Runtime.Stacks.Get()
	if !ok || !ok2 {
		return blindly("the runtime's memory classes are unknown")
	}
	p := s.Leaks.Pinned
	if p == nil || p.Largest == nil || p.Bytes < pinnedLeast {
		return clearly()
	}
	d.largest = p.Largest
	v := verdict{state: found, severity: Info}
	if p.Bytes >= stackLeast && float64(p.Bytes) >= stackShare*float64(mapped) {
		v.severity = Warning
	}
	v.add("in system calls or C", float64(p.Goroutines), UnitCount)
	v.add("their stacks, about", float64(p.Bytes), UnitBytes)
	v.add("all stacks", float64(stacks), UnitBytes)
	return v
}

func (d *stackPinned) say(v *verdict) string {
	return fmt.Sprintf("%.0f goroutines are in system calls or C with about %s of stacks that cannot shrink, most of them in %s.",
		v.fact("in system calls or C"), mib(v.fact("their stacks, about")), d.largest.Blocked())
}
