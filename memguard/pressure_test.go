// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/memguard/memguard-go/memguard/sizeclass"
	"github.com/memguard/memguard-go/scavenge/smaps"
)

// healthy is a sample of a service that nothing is wrong with: 250 MiB of Go in
// a cgroup of 1 GiB, GOMEMLIMIT below it.
func healthy(t float64) *Sample {
	known := func(n uint64) Bytes { return Known(n * mebi) }
	s := &Sample{Time: at(t), PID: 4711}
	s.Runtime = Runtime{
		Origin:  FromRuntime,
		Objects: known(180), Unused: known(8), Free: known(30), Released: known(100),
		Stacks: known(8), OSStacks: known(0), Metadata: known(12),
		Live: known(120), Goal: known(240), Allocated: Known(uint64((9000 + 120*t) * mebi)),
		GCPercent: Known[int64](100), MemoryLimit: known(900),
		Cycles: Known(uint64(77 + t)), Goroutines: Known[uint64](50),
		CPU: Known(100 + 4*t), GCCPU: Known(5 + 0.2*t), LimiterCycle: Known[uint64](0),
		Classes:         &sizeclass.Classes{Cycles: uint64(77 + t), All: []sizeclass.Class{{Min: 49, Size: 64, Objects: 400_000, Bytes: 400_000 * 64}}},
		ClassesAt:       at(t),
		PausesOver500us: Known[uint64](1), PausesOver10ms: Known[uint64](0),
	}
	s.Cgroup = Cgroup{
		Path: "/service", Version: 2, LimitFrom: "/sys/fs/cgroup/service",
		Limit: known(1024), High: Known[uint64](Unlimited), Swap: known(0),
		Shmem: known(0), ActiveFile: known(30), InactiveFile: known(30), Kernel: known(10),
		OOMKills: Known[uint64](0), Pressure: Known(0.0),
	}
	s.Process = Process{Go: true, Exe: "/usr/bin/orders", Build: "go1.26.8"}
	s.Leaks, s.Queues = new(Leaks), &Queues{}
	add(s, 20*mebi)
	return s
}

// add puts other bytes of anonymous memory beside the runtime's, and sums up.
func add(s *Sample, other uint64) {
	r := &s.Runtime
	r.Total = plus(r.Objects, r.Unused, r.Free, r.Released, r.Stacks, r.OSStacks, r.Metadata)
	mapped := r.mapped()
	anon := plus(mapped, Known(other))
	s.Process.Shared = Known[uint64](30 * mebi)
	s.Process.RSS = plus(anon, s.Process.Shared)
	c := &s.Cgroup
	c.Anon, c.Mapped = anon, anon
	c.Usage = plus(anon, c.ActiveFile, c.InactiveFile, c.Kernel)
	c.WorkingSet = plus(anon, c.ActiveFile, c.Kernel)
}

// withMaps gives the sample an address space: a heap of so much, of which lazy
// is given back and huge is in huge pages, and 30 MiB of program.
func withMaps(s *Sample, heap, lazy, huge uint64) {
	key := [3]uint64{heap, lazy, huge}
	if p, ok := parsed.Load(key); ok {
		s.Process.Maps = p.(*smaps.Process)
		return
	}
	var b strings.Builder
	mapping := func(from uint64, perms, name string, rss, lazy, huge uint64) {
		fmt.Fprintf(&b, "%x-%x %s 00000000 00:00 0 %s\nSize: %d kB\nRss: %d kB\nLazyFree: %d kB\nAnonHugePages: %d kB\n",
			from, from+max(rss, 4096), perms, name, max(rss, 4096)>>10, rss>>10, lazy>>10, huge>>10)
	}
	mapping(0x400000, "r-xp", "/usr/bin/orders", 30*mebi, 0, 0)
	mapping(0xc000000000, "rw-p", "[anon: Go: heap]", heap, lazy, huge)
	p, err := smaps.Parse(strings.NewReader(b.String()), smaps.Hints{Go: true, Exe: "/usr/bin/orders"})
	if err != nil {
		panic(err)
	}
	s.Process.Maps = p
	parsed.Store(key, p)
}

