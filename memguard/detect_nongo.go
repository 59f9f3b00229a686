// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"

	"github.com/memguard/memguard-go/scavenge/smaps"
)

// nonGoGrowth: anonymous memory that is not Go's grows steadily.
type nonGoGrowth struct {
	trend trend
	from  bool // whether the trend is of smaps; the two figures are not comparable
}

const (
	nonGoLeast  = 16 << 20
	nonGoSlope  = 64 << 10 // bytes a second
	nonGoSteady = 30       // seconds: what loads once is done by then
)

func (*nonGoGrowth) id() ID { return "nongo-growth" }

func (d *nonGoGrowth) step(s *Sample) verdict {
	n, ok := nonGo(s)
	if !ok {
		return blindly("what is not Go's cannot be told apart: it takes the runtime's figures, or smaps over time")
	}
	if maps := s.Process.Maps != nil && !s.Runtime.seen(); maps != d.from {
		d.trend, d.from = trend{}, maps
	}
	// Below zero it is Go's memory that is touched for the first time.
	d.trend.add(s.Time, float64(max(n, 0)))
	slope, over, ok := d.trend.perSecond()
	grown, in := d.trend.grown()
	if !ok || slope < nonGoSlope || grown < nonGoLeast {
		return clearly()
	}
	v := verdict{state: found, severity: Info}
	if over >= nonGoSteady {
		v.severity = Warning
	}
	v.add("grown by", grown, UnitBytes)
	v.add("in", in, UnitSeconds)
	v.add("slope at least", slope, UnitBytesPerSecond)
	return v
}

func (*nonGoGrowth) say(v *verdict) string {
	return fmt.Sprintf("Memory that is not Go's has grown by %s in %.0f s.", mib(v.fact("grown by")), v.fact("in"))
}

// nonGo is resident anonymous memory that is not the Go runtime's. In the
// process it is what the kernel counts less what the runtime holds, too low by
// memory that Go holds and never touched, so its growth is right and its level
// is not. From outside it is the mappings that are not Go's.
func nonGo(s *Sample) (int64, bool) {
	if s.Runtime.seen() {
		return minus(s.Process.anon(), s.Runtime.mapped()).Get()
	}
	if s.Process.Maps == nil || !s.Process.Go {
		return 0, false
	}
	var sum uint64
	for _, k := range []smaps.Kind{smaps.Brk, smaps.LibcArena, smaps.Anon} {
		f := s.Process.Maps.ByKind(k)
		n, ok := f.Bytes(smaps.Rss)
		if !ok {
			return 0, false
		}
		sum += n
	}
	return int64(sum), true
}
