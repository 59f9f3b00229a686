// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"strings"
	"time"
)

// Severity ranks a Finding.
type Severity int

// The severities. A healthy service has no finding of Warning or above.
const (
	Info     Severity = iota + 1 // worth knowing; nothing need be done
	Warning                      // will cost memory, CPU or a restart if it stays
	Critical                     // has killed, or is about to
)

var severityNames = [...]string{Info: "info", Warning: "warning", Critical: "critical"}

// String returns "info", "warning" or "critical".
func (s Severity) String() string {
	if s < Info || s > Critical {
		return fmt.Sprintf("Severity(%d)", int(s))
	}
	return severityNames[s]
}

// MarshalText writes the severity's name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a severity's name.
func (s *Severity) UnmarshalText(b []byte) error {
	for i, name := range severityNames {
		if name == string(b) && name != "" {
			*s = Severity(i)
			return nil
		}
	}
	return fmt.Errorf("memguard: severity %q: want info, warning or critical", b)
}

// ID names a kind of finding. IDs are API: metric labels, alert rules and
// dashboards use them.
type ID string

// Finding is something wrong, with the figures that prove it.
type Finding struct {
	ID       ID        `json:"id"`
	Severity Severity  `json:"severity"`
	Since    time.Time `json:"since"`   // when it was first seen
	Summary  string    `json:"summary"` // one plain sentence
	Evidence []Fact    `json:"evidence"`
	Remedy   string    `json:"remedy"` // what the user can do
}

// Fact is one figure of a Finding's evidence, in base units.
type Fact struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  Unit    `json:"unit"`
}

// Unit is the unit of a Fact.
type Unit string

// The units of evidence.
const (
	UnitBytes          Unit = "bytes"
	UnitBytesPerSecond Unit = "bytes/second"
	UnitSeconds        Unit = "seconds"
	UnitPercent        Unit = "percent"
	UnitCount          Unit = "count"
)

// String renders the figure for people: MiB for bytes, and so on.
func (f Fact) String() string {
	switch f.Unit {
	case UnitBytes:
		return f.Name + " " + mib(f.Value)
	case UnitBytesPerSecond:
		return f.Name + " " + mib(f.Value) + "/s"
	case UnitSeconds:
		return f.Name + " " + (time.Duration(f.Value * float64(time.Second))).Round(time.Second).String()
	case UnitPercent:
		return fmt.Sprintf("%s %.0f %%", f.Name, f.Value)
	}
	return fmt.Sprintf("%s %.0f", f.Name, f.Value)
}

// mib renders a byte count with as many digits as a person wants.
func mib(n float64) string {
	const m = 1 << 20
	switch a := max(n, -n); {
	case a >= 100*m:
		return fmt.Sprintf("%.0f MiB", n/m)
	case a >= 0.05*m:
		return fmt.Sprintf("%.1f MiB", n/m)
	}
	return fmt.Sprintf("%.0f KiB", n/1024)
}

// Doc describes one kind of finding: what docs/findings.md says of it.
type Doc struct {
	ID     ID
	Means  string // what is wrong, in one sentence
	Signal string // the true signal that it is read from
	Raised string // when it is raised, at which severity
	Remedy string // what the user can do
}

