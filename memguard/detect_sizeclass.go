// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"cmp"
	"fmt"
	"time"

	"github.com/memguard/memguard-go/memguard/sizeclass"
)

// sizeclassGrowth: objects of one size pile up, from cycle to cycle.
//
// The tracker says what has grown, over minutes and hours, and goes on saying so
// for a part of that after it has ended. A cache that has filled is not to be
// called a leak for as long, so it must also grow now.
type sizeclassGrowth struct {
	objects uint64 // outstanding in one class that are worth a finding; 0 is sizeclassObjects
	tracker sizeclass.Tracker
	at      time.Time          // of the last look that was taken
	growing []sizeclass.Growth // the tracker's
	most    sizeclass.Growth   // the one to be told: figures do not say of which size
	floors  floors             // of that
}

const (
	sizeclassObjects = 500_000 // outstanding in one class, where Config.ClassObjects says nothing
	// A cache that fills for the first time grows like a leak. It is a warning when
	// it has been going on for that long, and has added a good part of what is there.
	sizeclassLong  = 3 * time.Minute
	sizeclassShare = 0.25
)

func (*sizeclassGrowth) id() ID { return "sizeclass-growth" }

func (d *sizeclassGrowth) step(s *Sample) verdict {
	r := &s.Runtime
	if r.Classes == nil || len(r.Classes.All) == 0 {
		return blindly("the heap's size classes are unknown: they are read in the process only")
	}
	if !r.ClassesAt.Equal(d.at) {
		d.at, d.growing = r.ClassesAt, d.tracker.Step(r.ClassesAt, r.Classes)
		d.follow(r.Classes)
	}
	if d.most.Objects == 0 || !d.floors.rise() {
		return clearly()
	}
	g := &d.most
	v := verdict{state: found, severity: Info}
	if g.Over >= sizeclassLong && float64(g.Gained) >= sizeclassShare*float64(g.Bytes) {
		v.severity = Warning
	}
	v.add("objects", float64(g.Objects), UnitCount)
	v.add("bytes", float64(g.Bytes), UnitBytes)
	v.add("gained", float64(g.Gained), UnitBytes)
	v.add("in", g.Over.Seconds(), UnitSeconds)
	v.add("cycles", float64(g.Cycles), UnitCount)
	return v
}

// classObjects sets how many outstanding objects of one class are worth a finding.
func (j *Judge) classObjects(n uint64) {
	for i := range j.watched {
		if d, ok := j.watched[i].detector.(*sizeclassGrowth); ok {
			d.objects = n
		}
	}
}

// follow takes the fastest of the large classes that grow.
func (d *sizeclassGrowth) follow(c *sizeclass.Classes) {
	before := d.most.Min
	d.most = sizeclass.Growth{}
	for _, g := range d.growing { // the largest rate first
		if g.Objects >= cmp.Or(d.objects, sizeclassObjects) {
			d.most = g
			break
		}
	}
	if d.most.Objects == 0 || d.most.Min != before {
		d.floors = floors{}
	}
	for _, class := range c.All {
		if class.Min == d.most.Min {
			d.floors.add(d.at, c.Cycles, class.Bytes)
		}
	}
}

func (d *sizeclassGrowth) say(v *verdict) string {
	return fmt.Sprintf("%.0f objects of %s hold %s, %s more than %.0f s before, and %.0f collections have not freed them.",
		v.fact("objects"), &d.most.Class, mib(v.fact("bytes")), mib(v.fact("gained")), v.fact("in"), v.fact("cycles"))
}

// floors are the lowest of what is outstanding in each of the last stretches, of
// five seconds and a completed cycle.
type floors struct {
	begun  time.Time
	cycles uint64 // completed when it began
	low    uint64
	last   [3]uint64
	n      int
}

const floorEvery = 5 * time.Second

func (f *floors) add(at time.Time, cycles, bytes uint64) {
	if f.begun.IsZero() {
		f.begun, f.cycles, f.low = at, cycles, bytes
	}
	f.low = min(f.low, bytes)
	if at.Sub(f.begun) < floorEvery || cycles == f.cycles {
		return
	}
	copy(f.last[:], f.last[1:])
	f.last[len(f.last)-1] = f.low
	f.n++
	f.begun, f.cycles, f.low = at, cycles, bytes
}

// rise says that each of the last floors is above the one before.
func (f *floors) rise() bool {
	return f.n >= len(f.last) && f.last[0] < f.last[1] && f.last[1] < f.last[2]
}
