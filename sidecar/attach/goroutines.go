// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach/internal/goexe"
)

// GoroutineState is what the goroutines do.
type GoroutineState struct {
	// Total is what runtime.NumGoroutine says, by the runtime's own counters.
	Total    memguard.Count    `json:"total"`
	States   map[string]uint64 `json:"states"`   // by state, the runtime's own goroutines too; nil without Goroutines
	Clusters []Cluster         `json:"clusters"` // biggest first; nil without Goroutines
	// Unclustered are goroutines beyond the bound of different clusters.
	Unclustered uint64 `json:"unclustered,omitempty"`
}

// Cluster are goroutines that do the same at the same place.
type Cluster struct {
	Count     uint64  `json:"count"`
	State     string  `json:"state"`
	Reason    string  `json:"reason,omitempty"` // of waiting
	System    bool    `json:"system"`           // the runtime's own
	Start     string  `json:"start"`            // function that the go statement started
	CreatedBy Frame   `json:"created_by"`
	Stack     []Frame `json:"stack"` // innermost first; nil where it cannot be read, as of one that runs
	StackWhy  string  `json:"stack_unknown,omitempty"`
	// LongestNs is how long the one that waits longest has been seen waiting; the
	// collector notes the time, so it is unknown before the first cycle after.
	LongestNs memguard.Value[int64] `json:"longest_ns"`
	Example   uint64                `json:"example_id"`

	pcs   []uint64
	lines [][]goexe.Frame // of each of pcs
}

// Goroutine is one goroutine.
type Goroutine struct {
	ID     uint64  `json:"id"`
	State  string  `json:"state"`
	Reason string  `json:"reason,omitempty"`
	Stack  []Frame `json:"stack"`
	Why    string  `json:"stack_unknown,omitempty"`
}

