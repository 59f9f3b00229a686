// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
	"time"

	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/memguard/memguard-go/memguard/sizeclass"
	"github.com/memguard/memguard-go/scavenge/smaps"
)

// Unlimited is the value of a limit that is known and is not there.
const Unlimited = math.MaxUint64

// Origin says where a block of a [Sample] was read.
type Origin string

// The origins of the runtime's figures. The empty Origin means that nothing of
// the runtime was seen.
const (
	FromRuntime Origin = "runtime/metrics" // one batch, read in the process itself
	FromEnviron Origin = "environ"         // the settings the process was started with; it may have changed them since
)

// Sample is one instant of one process. A figure that could not be read is
// unknown, and Blind says why. Byte counts are bytes.
type Sample struct {
	Time    time.Time
	PID     int
	Runtime Runtime
	Process Process
	Cgroup  Cgroup
	Leaks   *Leaks  // nil: nobody follows the goroutines, or has looked yet
	Queues  *Queues // nil: nobody watches them; valid until the next sample
	Blind   []Blind // what could not be read; valid until the Source reads again

	// Paced says that a guard moves the Go memory limit with what the cgroup leaves.
	Paced bool
}

// Leaks is what following the goroutines has shown. It is not changed any more.
type Leaks struct {
	Time     time.Time      // of the last look
	Verdicts []leak.Verdict // clusters that grow or leak, the surest first
	Pinned   *Pinned        // nil while stacks are too small to look

	// Deepest is the cluster with the most bytes of stack, by estimate; nil while
	// stacks are too small to look.
	Deepest *leak.StackUse
	// StackStart is the size that the stack of a goroutine begins with which takes
	// over the descriptor of one that has ended (/gc/stack/starting-size).
	StackStart Bytes
}

// Pinned is the stacks that the collector cannot shrink: those of goroutines in
// system calls or C.
type Pinned struct {
	Goroutines int
	Bytes      uint64        // estimated from the depth of the calls
	Largest    *leak.Cluster // the cluster with the most of it; nil if there is none
}

// Queues is how the queues of finalizers and cleanups do.
type Queues struct{ Finalizers, Cleanups leak.QueueVerdict }

// Blind is something that could not be seen, and why.
type Blind struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Runtime is what the Go runtime accounts for. The memory classes are those of
// runtime/metrics; Total = Objects + Unused + Free + Released + Stacks +
// OSStacks + Metadata (runtime/metrics.go).
type Runtime struct {
	Origin Origin

	Total    Bytes // mapped by the runtime (/memory/classes/total)
	Released Bytes // heap given back to the OS (heap/released)
	Objects  Bytes // live objects and garbage not yet swept (heap/objects)
	Unused   Bytes // room in spans in use that holds no object (heap/unused)
	Free     Bytes // idle spans that are still backed by memory (heap/free)
	Stacks   Bytes // stacks, in the heap's arenas (heap/stacks)
	OSStacks Bytes // thread stacks that the runtime asked the OS for (os-stacks)
	Metadata Bytes // everything else of Total, by the identity above

	Live        Bytes        // marked by the last cycle (/gc/heap/live); unknown before the first
	Allocated   Bytes        // allocated in the heap since start, freed or not (/gc/heap/allocs)
	Goal        Bytes        // heap goal of the running cycle (/gc/heap/goal)
	GCPercent   Value[int64] // GOGC; -1 is off
	MemoryLimit Bytes        // GOMEMLIMIT; Unlimited when there is none
	Cycles      Count        // completed cycles since start
	Goroutines  Count        // since Go 1.26 with the runtime's own
	StackScan   Bytes        // in use on stacks when the last cycle scanned them (/gc/scan/stack)

	// CPU time since start, in seconds, as of the end of the last cycle: it does
	// not move between (mgc.go, gcMarkTermination), and is unknown before the
	// first. GCCPU is the collector's without what it took from idle processors
	// (/cpu/classes/gc/total less gc/mark/idle); CPU is all that GOMAXPROCS allowed,
	// used or not (/cpu/classes/total).
	GCCPU Value[float64]
	CPU   Value[float64]
	// LimiterCycle is the last cycle in which the collector was held at half of the
	// CPU, so that the heap outgrew its goal; 0 is never (/gc/limiter/last-enabled).
	LimiterCycle Count

	// Classes are the objects by size, as read at ClassesAt: at most once a second.
	// Nil is not read. The next reading overwrites it.
	Classes   *sizeclass.Classes
	ClassesAt time.Time

	// Stop-the-world pauses of the collector since start that were longer
	// (/sched/pauses/total/gc; two for each cycle).
	PausesOver500us Count
	PausesOver10ms  Count
}

// seen reports whether the memory classes are known: read in the process, or
// from outside by an [Eye].
func (r *Runtime) seen() bool {
	_, ok := r.mapped().Get()
	return ok
}

// mapped is what the runtime holds of the OS, and what GOMEMLIMIT bounds.
func (r *Runtime) mapped() Bytes {
	if n, ok := minus(r.Total, r.Released).Get(); ok && n >= 0 {
		return Known(uint64(n))
	}
	return Bytes{}
}

