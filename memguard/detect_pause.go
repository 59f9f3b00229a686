// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"time"
)

// gcPause: the collector stops the world for long.
type gcPause struct {
	base, mid pauseCount // a window of half a minute to a minute begins at base
}

type pauseCount struct {
	at              time.Time
	over500, over10 uint64
}

const (
	pauseHalf = 30 * time.Second
	pauseMany = 10
	pauseSome = 3 // that are over 10 ms
)

func (*gcPause) id() ID { return "gc-pause" }

func (d *gcPause) step(s *Sample) verdict {
	over500, ok := s.Runtime.PausesOver500us.Get()
	over10, ok2 := s.Runtime.PausesOver10ms.Get()
	if !ok || !ok2 {
		return blindly("the collector's pauses are unknown")
	}
	now := pauseCount{s.Time, over500, over10}
	if d.base.at.IsZero() || s.Time.Before(d.mid.at) || over500 < d.base.over500 {
		d.base, d.mid = now, now
	}
	if s.Time.Sub(d.mid.at) >= pauseHalf {
		d.base, d.mid = d.mid, now
	}
	long, veryLong := over500-d.base.over500, over10-min(over10, d.base.over10)
	if long < pauseMany && veryLong < pauseSome {
		return clearly()
	}
	v := verdict{state: found, severity: Info}
	if veryLong >= pauseMany {
		v.severity = Warning
	}
	v.add("pauses over 500 us", float64(long), UnitCount)
	v.add("pauses over 10 ms", float64(veryLong), UnitCount)
	v.add("in", s.Time.Sub(d.base.at).Seconds(), UnitSeconds)
	return v
}

func (*gcPause) say(v *verdict) string {
	return fmt.Sprintf("The collector stopped the world for more than 500 us %.0f times in the last %.0f s, %.0f of them for more than 10 ms.",
		v.fact("pauses over 500 us"), v.fact("in"), v.fact("pauses over 10 ms"))
}
