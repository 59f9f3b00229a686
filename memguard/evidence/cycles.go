// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"
	"runtime/debug"
	"time"
)

// Collector is what the runtime says of its collector at one instant after the
// first collection (runtime/metrics). Sizes are bytes.
type Collector struct {
	Cycles  uint64  // completed (/gc/cycles/total)
	Objects uint64  // in the heap, dead ones too (/memory/classes/heap/objects)
	Live    uint64  // marked by the last cycle (/gc/heap/live)
	Goal    uint64  // of the running or next cycle (/gc/heap/goal)
	GCCPU   float64 // cpu-seconds of the collector at the end of the last cycle, without what it took of idle processors
	CPU     float64 // cpu-seconds that GOMAXPROCS allowed until then (/cpu/classes/total)
}

// Cycles keeps the last collections of the calling process for a report: what the
// tail of its gctrace would tell. The lines of gctrace themselves are not to be
// had: the runtime writes them to standard error, if GODEBUG said so before the
// start. So it is a table, and not in their format: that has times of the phases
// which the runtime tells nobody else, and no way to say that one is unknown.
//
// How many there were, when each ended and how long it stopped the world the
// runtime remembers itself. The sizes are those that Step saw around the end of a
// cycle, and unknown where it saw more than one end at a time. The zero Cycles is
// ready. It is one goroutine's.
type Cycles struct {
	last Collector
	ring [mostCycles]cycle // by number
}

// mostCycles is how many are told. The runtime remembers 256 (runtime/mstats.go,
// pause_end).
const mostCycles = 64

// cycle is what was seen of one.
type cycle struct {
	number       uint64 // 0 is none
	live         uint64
	before, goal uint64 // as of the look before it ended
	alone        bool   // these two are known
	share        float64
	shared       bool // share is known
}

// Step takes one look, at every tick. It allocates nothing.
func (c *Cycles) Step(now *Collector) {
	if now.Cycles > c.last.Cycles {
		s := cycle{number: now.Cycles, live: now.Live}
		if c.last.Cycles > 0 {
			s.before, s.goal, s.alone = c.last.Objects, c.last.Goal, now.Cycles == c.last.Cycles+1
			if all := now.CPU - c.last.CPU; all > 0 {
				s.share, s.shared = min(max((now.GCCPU-c.last.GCCPU)/all, 0), 1), true
			}
		}
		c.ring[s.number%mostCycles] = s
	}
	c.last = *now
}

// Append appends the table, the last collection at its end.
func (c *Cycles) Append(b []byte) []byte {
	var done debug.GCStats
	debug.ReadGCStats(&done) // a copy under a lock: it stops nothing
	return c.table(b, &done)
}

func (c *Cycles) table(b []byte, done *debug.GCStats) []byte {
	n := min(len(done.PauseEnd), len(done.Pause), mostCycles)
	b = fmt.Appendf(b, "THE LAST %d OF %d COLLECTIONS\n", n, done.NumGC)
	if n == 0 {
		return b
	}
	b = fmt.Appendf(b, "%9s  %-24s %9s %10s %10s %10s %5s\n", "cycle", "ended", "stopped", "MiB before", "live", "goal", "CPU")
	for i := n - 1; i >= 0; i-- {
		number := uint64(done.NumGC) - uint64(i)
		s := c.ring[number%mostCycles]
		if s.number != number {
			s = cycle{}
		}
		b = fmt.Appendf(b, "%9d  %-24s %9v %10s %10s %10s %5s\n", number, done.PauseEnd[i].UTC().Format("2006-01-02T15:04:05.000Z"), done.Pause[i].Round(time.Microsecond),
			mebibytes(s.before, s.alone), mebibytes(s.live, s.number != 0), mebibytes(s.goal, s.alone), percent(s.share, s.shared))
	}
	return append(b, "Before and goal are as of the last look before its end, CPU is the collector's share\nof all since the last row that has one, - is not seen, none is GOGC=off without a limit.\n"...)
}

func mebibytes(n uint64, known bool) string {
	const noGoal = 1 << 62 // see gctrace's Unbounded: nobody has as much
	switch {
	case !known:
		return "-"
	case n >= noGoal:
		return "none"
	}
	return fmt.Sprintf("%.1f", float64(n)/(1<<20))
}

func percent(share float64, known bool) string {
	if !known {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*share)
}
