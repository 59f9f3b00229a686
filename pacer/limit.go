// SPDX-License-Identifier: Apache-2.0

package pacer

import (
	"math"
	"time"
)

const (
	marginLeast = 0.04 // of the limit
	marginMost  = 0.12
	marginTicks = 3 // that a reaction takes: see it, decide, and the collector's own
	tickLeast   = 10 * time.Millisecond
	tickMost    = time.Second
	arrivesHalf = 2.0 // seconds

	overMost = 0.12 // of the limit
	// A killed process costs more than unused memory: what was seen is
	// remembered for minutes.
	overHalf = 60.0

	// Of the room above what must stay, this much is kept from the heap at most. Not
	// half of it: work waits from the middle of the margin on, and under a live heap
	// of 85 % of the limit a smaller margin let it come so near the end that some
	// runs were killed, and no more was done in the others.
	spareMost = 2. / 3

	goalHeadroom = 0.03    // memoryLimitHeapGoalHeadroomPercent in runtime/mgcpacer.go
	headroomMin  = 1 << 20 // memoryLimitMinHeapGoalHeadroom
)

// learn follows the growth of the usage, how much of it is not heap, and how far the
// heap runs past its limit.
func (g *Governor) learn(r *Reading, dt float64) {
	most, decay := marginMost*float64(r.Limit), math.Exp2(-dt/arrivesHalf)
	reaction := marginTicks * max(1, tickLeast.Seconds()/dt)
	grown := float64(r.Usage) - float64(g.prev.Usage)
	g.arrives = max(min(grown*reaction, most), g.arrives*decay)
	grown = min(grown, grown-r.heap()+g.prev.heap())
	g.others = max(min(grown*reaction, most), g.others*decay)

	// Idle spans above the limit are no overshoot: the scavenger is at them.
	g.over *= math.Exp2(-dt / overHalf)
	if g.started && g.bars[1] > 0 && r.Limit != Unlimited {
		beyond := float64(r.Mapped) - float64(r.Free) - g.bars[1]
		g.over = min(max(g.over, beyond), overMost*float64(r.Limit))
	}
}

func (r *Reading) heap() float64 { return float64(r.Objects + r.Unused + r.Free) }

// raiseBar keeps the highest memory limit that a cycle still under way, or the one
// before it, may have been started for: what is above a limit only because that
// came down meanwhile has not run past it. bars[0] is of the running cycle.
func (g *Governor) raiseBar(ended bool, limit float64) {
	if ended {
		g.bars[1], g.bars[0] = max(g.bars[0], limit), limit
		return
	}
	g.bars[0] = limit
	g.bars[1] = max(g.bars[1], limit)
}

// aboveMust is what the memory limit is at least of what must stay, where more
// than the kernel's limit is in use and nothing is killed for it.
const aboveMust = 1.25

// limit returns the memory limit for this reading, before hysteresis.
func (g *Governor) limit(r *Reading, d *Decision) float64 {
	live := g.lives.least(r)
	must := float64(g.must(r))
	base := float64(g.Baseline.MemoryLimit)
	if r.Limit == Unlimited {
		d.LimitReason = noKernelLimit
		d.Spiral = g.spiral.step(r, &g.meter, live, base-must, g.budget())
		return base
	}
	limit := float64(r.Limit)
	used := float64(r.Usage + r.Swapped)
	end := float64(r.Mapped) + limit - used
	room := max(end-max(must, float64(r.Untouched)), 0)
	d.Room = uint64(room)
	d.Spiral = g.spiral.step(r, &g.meter, live, room, g.budget())

	spare := spareMost * room
	margin := min(max(marginLeast*limit, g.arrives), marginMost*limit, spare)
	over := g.over * g.spiral.effect()
	d.Margin, d.Over = uint64(margin), uint64(over)

	// The heap stops at its goal, however fast it fills; and work that waits does so
	// from the middle of the margin on.
	want := end - min(max(marginLeast*limit, g.others, margin/2), marginMost*limit, spare) - over
	d.LimitReason = whatIsLeft
	if least := end - spare; want <= least {
		want, d.LimitReason = least, partOfRoom
	}
	if used >= limit && want < aboveMust*must {
		// It is over already and lives: a limit that throttles or was lowered. Below
		// what must stay the collector would run without a break and for nothing.
		want, d.LimitReason = aboveMust*must, overTheLimit
	}
	rises := d.Spiral && g.OnSpiral == Rise
	if rises {
		want, d.LimitReason = end, hardEdge
	}
	bound := userBound
	if untouched := float64(r.Untouched); untouched > marginLeast*limit {
		base, bound = base+untouched, userAndBallast
	}
	if want >= base && !rises {
		want, d.LimitReason = base, bound
	}
	return max(want, headroomMin)
}