// collecting replaces the healthy collector's counters by some that move at other
// rates while there is pressure: cycles a second, bytes allocated for each, and
// the collector's share of 4 CPUs.
func collecting(perSecond, each, share float64) pressure {
	cycles, allocated, gc, last := 77.0, 9000.0*mebi, 5.0, 0.0
	return func(s *Sample, level float64) {
		t := s.Time.Sub(epoch).Seconds()
		n := (1 + level*(perSecond-1)) * (t - last)
		cycles += n
		allocated += n * (120*mebi + level*(each-120*mebi))
		gc += (0.2 + level*(4*share-0.2)) * (t - last)
		last = t
		r := &s.Runtime
		r.Cycles, r.Allocated, r.GCCPU = Known(uint64(cycles)), Known(uint64(allocated)), Known(gc)
	}
}

// parked is a cluster of goroutines at one line.
func parked(n int) *leak.Cluster {
	return &leak.Cluster{State: "chan send", Count: n, Stack: []leak.Frame{{Func: "main.answer", File: "/src/main.go", Line: 12}, {Func: "main.serve", File: "/src/main.go", Line: 34}}}
}

// leaking is what following the goroutines says when some leak.
func leaking(level leak.Level) func() pressure {
	return func() pressure {
		return func(s *Sample, pressure float64) {
			if pressure >= 1 {
				s.Leaks = &Leaks{Time: s.Time, Verdicts: []leak.Verdict{{Level: level, Cluster: parked(500), Grown: 90, Over: 3 * time.Minute, PerMinute: 30, Age: 5 * time.Minute}}}
			}
		}
	}
}

// queued sets one of the queues to a state.
func queued(state leak.QueueState, of func(*Queues) *leak.QueueVerdict, kind leak.QueueKind) func() pressure {
	return func() pressure {
		return func(s *Sample, level float64) {
			if level >= 1 {
				*of(s.Queues) = leak.QueueVerdict{
					Kind: kind, State: state, For: 7 * time.Second,
					Func: leak.Frame{Func: "main.release"}, Where: leak.Frame{Func: "main.answer", File: "/src/main.go", Line: 12}, Doing: "chan send",
				}
			}
		}
	}
}

func finalizersOf(q *Queues) *leak.QueueVerdict { return &q.Finalizers }
func cleanupsOf(q *Queues) *leak.QueueVerdict   { return &q.Cleanups }

var parsed sync.Map // of withMaps, by its arguments

// A pressure is one thing that is wrong with an else healthy service, more or
// less: at 0 it is healthy, at 1 it is not. The function may keep what grows.
type pressure func(s *Sample, level float64)