// docs is the one table of findings. docs/findings.md is generated from it and
// every detector's remedy is read from it.
var docs = []Doc{
	{
		ID:     "limit-missing",
		Means:  "The kernel limits the memory, but the Go runtime has no memory limit: it collects by GOGC alone and may pass the kernel's limit with garbage it could have freed.",
		Signal: "`/gc/gomemlimit:bytes`, heap goal and non-heap memory against the smallest limit of the cgroup and its ancestors; from outside the GOMEMLIMIT that the process was started with",
		Raised: "info; warning when the present heap goal and everything else in the cgroup do not fit under the limit together",
		Remedy: "Set GOMEMLIMIT below the container's limit and leave room for what is not Go's: about 90 % of the limit for a pure Go service, less with cgo or page cache.",
	},
	{
		ID:     "limit-above-cgroup",
		Means:  "The Go memory limit is at or above what the kernel leaves for Go, so the kernel kills before the collector reacts.",
		Signal: "`/gc/gomemlimit:bytes` against the cgroup's limit less resident memory that is not Go's",
		Raised: "warning",
		Remedy: "Lower GOMEMLIMIT, or raise the container's limit: the two must differ by everything in the cgroup that is not Go's.",
	},
	{
		ID:     "gc-off-no-limit",
		Means:  "GOGC is off and there is no Go memory limit: nothing collects, not even the two-minute cycle, and the heap grows until the kernel kills.",
		Signal: "`/gc/gogc:percent` off and `/gc/gomemlimit:bytes` unset; from outside the environment",
		Raised: "critical under a cgroup limit, warning without one",
		Remedy: "Set GOMEMLIMIT (then GOGC=off is a choice: collect only near the limit), or remove GOGC=off.",
	},
	{
		ID:     "retained-idle",
		Means:  "Idle heap stays backed by memory after a spike: the scavenger skips chunks that were dense in the last cycle, and no cycle runs while the program is idle.",
		Signal: "`/memory/classes/heap/free:bytes` beyond what the heap grows into until its goal and a tenth more, which is what the scavenger keeps on purpose",
		Raised: "info at 50 MiB and a quarter of the memory held; warning when it stays for a minute",
		Remedy: "It goes back by itself after the next two collections. If a neighbour needs it now, call debug.FreeOSMemory once after the spike; it costs a collection.",
	},
	{
		ID:     "span-fragmentation",
		Means:  "Spans in use hold few objects: survivors pin their pages, and neither a collection nor FreeOSMemory frees them.",
		Signal: "`/memory/classes/heap/unused:bytes` against objects and unused together, after a completed cycle",
		Raised: "warning at 40 % and 32 MiB",
		Remedy: "Rebuild the long-lived structure (copy the survivors, drop the old one), or allocate long-lived small objects apart from short-lived ones of the same size.",
	},
	{
		ID:     "stack-bloat",
		Means:  "Goroutine stacks hold a large part of the memory; heap profiles do not show them.",
		Signal: "`/memory/classes/heap/stacks:bytes` and the number of goroutines; whose the bytes are by the depth of each cluster of the goroutine profile; the size that stacks begin with (/gc/stack/starting-size), which some that are parked deep raise for those that follow",
		Raised: "warning at 64 MiB and a quarter of what the runtime holds",
		Remedy: "Look at the cluster that is named, which holds the most: many goroutines, or parked deep in a call chain. Stacks halve at each collection once their frames have returned.",
	},
	{
		ID:     "thp-refill",
		Means:  "More of the Go heap is resident than the runtime holds: the kernel filled released memory again with huge pages.",
		Signal: "resident size of the heap's mappings (smaps) beyond the runtime's own sum, with AnonHugePages in them",
		Raised: "warning at 32 MiB and a tenth of the heap's mappings",
		Remedy: "Set /sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none to 0, or run with GODEBUG=disablethp=1.",
	},
	{
		ID:     "lazyfree-rss",
		Means:  "RSS counts memory that is already given back: pages freed with MADV_FREE stay resident until the kernel needs them.",
		Signal: "LazyFree in smaps",
		Raised: "info at 32 MiB and a tenth of RSS",
		Remedy: "Judge by RSS less LazyFree. In Go 1.16 and later only GODEBUG=madvdontneed=0 asks for it; remove that to see RSS fall at once.",
	},
	{
		ID:     "nongo-growth",
		Means:  "Anonymous memory that is not Go's grows steadily: C allocations, arenas of the C library, or mappings of the program itself. No Go profile shows it.",
		Signal: "in the process: resident anonymous memory less what the runtime holds, over time; from outside: the mappings that are not Go's, over time",
		Raised: "info when it has grown by 16 MiB and its slope's lower quartile is above 64 KiB/s, warning when that was so for half a minute",
		Remedy: "Profile the C side (a malloc profiler, MALLOC_ARENA_MAX=2 to see whether arenas are the cause), and lower GOMEMLIMIT by what it takes.",
	},
	{
		ID:     "gc-death-spiral",
		Means:  "What lives is so near the Go memory limit that the collector runs all the time and gains little. The limit is soft: at half of the CPU the runtime stops trying, and the heap outgrows it.",
		Signal: "CPU of the collector without idle processors' (`/cpu/classes/gc/total:cpu-seconds`, `/cpu/classes/gc/mark/idle:cpu-seconds`) against `/cpu/classes/total:cpu-seconds`, bytes allocated for each cycle, what no collection frees against `/gc/gomemlimit:bytes`, and `/gc/limiter/last-enabled:gc-cycle`",
		Raised: "warning when 70 % of the limit cannot be freed, the collector takes a quarter of the CPU and a cycle frees less than a quarter of the live heap; critical after ten seconds of that, or at once when the limiter held a cycle at half of the CPU and 60 % cannot be freed",
		Remedy: "Raise the memory limit, hold less, or take less work at a time: a lower GOGC does not help, and a Go memory limit that is further from what lives stops the spiral but not the growth.",
	},
	{
		ID:     "gc-storm",
		Means:  "The collector takes a large part of the CPU although memory has not run out: the heap is small for what is allocated, GOGC is low, or GOMEMLIMIT leaves little room for garbage.",
		Signal: "CPU of the collector without idle processors' against `/cpu/classes/total:cpu-seconds`, over the last 15 to 30 s, and `/gc/cycles/total:gc-cycles`",
		Raised: "info at a quarter of the CPU and 20 cycles; warning at a third for a minute",
		Remedy: "Raise GOGC under a GOMEMLIMIT that fits the container, or allocate less: the allocs profile says where. If the limit is the cause, raise it.",
	},
	{
		ID:     "gc-overshoot",
		Means:  "While a collection marks, the program allocates past the heap goal: the peak is higher than GOGC and the live heap say.",
		Signal: "mean heap at the end of marking, which is `/gc/heap/live:bytes` and the `/gc/heap/allocs:bytes` of a cycle, against `/gc/heap/goal:bytes`, over ten cycles or more",
		Raised: "info at 16 MiB and a fifth of the goal; warning when the cgroup comes to 90 % of its limit by it",
		Remedy: "Leave room for it under the limit, give the collector CPU (it marks for longer when it is throttled), or allocate large buffers less often: reuse them.",
	},
	{
		ID:     "sizeclass-growth",
		Means:  "Objects of one size pile up: each collection leaves more of them than the one before.",
		Signal: "objects allocated and not freed by size (/gc/heap/allocs-by-size less /gc/heap/frees-by-size), the lowest of each round of looks, of which one follows a completed cycle",
		Raised: "info at 500,000 objects (`Config.ClassObjects`) in a class that has grown through two cycles and more, and does so now; warning when that goes on for three minutes and has added a quarter",
		Remedy: "Compare two heap profiles with pprof -base and -sample_index=inuse_objects: the type of this size that grew is the lead. If it is a cache, bound it.",
	},
	{
		ID:     "scavenge-idle",
		Means:  "Idle heap stays backed by memory and nothing will change that: no collection comes that would let the scavenger have it, or it had several and gave nothing back.",
		Signal: "`/memory/classes/heap/free:bytes` that stays the same over `/gc/cycles/total:gc-cycles` and time",
		Raised: "info at 50 MiB and a quarter of the memory held, when no cycle came for two and a half minutes, or three did in one; warning when the cgroup is at 80 % of its limit",
		Remedy: "Call debug.FreeOSMemory after the spike. With GOGC=off collections come near GOMEMLIMIT only: set GOGC as well if memory should go back before.",
	},
	{
		ID:     "neighbour-pressure",
		Means:  "The limit is near because of others: processes in the same cgroup, or cgroups beside it under an ancestor with a limit.",
		Signal: "anonymous memory that is mapped in the cgroup less the process's own; usage of the ancestor that leaves the least room less the cgroup's own",
		Raised: "warning when the cgroup is at 90 % of its limit without page cache and a quarter of that is others'; for an ancestor info, and warning when tasks stall for 10 % of the time",
		Remedy: "Find the neighbour: cgroup.procs of the cgroup that is named, or the other containers of the pod. Give it a limit of its own, or move it.",
	},
	{
		ID:     "goroutine-leak",
		Means:  "Goroutines are left behind: more and more of them wait at one line, and the signs say that nobody will wake them.",
		Signal: "clusters of the goroutine profile over time: strict growth, age, blocked state, known shapes, and the goroutineleak profile where the program has it; the bytes of their stacks by their depth",
		Raised: "warning when growth through nine looks and two minutes comes with a stack that is known to leak or a wait for another goroutine, or when the collector has proved it",
		Remedy: "Look at the line that created them, which the finding names (in profiles of `memguard inspect` the labels created_by and created_at): whoever waits needs a way to be told to stop, such as a context, a closed channel or a deadline.",
	},
	{
		ID:     "goroutine-growth",
		Means:  "Goroutines at one line grow in number, but they may be at work: they wait for a peer or a timer, or are woken.",
		Signal: "clusters of the goroutine profile over time",
		Raised: "info when growth through nine looks and two minutes has no other sign of a leak",
		Remedy: "Compare with the load. If that does not grow, bound them: a semaphore, a pool, or a deadline on what they wait for.",
	},
	{
		ID:     "finalizer-stall",
		Means:  "One finalizer does not return. All finalizers of a process run on one goroutine, so no other runs any more, and what they would release stays.",
		Signal: "finalizers queued and executed, a probe of the guard's own, and the frames under runtime.runFinalizers",
		Raised: "warning when nothing was executed and the same line of the same finalizer has been seen for a second; after ten seconds where it sleeps, computes or talks to a peer",
		Remedy: "Look at the finalizer that is named and at the line where the queue's goroutine waits in it. A finalizer must not wait: hand its work to a goroutine, or release in Close and let the finalizer only say that it was forgotten.",
	},
	{
		ID:     "cleanup-stall",
		Means:  "A function that was given to runtime.AddCleanup does not return, and others wait behind it: they share a few goroutines, and before Go 1.25 the finalizers' one.",
		Signal: "cleanups queued and executed, and the frames under runtime.runCleanups",
		Raised: "warning when nothing was executed and the same line has been seen for a second; after ten seconds where it sleeps, computes or talks to a peer",
		Remedy: "A cleanup must not wait: hand its work to a goroutine.",
	},
	{
		ID:     "finalizer-slow",
		Means:  "Finalizers or cleanups are executed, but more slowly than they are queued: what they release comes back late.",
		Signal: "functions queued and executed over time",
		Raised: "info when they are behind for five seconds and would not be through in as many",
		Remedy: "Do less in them, or release in Close so that they are not needed. One that takes long holds up all others.",
	},
	{
		ID:     "stack-pinned",
		Means:  "Goroutines are in system calls or C with large stacks: the collector does not shrink a stack until its goroutine is back.",
		Signal: "goroutine profile, the stack bytes divided by depth; looked at while `/memory/classes/heap/stacks:bytes` is 32 MiB or more",
		Raised: "info at 32 MiB of such stacks, by estimate; warning at 64 MiB and a quarter of what the runtime holds",
		Remedy: "Call into the kernel or C from a goroutine with a shallow stack: start one for it, or do it before the deep work.",
	},
	{
		ID:     "gc-pause",
		Means:  "The collector stops the world for long. Its own work in a pause is short; what is long is mostly the wait until every thread has stopped, on a CPU that is starved or throttled.",
		Signal: "`/sched/pauses/total/gc:seconds` over the last minute",
		Raised: "info at ten pauses over 500 us, or three over 10 ms, in the last half to whole minute; warning at ten over 10 ms",
		Remedy: "Compare with CPU throttling (cpu.stat nr_throttled) and PSI: raise the CPU limit, or set GOMAXPROCS to it. An execution trace of such a second shows which pause and who was late.",
	},
	{
		ID:     "pagecache-pressure",
		Means:  "The cgroup is near its limit and a good part of that is page cache, which the kernel drops before it kills: usage looks worse than it is, but every read and write pays for the reclaim.",
		Signal: "file pages and working set against the limit; PSI memory",
		Raised: "info at 90 % usage with a fifth of it droppable; warning when tasks stall for 10 % of the time",
		Remedy: "Judge by the working set, not by usage. If it stalls: raise the limit, write less through the cache (O_DIRECT, fadvise DONTNEED), or read with a smaller window.",
	},
	{
		ID:     "oom-forecast",
		Means:  "Memory that cannot be dropped grows steadily and will reach the kernel's limit.",
		Signal: "what cannot be freed: usage without page cache, in the process less garbage and idle heap. Of it the lower quartile of all pairwise slopes (Theil-Sen) over the last minute; and, in the process, the least slope (95 % confidence) of a line through what each collection has left, over one to four minutes, if the newest third of that is a new high and neither half grows more slowly",
		Raised: "info within ten minutes; warning within two and critical within thirty seconds, once growth was seen for as long as there is left and for ten seconds (one second before the limit at once, and a warning two before with GOGC=off if next to nothing has become garbage); of slow growth, under the teeth of a cache, once half of the way to the limit has been gone",
		Remedy: "Take a heap and a goroutine profile now, twice, and compare them; the growing row of the ledger says which. Then restart in order, before the kernel does.",
	},
	{
		ID:     "oom-kill",
		Means:  "The kernel has killed a process of this cgroup because the limit was reached.",
		Signal: "`oom_kill` in memory.events (v2) or memory.oom_control (v1)",
		Raised: "critical for ten minutes when it happens while we watch, info afterwards and when it happened before we looked",
		Remedy: "See the ledger of the moment before. A kill leaves no stack: the row that grew is the lead.",
	},
}

// Docs returns the table of all findings, in the order of docs/findings.md.
func Docs() []Doc { return append([]Doc(nil), docs...) }

// doc returns the table's entry for id.
func (id ID) doc() Doc {
	for _, d := range docs {
		if d.ID == id {
			return d
		}
	}
	return Doc{ID: id}
}

// findingsMarkdown renders the table as docs/findings.md.
func findingsMarkdown() string {
	var b strings.Builder
	b.WriteString("# Findings\n\nGenerated from the table in `memguard/finding.go` by `make golden`; do not edit.\n")
	for _, d := range docs {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n- **Signal:** %s.\n- **Raised:** %s.\n- **Remedy:** %s\n", d.ID, d.Means, d.Signal, d.Raised, d.Remedy)
	}
	return b.String()
}