// must is what stays of what is mapped, by the least of the last cycles.
func (g *Governor) must(r *Reading) uint64 {
	return g.lives.least(r) + r.Unused + r.Stacks + r.Metadata
}

// lives remembers what the last cycles marked. All that is allocated while a
// cycle marks counts as live for it, garbage or not: with a collector that always
// runs nearly half of the marked heap was garbage. The least of some cycles is
// closer to what must stay, and where the heap truly grows it errs on the side of
// a lower memory limit.
type lives struct {
	cycles uint64
	marked [4]uint64
	n      int
}

func (l *lives) step(r *Reading) {
	if r.Cycles == l.cycles && l.n > 0 {
		return
	}
	if r.Cycles < l.cycles {
		l.n = 0
	}
	l.marked[l.n%len(l.marked)], l.cycles = r.Live, r.Cycles
	l.n++
}

func (l *lives) least(r *Reading) uint64 {
	least := r.Live
	for i := range min(l.n, len(l.marked)) {
		least = min(least, l.marked[i])
	}
	return least
}

// Hysteresis. Far from the limit its exact value does not matter.
const (
	nearFrom = 0.80 // usage as a share of the limit
	stepNear = 0.01 // of the limit: smaller changes are not made
	stepFar  = 0.04
	riseWait = 2.0 // seconds that more must be possible before the limit goes up
	riseRest = 2.0 // seconds from a rise that did not wait to the next, if the limit has come down meanwhile
)

// rise is the least that was possible since more than the present limit was.
type rise struct {
	since time.Time
	least float64
}

// settle decides whether want is worth a change. Down it goes at once; up when
// the whole of the last seconds would have allowed it, and no higher.
func (g *Governor) settle(r *Reading, want float64, d *Decision) int64 {
	last := g.last.MemoryLimit
	set := g.bytes(want)
	step := stepFar * float64(r.Limit)
	if float64(r.Usage) >= nearFrom*float64(r.Limit) {
		step = stepNear * float64(r.Limit)
	}
	switch change := want - float64(last); {
	case r.Limit == Unlimited || !g.started:
		g.higher = rise{}
		return set
	case change < 0:
		g.higher = rise{}
		if change <= -step || set == g.Baseline.MemoryLimit {
			g.fell = true
			return set
		}
	case change >= step && g.urgent(r, d):
		g.higher, g.rose, g.fell = rise{}, r.Time, false
		return set
	case change >= step:
		if g.higher.since.IsZero() {
			g.higher = rise{r.Time, want}
		}
		g.higher.least = min(g.higher.least, want)
		if r.Time.Sub(g.higher.since).Seconds() >= riseWait {
			set = g.bytes(g.higher.least)
			g.higher = rise{}
			return set
		}
	default:
		g.higher = rise{}
	}
	d.LimitReason = g.last.LimitReason
	return last
}

// bytes returns a memory limit in whole bytes, and the baseline as it was found: a
// float64 has 53 bits.
func (g *Governor) bytes(limit float64) int64 {
	if limit == float64(g.Baseline.MemoryLimit) {
		return g.Baseline.MemoryLimit
	}
	return int64(min(limit, 1<<62))
}

// urgent reports whether a limit below what was decided makes the collector run
// for nothing: then it goes up at once, and follows what lives as long as that grows. But
// since it comes down at once too, it would go up and down at each tick with what
// wavers beside the heap: then it stays down for a while, unless not even what must
// stay is below it.
func (g *Governor) urgent(r *Reading, d *Decision) bool {
	switch d.LimitReason {
	case partOfRoom, hardEdge:
		return !g.fell || g.rose.IsZero() || r.Time.Sub(g.rose).Seconds() >= riseRest ||
			g.last.MemoryLimit <= int64(g.must(r))
	}
	return false
}