// Frame is one line of a stack.
type Frame struct {
	Func string `json:"func"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// States of a goroutine (runtime/runtime2.go).
const (
	statusRunnable  = 1
	statusRunning   = 2
	statusSyscall   = 3
	statusWaiting   = 4
	statusDead      = 6
	statusCopy      = 8 // its stack is being moved
	statusPreempted = 9
	statusLeaked    = 10 // Go 1.26
	statusDeadX     = 11 // of a thread that C made, between its calls into Go (Go 1.26)
	statusScan      = 0x1000
)

var statusNames = [12]string{
	0: "idle", statusRunnable: "runnable", statusRunning: "running", statusSyscall: "syscall", statusWaiting: "waiting",
	5: "moribund", statusDead: "dead", 7: "enqueue", statusCopy: "copystack", statusPreempted: "preempted", statusLeaked: "leaked", statusDeadX: "deadextra",
}

// Bounds of goroutines.
const (
	maxStack    = 1 << 30 // the runtime's own limit (runtime/proc.go, maxstacksize)
	maxGroups   = 1 << 14
	maxClusters = 1 << 12
	samplesPer  = 3 // stacks looked at of each cluster
)

// g is a goroutine as it is kept by the runtime.
type g struct {
	addr          uint64
	id            uint64
	status        uint32
	reason        uint8
	lo, hi        uint64 // its stack
	pc, sp, lr    uint64
	goPC, startPC uint64
	since         int64 // nanotime at which the collector first saw it waiting
}

// g decodes a goroutine.
func (t *Target) g(b []byte) g {
	f := &t.layout.G
	r := g{
		id: u64(b, f.GoID), status: u32(b, f.Status), lo: u64(b, f.StackLo), hi: u64(b, f.StackHi),
		pc: u64(b, f.SchedPC), sp: u64(b, f.SchedSP), goPC: u64(b, f.GoPC), startPC: u64(b, f.StartPC),
	}
	switch r.status &^ statusScan {
	case statusWaiting, statusSyscall:
		r.since = int64(u64(b, f.WaitSince)) // of others it is left over
	}
	if f.WaitReason.Has() && int(f.WaitReason) < len(b) {
		r.reason = b[f.WaitReason]
	}
	if t.exe.Arch == "arm64" {
		r.lr = u64(b, f.SchedLR)
	}
	if sp := u64(b, f.SyscallSP); sp != 0 && r.status&^statusScan == statusSyscall {
		r.sp, r.pc = sp, u64(b, f.SyscallPC)
	}
	return r
}

// key is what goroutines of one cluster have in common, without a look at their
// stacks: the depth of the stack tells most call paths apart.
type key struct {
	status  uint32
	reason  uint8
	pc      uint64
	goPC    uint64
	startPC uint64
	depth   uint64
}

func (g *g) key() key {
	k := key{g.status &^ statusScan, 0, 0, g.goPC, g.startPC, 0}
	switch k.status {
	case statusWaiting, statusPreempted, statusLeaked:
		k.reason = g.reason
		fallthrough
	case statusRunnable, statusSyscall:
		k.pc, k.depth = g.pc, g.hi-g.sp
	}
	return k
}

// group are goroutines with the same key.
type group struct {
	count   uint64
	samples []g
	oldest  int64
}

// goroutines walks over all goroutines. Every one's stack is looked at, or those
// of a few of each group.
func (t *Target) goroutines(ctx context.Context, s *Snapshot, sc *scalars, every bool) error {
	if sc.allgs.len > maxGs {
		return fmt.Errorf("%d goroutines: %w", sc.allgs.len, errTooMany)
	}
	state := &s.Goroutines
	groups := map[key]*group{}
	cl := &clusterer{ctx: ctx, t: t, stacks: stacks{t: t}, index: map[string]int{}, now: monotonic()}
	var torn uint64
	var counts [len(statusNames)]uint64
	bad, err := t.walk(ctx, sc.allgs, int(t.layout.G.Size), func(addr uint64, b []byte) {
		g := t.g(b)
		g.addr = addr
		k := g.key()
		if k.status >= uint32(len(statusNames)) || statusNames[k.status] == "" || g.lo > g.hi || g.hi-g.lo > maxStack {
			torn++
			return
		}
		if k.status == statusDead || k.status == statusDeadX || k.status == 0 {
			return
		}
		counts[k.status]++
		if every {
			cl.add(&g, k, 1, g.since)
			return
		}
		gr := groups[k]
		if gr == nil {
			if len(groups) == maxGroups {
				cl.lost++
				return
			}
			gr = &group{}
			groups[k] = gr
		}
		gr.count++
		if len(gr.samples) < samplesPer {
			gr.samples = append(gr.samples, g)
		} else if gr.count&(gr.count-1) == 0 {
			gr.samples[samplesPer-1] = g // one from further on
		}
		if g.since > 0 && (gr.oldest == 0 || g.since < gr.oldest) {
			gr.oldest = g.since
		}
	})
	if err = cmp.Or(err, ctx.Err()); err != nil {
		return err
	}
	keys := slices.Collect(maps.Keys(groups))
	sort.Slice(keys, func(i, j int) bool {
		a, b := &keys[i], &keys[j]
		return cmp.Or(cmp.Compare(groups[*b].count, groups[*a].count), cmp.Compare(a.startPC, b.startPC), cmp.Compare(a.pc, b.pc), cmp.Compare(a.depth, b.depth)) < 0
	})
	differ := map[key]bool{}
	for _, k := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !cl.group(k, groups[k]) {
			differ[k] = true
		}
	}
	if len(differ) > 0 {
		// What looks the same from afar is not: each one's stack has to be looked at.
		_, err := t.walk(ctx, sc.allgs, int(t.layout.G.Size), func(addr uint64, b []byte) {
			g := t.g(b)
			g.addr = addr
			if k := g.key(); differ[k] {
				cl.add(&g, k, 1, g.since)
			}
		})
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
	}
	state.States = map[string]uint64{}
	for status, n := range counts {
		if n > 0 {
			state.States[statusNames[status]] = n
		}
	}
	if bad+torn > 0 {
		s.cannot(fmt.Sprintf("%d of %d goroutines", bad+torn, sc.allgs.len), "they changed while they were read")
	}
	sort.SliceStable(cl.out, func(i, j int) bool { return cl.out[i].Count > cl.out[j].Count })
	state.Clusters, state.Unclustered = slices.Concat([]Cluster{}, cl.out), cl.lost
	s.runners()
	if n, ok := state.Total.Get(); ok && cl.lost == 0 {
		var user uint64
		for _, c := range state.Clusters {
			// A goroutine that runs finalizers or cleanups is not counted even while it
			// runs code of the program.
			if !c.System && !strings.HasPrefix(c.Start, "runtime.run") {
				user += c.Count
			}
		}
		s.Checks = append(s.Checks, Check{"goroutines: the runtime's counters against the walk over all", n, user})
	}
	return nil
}

// clusterer puts goroutines with the same stack into clusters.
type clusterer struct {
	ctx    context.Context
	t      *Target
	stacks stacks
	index  map[string]int
	out    []Cluster
	lost   uint64
	now    int64
}

// group adds a group whose samples all have the same stack. Of others it adds
// nothing and returns false.
func (c *clusterer) group(k key, gr *group) bool {
	first, why := c.stacks.of(&gr.samples[0], k)
	for i := range gr.samples[1:] {
		pcs, why2 := c.stacks.of(&gr.samples[1+i], k)
		if why2 != why || !slices.Equal(pcs, first) {
			return false
		}
	}
	c.put(&gr.samples[0], k, first, why, gr.count, gr.oldest)
	return true
}

// add adds n goroutines that look like g. The one that has waited longest began
// at since, if that is known.
func (c *clusterer) add(g *g, k key, n uint64, since int64) {
	if c.ctx.Err() != nil {
		return // the walk ends at its next look
	}
	pcs, why := c.stacks.of(g, k)
	c.put(g, k, pcs, why, n, since)
}

func (c *clusterer) put(g *g, k key, pcs []uint64, why string, n uint64, since int64) {
	id := fmt.Sprint(k.status, k.reason, k.goPC, k.startPC, pcs, why)
	at, ok := c.index[id]
	if !ok {
		if at = len(c.out); at == maxClusters {
			c.lost += n
			return
		}
		c.index[id] = at
		c.out = append(c.out, c.t.cluster(k, g, pcs, why))
	}
	cluster := &c.out[at]
	cluster.Count += n
	if since > 0 && c.now > since {
		longest, _ := cluster.LongestNs.Get()
		cluster.LongestNs = memguard.Known(max(longest, c.now-since))
	}
}

// cluster describes a cluster by one of its goroutines.
func (t *Target) cluster(k key, g *g, pcs []uint64, why string) Cluster {
	c := Cluster{State: statusNames[k.status], Reason: t.reason(k), Start: t.name1(k.startPC), Example: g.id, pcs: pcs, StackWhy: why}
	for _, pc := range pcs {
		lines := t.frames.expand(t, pc)
		c.lines = append(c.lines, lines)
		for _, f := range lines {
			c.Stack = append(c.Stack, Frame{f.Func, f.File, f.Line})
		}
	}
	if fr := t.frames.expand(t, k.goPC-1); len(fr) > 0 {
		f := fr[0] // the line of the go statement, which may be in an inlined function
		c.CreatedBy = Frame{f.Func, f.File, f.Line}
	}
	c.System = system(c.Start, c.Stack)
	return c
}

// reason names what a goroutine waits for.
func (t *Target) reason(k key) string {
	if k.status != statusWaiting && k.status != statusPreempted && k.status != statusLeaked {
		return ""
	}
	if int(k.reason) < len(t.layout.WaitReasons) {
		return t.layout.WaitReasons[k.reason]
	}
	return fmt.Sprintf("wait reason %d", k.reason)
}

// system reports whether the runtime counts a goroutine as its own
// (runtime/traceback.go, isSystemGoroutine): those that it started, but for main
// and for the ones that run finalizers and cleanups while they do.
func system(start string, stack []Frame) bool {
	switch start {
	case "runtime.main", "runtime.handleAsyncEvent", "runtime.corostart":
		return false
	case "runtime.runfinq", "runtime.runFinalizers", "runtime.runCleanups":
		return !runsUser(stack)
	}
	return strings.HasPrefix(start, "runtime.")
}

// runsUser reports whether there is a function of the program on the stack.
func runsUser(stack []Frame) bool {
	for _, f := range stack {
		if !strings.HasPrefix(f.Func, "runtime.") && !strings.HasPrefix(f.Func, "internal/runtime/") {
			return true
		}
	}
	return false
}

// runners finds the goroutines that run finalizers and cleanups, and where they
// are.
func (s *Snapshot) runners() {
	for _, c := range s.Goroutines.Clusters {
		r := Goroutine{ID: c.Example, State: c.State, Reason: c.Reason, Stack: c.Stack, Why: c.StackWhy}
		switch c.Start {
		case "runtime.runfinq", "runtime.runFinalizers":
			s.Finalizers.Runners = append(s.Finalizers.Runners, r)
		case "runtime.runCleanups":
			s.Cleanups.Runners = append(s.Cleanups.Runners, r)
		}
	}
}
