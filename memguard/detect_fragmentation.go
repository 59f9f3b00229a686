// SPDX-License-Identifier: Apache-2.0

package memguard

import "fmt"

// spanFragmentation: survivors pin spans that are mostly empty.
type spanFragmentation struct{}

const (
	fragmentedLeast = 32 << 20
	fragmentedShare = 0.40
)

func (spanFragmentation) id() ID { return "span-fragmentation" }

func (spanFragmentation) step(s *Sample) verdict {
	r := &s.Runtime
	unused, ok := r.Unused.Get()
	objects, ok2 := r.Objects.Get()
	if !ok || !ok2 {
		return blindly("the runtime's memory classes are unknown")
	}
	if _, ok := r.Live.Get(); !ok {
		return clearly() // before the first cycle nothing has died
	}
	share := float64(unused) / float64(max(objects+unused, 1))
	if unused < fragmentedLeast || share < fragmentedShare {
		return clearly()
	}
	v := verdict{state: found, severity: Warning}
	v.add("unused in spans", float64(unused), UnitBytes)
	v.add("objects", float64(objects), UnitBytes)
	v.add("share unused", 100*share, UnitPercent)
	return v
}

func (spanFragmentation) say(v *verdict) string {
	return fmt.Sprintf("%s in spans in use hold no object (%.0f %%): survivors pin their pages.",
		mib(v.fact("unused in spans")), v.fact("share unused"))
}
