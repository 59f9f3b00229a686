// SPDX-License-Identifier: Apache-2.0

package scavenge

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// backwards runs a curve of that length from its end.
func (c curve) backwards(length float64) curve {
	return func(t float64) float64 { return c(max(length-t, 0)) }
}

// course is a load and the most that may come of it, in each of three ways to go.
type course struct {
	name     string
	load     world
	seconds  float64
	peak     float64 // of the usage, as a share of the limit
	releases int
	changes  int     // of the grade
	percents int     // of GC percent asked for
	settles  float64 // seconds before the end from which on the grade stands
	recedes  bool    // backwards nothing is left of it
}

var courses = []course{
	{"steady", world{limit: 1024, live: constant(100), alloc: constant(100), percent: 100}, 60, 0.20, 0, 0, 0, 60, false},
	{"busy at the limit", world{limit: 256, live: constant(80), alloc: constant(200), percent: 400, memLimit: 246}, 60, 0.965, 0, 0, 0, 60, false},
	{"live heap ramps", world{limit: 256, live: ramp(10, 235), alloc: constant(100), percent: 100, memLimit: 250}, 60, 0.985, 0, 3, 0, 30, true},
	{"live heap waves", world{limit: 256, live: func(t float64) float64 { return 225 + 6*math.Sin(t) }, alloc: constant(50), percent: 100, memLimit: 250}, 60, 0.985, 0, 2, 0, 55, false},
	{"a step, then idle", world{limit: 1024, live: constant(20).plus(constant(180).until(30)), alloc: constant(100).until(30), percent: 100}, 120, 0.40, 1, 4, 2, 70, false},
	{"stacks burst", world{limit: 256, live: constant(20), stacks: constant(100).until(2.05), inUse: constant(2), percent: 100}, 120, 0.89, 3, 3, 2, 100, false},
	{"a neighbour comes", world{limit: 256, live: constant(20).plus(constant(120).until(4)), percent: 100, alloc: constant(10).until(4),
		other: ramp(60, 200).from(6)}, 60, 0.87, 1, 2, 2, 40, true},
	{"a neighbour comes and goes", world{limit: 256, live: constant(60), percent: 100, alloc: constant(1.5),
		other: func(t float64) float64 { return 75 + 25*math.Sin(2*math.Pi*t/6) }}, 120, 0.87, 5, 14, 10, 0, false},
	{"C heap ramps", world{limit: 256, live: constant(40), alloc: constant(100).until(5), percent: 400, c: ramp(12, 120).from(4)}, 60, 0.87, 2, 2, 2, 40, true},
	{"Go touches what it has", world{limit: 256, live: constant(40), alloc: constant(100), percent: 490,
		fresh: func(t float64) float64 { return max(0, 120-12*t) }}, 30, 0.93, 0, 0, 0, 30, false},
	{"a size class fills", world{limit: 4096, live: ramp(1, 60), alloc: constant(20), percent: 100, class: func(t float64) Class {
		n := uint64(20_000 * t)
		return Class{Size: 48, Objects: n, Bytes: 48 * n}
	}}, 60, 0.03, 2, 5, 2, 0, true},
}

// ways are the ways to go a course.
var ways = map[string]struct {
	turn func(c curve, length float64) curve
	see  func(n int, in *Reading)
}{
	"forwards":  {func(c curve, _ float64) curve { return c }, nil},
	"backwards": {curve.backwards, nil},
	// Every third look fails, of every fifth the cgroup, and every seventh is of a
	// moment ago.
	"blind": {func(c curve, _ float64) curve { return c }, func(n int, in *Reading) {
		switch {
		case n%3 == 0:
			in.Heap, in.Cgroup, in.Class = nil, nil, nil
		case n%5 == 0:
			in.Cgroup = nil
		case n%7 == 0:
			in.Time = in.Time.Add(-20 * time.Millisecond)
		}
	}},
}

func TestCourses(t *testing.T) {
	t.Parallel()
	for _, c := range courses {
		for way, how := range ways {
			t.Run(fmt.Sprintf("%s/%s", c.name, way), func(t *testing.T) {
				t.Parallel()
				w := c.load
				for _, curve := range []*curve{&w.live, &w.alloc, &w.stacks, &w.inUse, &w.other, &w.c, &w.fresh} {
					if *curve != nil {
						*curve = how.turn(*curve, c.seconds)
					}
				}
				if class := c.load.class; class != nil {
					at := how.turn(func(t float64) float64 { return t }, c.seconds)
					w.class = func(t float64) Class { return class(at(t)) }
				}
				w.see, w.tick = how.see, 0.01
				l := w.run(c.seconds)
				t.Logf("peak %.3f, %d releases, %d changes, the last at %.1f s, %d of GC percent, ends at %v", l.peak/w.limit, len(l.releases), l.changes, l.changed, l.percents, l.plan.Grade)
				assert.LessOrEqual(t, l.peak, c.peak*w.limit)
				assert.LessOrEqual(t, len(l.releases), c.releases, "%v", l.reasons)
				assert.LessOrEqual(t, l.perMinute(), perMinute)
				assert.LessOrEqual(t, l.changes, c.changes, "%v", l.grades)
				assert.LessOrEqual(t, l.percents, c.percents)
				if way != "backwards" {
					assert.LessOrEqual(t, l.changed, c.seconds-c.settles, "has not settled")
				} else if c.recedes { // others may have their work at the end
					assert.Equal(t, Observe, l.plan.Grade, "%v", l.grades)
				}
			})
		}
	}
}
