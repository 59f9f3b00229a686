// SPDX-License-Identifier: Apache-2.0

package pacer

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// course is a load and what may happen under it, in each of three ways to go.
type course struct {
	name    string
	load    func(p *plant) // sets its curves
	peak    float64        // of the usage, as a share of the limit
	changes int            // of the memory limit
	// Seconds before the end of length from which on nothing changes, forwards and blind, and backwards.
	settles, settlesBack int
}

const length = 60. // seconds

// The limit follows something of 100 MiB in steps of 1 % of 256 MiB: 40 changes.
// What the heap does is the collector's business: next to nothing has to follow it.
var courses = []course{
	{"steady", func(*plant) {}, 0.80, 3, 50, 50},
	{"busy and steady", func(p *plant) { p.alloc = constant(400 * mib) }, 0.80, 3, 50, 50},
	{"live heap ramps", func(p *plant) { p.live = ramp(20*mib, 140*mib, 20) }, 0.98, 5, 35, 50},
	{"live heap steps up and down", func(p *plant) {
		p.live = constant(30*mib).then(10, ramp(30*mib, 130*mib, 0.5)).then(25, constant(30*mib))
	}, 0.98, 5, 40, 10},
	{"bursts", func(p *plant) {
		p.live, p.alloc = constant(120*mib), constant(150*mib).sum(oscillate(150*mib, 0.5))
	}, 0.98, 5, 50, 50},
	{"slow waves", func(p *plant) { p.live = constant(90 * mib).sum(oscillate(40*mib, 20)) }, 0.98, 5, 50, 50},
	{"C heap grows", func(p *plant) { p.live, p.other = constant(70*mib), ramp(8*mib, 110*mib, 10).delay(10) }, 0.98, 40, 35, 5},
	{"a neighbour comes and goes", func(p *plant) {
		p.other = constant(8*mib).then(10, ramp(8*mib, 130*mib, 1)).then(30, ramp(130*mib, 8*mib, 1))
	}, 0.98, 40, 15, 5},
	{"resized in place", func(p *plant) {
		p.limit = constant(256*mib).then(15, constant(200*mib)).then(35, constant(400*mib))
	}, 0.98, 5, 20, 10},
	{"a ballast never touched", func(p *plant) { p.untouched = constant(150 * mib) }, 0.95, 3, 50, 50},
}

// ways are the ways to go a course.
var ways = map[string]struct {
	turn func(c curve, length float64) curve
	see  eyes
}{
	"forwards":  {func(c curve, _ float64) curve { return c }, nil},
	"backwards": {curve.backwards, nil},
	// Every third look fails, every fifth is one that cannot be true, every
	// seventh is of a moment ago.
	"blind": {func(c curve, _ float64) curve { return c }, func() eyes {
		return func(n int, r *Reading) *Reading {
			switch {
			case n%3 == 0:
				return nil
			case n%5 == 0:
				r.Usage = math.MaxUint64
			case n%7 == 0:
				r.Time = r.Time.Add(-20 * time.Millisecond)
			}
			return r
		}
	}()},
}

func TestCourses(t *testing.T) {
	t.Parallel()
	for _, c := range courses {
		for way, how := range ways {
			t.Run(fmt.Sprintf("%s/%s", c.name, way), func(t *testing.T) {
				t.Parallel()
				p := newPlant()
				c.load(p)
				for _, curve := range []*curve{&p.limit, &p.live, &p.alloc, &p.other, &p.untouched} {
					*curve = how.turn(*curve, length)
				}
				var g Governor
				rd := p.drive(&g, length, how.see)
				t.Logf("peak %.3f, %d changes, %d cycles, GC %.1f %%, limit %d MiB (%s)",
					p.peak, rd.changes, p.cycles, 100*p.gc/(p.time*p.procs), rd.last.MemoryLimit>>20, rd.last.LimitReason)
				assert.False(t, p.killed, "killed")
				assert.LessOrEqual(t, p.peak, c.peak, "of the limit")
				assert.LessOrEqual(t, rd.changes, c.changes)
				assert.Zero(t, rd.percents, "nobody proposed a GC percent")
				assert.Zero(t, rd.spirals)
				settles := c.settles
				if way == "backwards" {
					settles = c.settlesBack
				}
				tail := rd.decisions[len(rd.decisions)-10*settles:]
				assert.Len(t, slices.Compact(tail), 1, "has not settled")
			})
		}
	}
}

