// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"

	"github.com/memguard/memguard-go/scavenge/smaps"
)

// thpRefill: huge pages made released heap resident again.
type thpRefill struct{}

const (
	refillLeast = 32 << 20
	refillShare = 0.10
)

func (thpRefill) id() ID { return "thp-refill" }

func (thpRefill) step(s *Sample) verdict {
	if s.Process.Maps == nil {
		return blindly("needs smaps, which is not read on a tick")
	}
	claimed, ok := s.Runtime.heapClaimed().Get()
	if !ok {
		return blindly("the runtime's memory classes are unknown")
	}
	heap := s.Process.Maps.ByKind(smaps.GoHeap)
	rss, ok := heap.Bytes(smaps.Rss)
	huge, ok2 := heap.Bytes(smaps.AnonHugePages)
	if !ok || !ok2 {
		return blindly("smaps does not tell the heap's Rss and AnonHugePages")
	}
	lazy, _ := heap.Bytes(smaps.LazyFree) // kernels before 4.12 have no MADV_FREE to account for
	beyond := int64(rss) - int64(lazy) - int64(claimed)
	if huge == 0 || beyond < refillLeast || float64(beyond) < refillShare*float64(rss) {
		return clearly()
	}
	v := verdict{state: found, severity: Warning}
	v.add("resident beyond the runtime's sum", float64(beyond), UnitBytes)
	v.add("heap resident", float64(rss), UnitBytes)
	v.add("in huge pages", float64(huge), UnitBytes)
	return v
}

func (thpRefill) say(v *verdict) string {
	return fmt.Sprintf("%s of released heap are resident again: %s of it are huge pages.",
		mib(v.fact("resident beyond the runtime's sum")), mib(v.fact("in huge pages")))
}
