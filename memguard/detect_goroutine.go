// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"strings"

	"github.com/memguard/memguard-go/memguard/leak"
)

// goroutineLeak: goroutines are left behind at a line.
type goroutineLeak struct{ goroutines }

// goroutineGrowth: goroutines grow in number at a line, and may be load.
type goroutineGrowth struct{ goroutines }

func (*goroutineLeak) id() ID   { return "goroutine-leak" }
func (*goroutineGrowth) id() ID { return "goroutine-growth" }

func (d *goroutineLeak) step(s *Sample) verdict {
	return d.find(s, Warning, leak.Leaking, leak.Proved)
}

func (d *goroutineGrowth) step(s *Sample) verdict {
	return d.find(s, Info, leak.Growing, leak.Growing)
}

// goroutines keeps the verdicts that were found last: figures do not say where.
type goroutines struct{ found []leak.Verdict }

const noGoroutines = "the goroutines are not followed, or were not looked at yet: their growth is seen by the guard in the process only"

// find looks for verdicts between two levels. The first of them is the one that
// is told.
func (d *goroutines) find(s *Sample, severity Severity, least, most leak.Level) verdict {
	if s.Leaks == nil {
		return blindly(noGoroutines)
	}
	from, to := 0, 0 // the surest are first
	for _, v := range s.Leaks.Verdicts {
		if v.Level > most {
			from++
		}
		if v.Level >= least {
			to++
		}
	}
	if from == to {
		return clearly()
	}
	d.found = s.Leaks.Verdicts[from:to]
	first := &d.found[0]
	v := verdict{state: found, severity: severity}
	v.add("goroutines", float64(first.Cluster.Count), UnitCount)
	v.add("more in a minute", first.PerMinute, UnitCount)
	v.add("there for", first.Age.Seconds(), UnitSeconds)
	v.add("stacks that do so", float64(to-from), UnitCount)
	if all, ok := s.Runtime.Stacks.Get(); ok {
		v.add("their stack bytes, about", first.Stacks*float64(all), UnitBytes)
	}
	if first.Proved > 0 {
		v.add("proved by the collector", float64(first.Proved), UnitCount)
	}
	return v
}

func (d *goroutines) say(*verdict) string {
	if len(d.found) == 0 {
		return ""
	}
	first := &d.found[0]
	s := strings.TrimSuffix(first.Summary(), ".")
	if first.Shape != nil {
		s += ": " + strings.TrimSuffix(first.Shape.Why, ".")
	}
	const most = 3
	for i := range d.found[1:] {
		if i == most {
			return s + fmt.Sprintf("; and %d more stacks.", len(d.found)-1-most)
		}
		v := &d.found[1+i]
		s += fmt.Sprintf("; also %d from %s", v.Cluster.Count, v.Origin())
	}
	return s + "."
}

// remedy is what the shape of the stack says, if it is known.
func (d *goroutines) remedy() string {
	if len(d.found) == 0 || d.found[0].Shape == nil {
		return ""
	}
	return d.found[0].Shape.Remedy
}