// stacksStay is what collections leave of the stacks: each halves those of which
// less than a quarter is in use (runtime/stack.go, shrinkstack). It is 0 before
// the first.
func (r *Runtime) stacksStay() uint64 {
	const inUse = 4
	if r.StackScan.v > math.MaxUint64/inUse {
		return r.Stacks.v
	}
	return min(r.Stacks.v, inUse*r.StackScan.v)
}

// idle is what a collection and a release could free of what is mapped: what the
// last cycle did not mark, and idle spans.
func (r *Runtime) idle() Bytes {
	objects, ok := r.Objects.Get()
	live, ok2 := r.Live.Get()
	free, ok3 := r.Free.Get()
	if !ok || !ok2 || !ok3 {
		return Bytes{}
	}
	return Known(objects - min(objects, live) + free)
}

// heapClaimed is what the runtime believes to be backed by memory in the heap's
// arenas. Stacks are allocated there too.
func (r *Runtime) heapClaimed() Bytes {
	return plus(r.Objects, r.Unused, r.Free, r.Stacks)
}

// Process is the kernel's view of the process.
type Process struct {
	RSS    Bytes // resident memory (proc_pid_statm(5), field 2)
	Shared Bytes // the part of RSS that is file-backed or shared memory (field 3)
	Swap   Bytes // anonymous memory that is swapped out (proc_pid_status(5), VmSwap), as of the last second; of the calling process only

	// Maps is the classified address space. It is nil on a tick: reading it
	// makes the kernel walk the page tables, 15-30 ms per GiB of RSS.
	Maps *smaps.Process

	Go    bool // known to be a Go program
	Cgo   bool // built with cgo, so that C code may hold memory too
	Exe   string
	Build string // Go release that built it, if known
}

// anon is resident anonymous memory: heap, stacks, C memory.
func (p *Process) anon() Bytes {
	if n, ok := minus(p.RSS, p.Shared).Get(); ok && n >= 0 {
		return Known(uint64(n))
	}
	return Bytes{}
}

// swapped is how much of the process is swapped out. Where the process cannot tell, a
// cgroup without swap can.
func (s *Sample) swapped() Bytes {
	if all, ok := s.Cgroup.Swap.Get(); ok && all == 0 && !s.Process.Swap.ok {
		return s.Cgroup.Swap
	}
	return s.Process.Swap
}

// Cgroup is the kernel's view of the memory cgroup that the process is charged
// to. Usage is read at every tick, the rest at most once a second.
type Cgroup struct {
	Path      string // as in /proc/PID/cgroup; empty when there is none
	Version   int    // 1 or 2
	LimitFrom string // directory of the ancestor whose limit is the smallest; "Config.Limit" if that is

	Usage      Bytes // charged now
	Limit      Bytes // smallest limit on the way to the root, or Unlimited
	High       Bytes // memory.high, or Unlimited (cgroup v2)
	WorkingSet Bytes // usage less inactive file pages: what the kubelet looks at
	Swap       Bytes

	Anon         Bytes // charged: more than is mapped where huge pages are not yet split
	Mapped       Bytes // the part of Anon that is mapped, by whichever process
	File         Bytes // page cache, less Shmem
	Shmem        Bytes
	ActiveFile   Bytes // reclaim lists: page cache, and anonymous memory
	InactiveFile Bytes // that was given back with MADV_FREE
	Unevictable  Bytes // locked into memory (mlock(2)): of any kind, on neither list
	Kernel       Bytes // slab, page tables, kernel stacks, sockets
	Reclaimable  Bytes // part of Kernel that is dropped like page cache: inodes, dentries (version 2 only)

	OOMKills Count          // processes that the kernel has killed in here
	Pressure Value[float64] // PSI some avg10, percent of time

	// Above is the ancestor that leaves less room than the cgroup itself.
	Above Above

	// Members are the processes charged to the cgroup; nil on a tick.
	Members []Member
}

// Above is an ancestor of a cgroup whose limit will be reached first: of a pod
// whose containers may together use more than it, for example. Dir is empty when
// there is none.
type Above struct {
	Dir   string
	Usage Bytes // siblings, and page cache, included
	Limit Bytes
}

// undroppable is what the kernel cannot take back by dropping page cache: the
// part of the usage that counts towards a kill.
func (c *Cgroup) undroppable() Bytes {
	usage, ok := c.Usage.Get()
	file, ok2 := plus(c.ActiveFile, c.InactiveFile).Get()
	if !ok || !ok2 {
		return Bytes{}
	}
	slab := c.Reclaimable.v                                                    // version 1 does not tell
	return Known(usage - min(usage, file) - min(usage-min(usage, file), slab)) // they are read one after the other
}

// Member is one process of a cgroup.
type Member struct {
	PID  int
	Anon Bytes // resident anonymous memory (proc_pid_status(5), RssAnon)
	Why  string
}

// bounded returns a limit if it is known and there is one.
func bounded(limit Bytes) (uint64, bool) {
	n, ok := limit.Get()
	return n, ok && n < Unlimited
}