// pressures has one for every detector, and how long after the pressure came and
// went the finding may take.
var pressures = map[ID]struct {
	new          func() pressure
	severity     Severity // that it comes to in two minutes
	raised       float64  // seconds
	cleared      float64  // seconds after it fell; clearAfter is part of it
	also         []ID     // what else is right to stand
	blind        pressure // the detector cannot see
	whyBlind     string
	blindOnATick bool // it sees in a survey only
}{
	"oom-kill": {
		new: func() pressure {
			return func(s *Sample, level float64) { s.Cgroup.OOMKills = Known(uint64(level)) }
		},
		severity: Critical, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Cgroup.OOMKills = Count{} }, whyBlind: "the cgroup's oom_kill count is unknown",
	},
	"oom-forecast": {
		new: func() pressure { // 6 MiB/s of live heap
			live, last := 0.0, 0.0
			return func(s *Sample, level float64) {
				t := s.Time.Sub(epoch).Seconds()
				live += level * 6 * mebi * (t - last)
				last = t
				grow := Known(uint64(live))
				r := &s.Runtime
				r.Objects, r.Live, r.Goal = plus(r.Objects, grow), plus(r.Live, grow), plus(r.Goal, grow)
				add(s, 20*mebi)
			}
		},
		severity: Critical, raised: 8, cleared: 95,
		blind: func(s *Sample, _ float64) { s.Cgroup.Limit = Bytes{} }, whyBlind: "the cgroup's limit is unknown",
		also: []ID{"limit-above-cgroup"},
	},
	"gc-off-no-limit": {
		new: func() pressure {
			return func(s *Sample, level float64) {
				if level >= 1 {
					s.Runtime.GCPercent, s.Runtime.MemoryLimit = Known[int64](-1), Known[uint64](Unlimited)
				}
			}
		},
		severity: Critical, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Runtime.GCPercent = Value[int64]{} }, whyBlind: "the GC percent is unknown",
	},
	"limit-above-cgroup": {
		new: func() pressure {
			return func(s *Sample, level float64) { s.Runtime.MemoryLimit = Known(uint64(900+200*level) * mebi) }
		},
		severity: Warning, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Runtime.MemoryLimit = Bytes{} }, whyBlind: "the Go memory limit is unknown",
	},
	"limit-missing": {
		new: func() pressure {
			return func(s *Sample, level float64) {
				if level >= 1 {
					s.Runtime.MemoryLimit = Known[uint64](Unlimited)
				}
			}
		},
		severity: Info, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Runtime.MemoryLimit = Bytes{} }, whyBlind: "the Go memory limit is unknown",
	},
	"nongo-growth": {
		new: func() pressure { // 1 MiB/s of C memory
			other, last := 20.0*mebi, 0.0
			return func(s *Sample, level float64) {
				t := s.Time.Sub(epoch).Seconds()
				other += level * mebi * (t - last)
				last = t
				add(s, uint64(other))
			}
		},
		severity: Warning, raised: 20, cleared: 75,
		blind: func(s *Sample, _ float64) { s.Process.RSS = Bytes{} }, whyBlind: "what is not Go's cannot be told apart: it takes the runtime's figures, or smaps over time",
		also: []ID{"oom-forecast", "limit-above-cgroup"},
	},
	"span-fragmentation": {
		new: func() pressure {
			return func(s *Sample, level float64) {
				s.Runtime.Unused = plus(s.Runtime.Unused, Known(uint64(level*200*mebi)))
				add(s, 20*mebi)
			}
		},
		severity: Warning, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Runtime.Unused = Bytes{} }, whyBlind: "the runtime's memory classes are unknown",
	},
	"stack-bloat": {
		new: func() pressure {
			return func(s *Sample, level float64) {
				s.Runtime.Stacks = plus(s.Runtime.Stacks, Known(uint64(level*200*mebi)))
				add(s, 20*mebi)
			}
		},
		severity: Warning, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Runtime.Stacks = Bytes{} }, whyBlind: "the runtime's memory classes are unknown",
	},
	"thp-refill": {
		new: func() pressure {
			return func(s *Sample, level float64) {
				withMaps(s, uint64(226+level*100)*mebi, 0, uint64(level*100)*mebi)
			}
		},
		severity: Warning, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Process.Maps = nil }, whyBlind: "needs smaps, which is not read on a tick", blindOnATick: true,
	},
	"retained-idle": {
		new: func() pressure {
			return func(s *Sample, level float64) {
				s.Runtime.Free = plus(s.Runtime.Free, Known(uint64(level*400*mebi)))
				add(s, 20*mebi)
			}
		},
		severity: Warning, raised: 1, cleared: 12,
		also:  []ID{"scavenge-idle"},
		blind: func(s *Sample, _ float64) { s.Runtime.Free = Bytes{} }, whyBlind: "the runtime's memory classes are unknown",
	},
	"gc-pause": {
		new: func() pressure { // one of 20 ms a second
			pauses, last := 0.0, 0.0
			return func(s *Sample, level float64) {
				t := s.Time.Sub(epoch).Seconds()
				pauses += level * (t - last)
				last = t
				s.Runtime.PausesOver500us, s.Runtime.PausesOver10ms = Known(uint64(1+pauses)), Known(uint64(pauses))
			}
		},
		severity: Warning, raised: 11, cleared: 75,
		blind: func(s *Sample, _ float64) { s.Runtime.PausesOver500us = Count{} }, whyBlind: "the collector's pauses are unknown",
	},
	"pagecache-pressure": {
		new: func() pressure {
			return func(s *Sample, level float64) {
				s.Cgroup.ActiveFile = plus(s.Cgroup.ActiveFile, Known(uint64(level*640*mebi)))
				s.Cgroup.Pressure = Known(40 * level)
				add(s, 20*mebi)
			}
		},
		severity: Warning, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Cgroup.ActiveFile = Bytes{} }, whyBlind: "the cgroup's usage, limit or file pages are unknown",
	},
	"lazyfree-rss": {
		new: func() pressure {
			return func(s *Sample, level float64) {
				withMaps(s, 226*mebi, uint64(level*100)*mebi, 0)
			}
		},
		severity: Info, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Process.Maps = nil }, whyBlind: "needs smaps, which is not read on a tick", blindOnATick: true,
	},
	"gc-death-spiral": {
		new: func() pressure { // 800 of 900 MiB live, 40 % of the CPU
			rates := collecting(20, 40*mebi, 0.4)
			return func(s *Sample, level float64) {
				rates(s, level)
				r, live := &s.Runtime, Known(uint64(120+680*level)*mebi)
				r.Objects, r.Live = live, live
				r.Goal = Known(uint64(240+600*level) * mebi)
				add(s, 20*mebi)
			}
		},
		severity: Critical, raised: 12, cleared: 25,
		also:  []ID{"oom-forecast", "limit-above-cgroup"},
		blind: func(s *Sample, _ float64) { s.Runtime.GCCPU = Value[float64]{} }, whyBlind: "the collector's CPU time is unknown: no cycle yet, or looked at from outside",
	},
	"gc-storm": {
		new:      func() pressure { return collecting(10, 20*mebi, 0.5) },
		severity: Warning, raised: 31, cleared: 45,
		blind: func(s *Sample, _ float64) { s.Runtime.CPU = Value[float64]{} }, whyBlind: "the collector's CPU time is unknown: no cycle yet, or looked at from outside",
	},
	"gc-overshoot": {
		new:      func() pressure { return collecting(1, 1000*mebi, 0.05) },
		severity: Warning, raised: 25, cleared: 35,
		blind:    func(s *Sample, _ float64) { s.Runtime.Live = Bytes{} },
		whyBlind: "the heap's live bytes, goal or allocations are unknown: no cycle yet, or looked at from outside",
	},
	"sizeclass-growth": {
		new: func() pressure { // 5000 objects a second
			objects, last := 500_000.0, 0.0
			return func(s *Sample, level float64) {
				t := s.Time.Sub(epoch).Seconds()
				objects += level * 5000 * (t - last)
				last = t
				c := &s.Runtime.Classes.All[0]
				c.Objects, c.Bytes = uint64(objects), uint64(objects)*64
			}
		},
		severity: Info, raised: 30, cleared: 25,
		blind: func(s *Sample, _ float64) { s.Runtime.Classes = nil }, whyBlind: "the heap's size classes are unknown: they are read in the process only",
	},
	"scavenge-idle": {
		new: func() pressure {
			return func(s *Sample, level float64) {
				s.Runtime.Free = plus(s.Runtime.Free, Known(uint64(level*400*mebi)))
				add(s, 20*mebi)
			}
		},
		severity: Info, raised: 61, cleared: 12,
		also:  []ID{"retained-idle"},
		blind: func(s *Sample, _ float64) { s.Runtime.Free = Bytes{} }, whyBlind: "the runtime's memory classes are unknown",
	},
	"neighbour-pressure": {
		new: func() pressure {
			return func(s *Sample, level float64) {
				more := Known(uint64(level * 700 * mebi))
				c := &s.Cgroup
				c.Usage, c.WorkingSet, c.Anon, c.Mapped = plus(c.Usage, more), plus(c.WorkingSet, more), plus(c.Anon, more), plus(c.Mapped, more)
			}
		},
		severity: Warning, raised: 1, cleared: 12,
		also:     []ID{"limit-above-cgroup"},
		blind:    func(s *Sample, _ float64) { s.Cgroup.Mapped = Bytes{} },
		whyBlind: "the cgroup's usage, limit or anonymous memory, or the process's own, are unknown",
	},
	"goroutine-leak": {
		new: leaking(leak.Leaking), severity: Warning, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Leaks = nil }, whyBlind: noGoroutines,
	},
	"goroutine-growth": {
		new: leaking(leak.Growing), severity: Info, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Leaks = nil }, whyBlind: noGoroutines,
	},
	"finalizer-stall": {
		new: queued(leak.Stalled, finalizersOf, leak.Finalizers), severity: Warning, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Queues = nil }, whyBlind: noQueues,
	},
	"cleanup-stall": {
		new: queued(leak.Stalled, cleanupsOf, leak.Cleanups), severity: Warning, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Queues = nil }, whyBlind: noQueues,
	},
	"finalizer-slow": {
		new: queued(leak.Slow, cleanupsOf, leak.Cleanups), severity: Info, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Queues = nil }, whyBlind: noQueues,
	},
	"stack-pinned": {
		new: func() pressure {
			return func(s *Sample, level float64) {
				if level >= 1 {
					s.Leaks = &Leaks{Time: s.Time, Pinned: &Pinned{Goroutines: 200, Bytes: 100 * mebi, Largest: parked(150)}}
				}
			}
		},
		severity: Warning, raised: 1, cleared: 12,
		blind: func(s *Sample, _ float64) { s.Leaks = nil }, whyBlind: noGoroutines,
	},
}