// The live heap is near the limit, and work allocates faster than it can be
// marked. What saves it is that work waits: the governor leaves room for that, and
// does not let the collector run for nothing.
func TestNearTheLimit(t *testing.T) {
	t.Parallel()
	for _, live := range []float64{0.40, 0.75, 0.85} {
		t.Run(fmt.Sprint(live), func(t *testing.T) {
			t.Parallel()
			full := func(brake bool) *plant {
				p := newPlant()
				p.live, p.other = ramp(10*mib, live*256*mib, 2), constant(4*mib)
				p.alloc, p.brake = constant(50*mib).then(3, constant(800*mib)), brake
				return p
			}
			p := full(true)
			rd := p.drive(new(Governor), 30, nil)
			t.Logf("braked: peak %.3f, %d changes, %d cycles, waited %.1f s, worked %.1f GiB, %d spirals, %+v",
				p.peak, rd.changes, p.cycles, p.waited, p.allocated/(1<<30), rd.spirals, rd.last)
			assert.False(t, p.killed)
			assert.LessOrEqual(t, p.peak, 0.995)
			assert.Equal(t, live > 0.5, rd.spirals > 0, "said that collecting helps no longer")

			// The same under a fixed GOMEMLIMIT of 90 %, with the same brake.
			fixed := full(true)
			fixed.margin = marginLeast * 256 * mib
			g := Governor{Baseline: Setting{100, 256 * mib / 10 * 9}}
			fixed.drive(&g, 30, func(_ int, r *Reading) *Reading { return nil })
			t.Logf("GOMEMLIMIT=90 %%: peak %.3f, killed %v, waited %.1f s, worked %.1f GiB", fixed.peak, fixed.killed, fixed.waited, fixed.allocated/(1<<30))
			assert.GreaterOrEqual(t, p.allocated, 0.95*fixed.allocated, "work done")

			if live > 0.5 {
				p = full(false)
				p.drive(new(Governor), 30, nil)
				assert.True(t, p.killed, "the model does not show what the brake is for")
			}
		})
	}
}

// Bursts of half the time and a live heap that leaves them room, but nobody makes
// work wait. The collector is near half of its CPU: a lower limit would take it past
// that, where it stops making work help.
func TestBurstsAreNoWorseThanAFixedLimit(t *testing.T) {
	t.Parallel()
	for _, live := range []float64{0.40, 0.45, 0.50, 0.55} {
		for _, scan := range []float64{150, 200, 300, 400} {
			t.Run(fmt.Sprintf("%.2f/%.0f", live, scan), func(t *testing.T) {
				t.Parallel()
				for _, alloc := range []float64{400, 500, 600, 700, 800, 1000} {
					loaded := func() *plant {
						p := newPlant()
						p.scan, p.live, p.other = scan*mib, ramp(10*mib, live*256*mib, 2), constant(4*mib)
						p.alloc = func(t float64) float64 {
							if t > 3 && math.Mod(t, 0.5) < 0.3 {
								return alloc * mib
							}
							return 5 * mib
						}
						return p
					}
					ours, fixed := loaded(), loaded()
					ours.drive(new(Governor), 15, nil)
					g := Governor{Baseline: Setting{100, 256 * mib / 10 * 9}}
					fixed.drive(&g, 15, func(int, *Reading) *Reading { return nil })
					if ours.killed != fixed.killed {
						t.Logf("%v MiB/s: peak %.2f, under GOMEMLIMIT=90 %% %.2f", alloc, ours.peak, fixed.peak)
					}
					assert.False(t, ours.killed && !fixed.killed, "killed at %v MiB/s", alloc)
					if !fixed.killed {
						assert.GreaterOrEqual(t, ours.allocated, 0.99*fixed.allocated, "work done at %v MiB/s", alloc)
					}
				}
			})
		}
	}
}

// Near the limit, where a limit that is too low makes the collector run for nothing, it
// goes up at once. What wavers beside the heap must not move it up and down at each tick.
func TestWhatWaversDoesNotMoveTheLimitAtEachTick(t *testing.T) {
	t.Parallel()
	for _, live := range []uint64{60, 120, 180, 190, 200, 205, 210, 220} {
		for _, amplitude := range []float64{1, 2, 4, 8, 16} {
			for _, period := range []int{2, 3, 10, 40, 100} { // ticks of 10 ms
				r := wavering(live)
				g := Governor{Baseline: found(100, NoLimit)}
				changes, last := 0, int64(0)
				for i := range 6000 { // a minute
					r.tick(i)
					r.Usage = r.Mapped + uint64((20+amplitude*math.Sin(2*math.Pi*float64(i)/float64(period)+0.3))*mib)
					if d := g.Step(&r.Reading); d.MemoryLimit != last {
						changes, last = changes+1, d.MemoryLimit
					}
				}
				assert.LessOrEqual(t, changes, 130, "a minute: %d MiB live, ±%v MiB in %d ms", live, amplitude, 10*period)
			}
		}
	}
}

// What lives grows near the limit: the memory limit stays above it, tick by tick.
func TestTheLimitFollowsWhatLives(t *testing.T) {
	t.Parallel()
	g := Governor{Baseline: found(100, NoLimit)}
	for i := range 100 { // a second
		r := wavering(200 + uint64(i)/4)
		r.tick(i)
		r.Cycles, r.Usage = uint64(10+i), r.Mapped
		if i > 0 {
			r.Usage += 12 * mib // at once: the margin is wide
		}
		d := g.Step(&r.Reading)
		assert.Greater(t, d.MemoryLimit, int64(r.Live+r.Unused+r.Stacks+r.Metadata), "%d MiB live", r.Live>>20)
	}
}

// waverer is a process of 256 MiB, looked at each 10 ms.
type waverer struct{ Reading }

func wavering(live uint64) waverer {
	return waverer{Reading{
		Limit: 256 * mib, Live: live * mib, Objects: (live + 8) * mib, Unused: 2 * mib, Stacks: 2 * mib, Metadata: 3 * mib,
		Goal: (live + 12) * mib, Mapped: (live + 17) * mib,
	}}
}

func (w *waverer) tick(i int) {
	w.Time = time.Unix(1e9, 0).Add(time.Duration(i) * 10 * time.Millisecond)
	w.Cycles, w.Allocated = uint64(10+i/5), uint64(i)*mib
	w.GCCPU, w.CPU = float64(i)*0.001, float64(i)*0.02
}
