// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"

	"github.com/memguard/memguard-go/scavenge/smaps"
)

// lazyFree: RSS counts pages that are given back already.
type lazyFree struct{}

const (
	lazyLeast = 32 << 20
	lazyShare = 0.10
)

func (lazyFree) id() ID { return "lazyfree-rss" }

func (lazyFree) step(s *Sample) verdict {
	if s.Process.Maps == nil {
		return blindly("needs smaps, which is not read on a tick")
	}
	total := s.Process.Maps.Total()
	lazy, ok := total.Bytes(smaps.LazyFree)
	rss, ok2 := total.Bytes(smaps.Rss)
	if !ok || !ok2 {
		return blindly("smaps has no LazyFree: a kernel before 4.12")
	}
	if lazy < lazyLeast || float64(lazy) < lazyShare*float64(rss) {
		return clearly()
	}
	v := verdict{state: found, severity: Info}
	v.add("LazyFree", float64(lazy), UnitBytes)
	v.add("RSS", float64(rss), UnitBytes)
	return v
}

func (lazyFree) say(v *verdict) string {
	return fmt.Sprintf("%s of the RSS of %s are given back already and go when the kernel needs them.",
		mib(v.fact("LazyFree")), mib(v.fact("RSS")))
}
