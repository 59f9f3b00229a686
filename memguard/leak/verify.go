// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"bufio"
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// TB is what the checks for go test need of a *testing.T.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
}

// Option changes what [VerifyNone] and [VerifyFlat] look at.
type Option func(*check)

// check is one verification under way.
type check struct {
	ignore  []func(*Cluster) bool
	known   map[uint64]bool // goroutines that were there before
	patient time.Duration
}

// Ignore leaves out the clusters for which f returns true.
func Ignore(f func(*Cluster) bool) Option {
	return func(c *check) { c.ignore = append(c.ignore, f) }
}

// IgnoreFunc leaves out goroutines with a function in their stack or as their
// creator, for example "example.com/pool.(*Pool).run".
func IgnoreFunc(name string) Option {
	is := func(f Frame) bool { return f.Func == name }
	return Ignore(func(c *Cluster) bool {
		return slices.ContainsFunc(c.Stack, is) ||
			slices.ContainsFunc(c.Created, func(by Creator) bool { return is(by.Frame) })
	})
}

// IgnoreCurrent leaves out the goroutines that exist now: call it before the code
// that is tested.
func IgnoreCurrent() Option {
	known := map[uint64]bool{}
	for g := range goroutines() {
		known[g.id] = true
	}
	return func(c *check) {
		for id := range known {
			c.known[id] = true
		}
	}
}

// Patience is how long goroutines have to end by themselves: a second without it.
func Patience(d time.Duration) Option { return func(c *check) { c.patient = d } }

// VerifyNone fails a test that leaves goroutines behind, or a finalizer or
// cleanup that does not return. To be deferred, or handed to t.Cleanup:
//
//	defer leak.VerifyNone(t)
//
// It looks at the whole process, so a test that uses it cannot run in parallel
// with others. It waits for up to a second for goroutines to end, and runs three
// collections to see that the finalizers get on.
func VerifyNone(t TB, opts ...Option) {
	t.Helper()
	c := newCheck(opts)
	c.verifyQueues(t)
	left := c.await(func(left *Snapshot) bool { return left.Goroutines == 0 })
	for _, cl := range left.Clusters {
		t.Errorf("%s", describe(fmt.Sprintf("leak: %d %s left behind", cl.Count, plural(cl.Count, "goroutine is", "goroutines are")), cl))
	}
}

// VerifyFlat fails a test if the goroutines grow with each call of f: it calls it
// twice to let pools fill, and then n times, 5 at least, and fails if a go
// statement has as many more goroutines as there were calls. What f leaves behind
// once, such as a pool or an idle connection, is not growth.
func VerifyFlat(t TB, n int, f func(), opts ...Option) {
	t.Helper()
	c := newCheck(opts)
	n = max(n, 5)
	f()
	f()
	had := created(c.settle())
	for range n {
		f()
	}
	// Goroutines that have not yet run, and those that are about to end, are in
	// other clusters than the others: so they are counted by go statement.
	var grown []Frame
	after := c.await(func(now *Snapshot) bool {
		grown = grown[:0]
		for by, count := range created(now) {
			if count-had[by] >= n {
				grown = append(grown, by)
			}
		}
		return len(grown) == 0
	})
	for _, by := range grown {
		i := slices.IndexFunc(after.Clusters, func(cl *Cluster) bool {
			return slices.ContainsFunc(cl.Created, func(c Creator) bool { return c.Frame == by })
		})
		t.Errorf("%s", describe(fmt.Sprintf("leak: %d goroutines more after %d calls", created(after)[by]-had[by], n), after.Clusters[i]))
	}
	c.verifyQueues(t)
}

// created counts goroutines by go statement.
func created(s *Snapshot) map[Frame]int {
	counts := map[Frame]int{}
	for _, cl := range s.Clusters {
		for _, by := range cl.Created {
			counts[by.Frame] += by.Count
		}
	}
	return counts
}

func newCheck(opts []Option) *check {
	c := &check{known: map[uint64]bool{}, patient: time.Second}
	for _, o := range opts {
		o(c)
	}
	return c
}

// describe is a failure's text: what, since where, and what to do.
func describe(head string, c *Cluster) string {
	var b strings.Builder
	b.WriteString(head)
	if c.State != "" {
		fmt.Fprintf(&b, " in [%s]", c.State)
	}
	for _, by := range c.Created {
		fmt.Fprintf(&b, "\n    created by %s\n        %s:%d", by.Func, by.File, by.Line)
	}
	for _, f := range c.Stack {
		fmt.Fprintf(&b, "\n    %s\n        %s:%d", f.Func, f.File, f.Line)
	}
	if s := shapeOf(c); s != nil {
		fmt.Fprintf(&b, "\n    %s: %s %s", s.Name, s.Why, s.Remedy)
	}
	return b.String()
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// await looks until done, or for as long as the check is patient, and returns
// the last look.
func (c *check) await(done func(*Snapshot) bool) *Snapshot {
	deadline := time.Now().Add(c.patient)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		s := c.left()
		if done(s) || !time.Now().Before(deadline) {
			return s
		}
		time.Sleep(pause)
	}
}

// settle looks until two looks are the same, or for as long as the check is
// patient.
func (c *check) settle() *Snapshot {
	last := -1
	return c.await(func(s *Snapshot) bool {
		same := s.Goroutines == last
		last = s.Goroutines
		return same
	})
}

// left is the goroutines that count.
func (c *check) left() *Snapshot {
	s := &Snapshot{Format: Dump, Time: time.Now()}
	first := true
	for g := range goroutines() {
		if !first && !c.known[g.id] && !expected(g) {
			s.put(g)
		}
		first = false // the caller's own
	}
	kept := s.Clusters[:0]
	for _, cl := range s.Clusters {
		if slices.ContainsFunc(c.ignore, func(f func(*Cluster) bool) bool { return f(cl) }) {
			s.Goroutines -= cl.Count
			continue
		}
		kept = append(kept, cl)
	}
	s.Clusters = kept
	s.done()
	return s
}

// goroutines reads a dump of the process, the caller's goroutine first.
func goroutines() func(yield func(*goroutine) bool) {
	return func(yield func(*goroutine) bool) {
		n := runtime.NumGoroutine()
		for {
			text := dump(n)
			if len(text) < min(64<<10+2048*n, 64<<20) || n > 1<<16 {
				d := dumpReader{src: bufio.NewReader(bytes.NewReader(text))}
				for g, ok := d.read(); ok; g, ok = d.read() {
					if !yield(&g) {
						return
					}
				}
				return
			}
			n *= 2
		}
	}
}

// expected says that a goroutine belongs to the test framework or to the
// process: it runs tests, waits for signals, or runs finalizers (whether those
// get on is another check).
func expected(g *goroutine) bool {
	for _, f := range g.stack {
		if _, ok := queueFrames[f.Func]; ok {
			return true
		}
		switch f.Func {
		case "testing.(*T).Run", "testing.(*T).Parallel", "testing.(*M).startAlarm", "testing.runFuzzing", "testing.runFuzzTests",
			"testing.RunTests", "testing.tRunner.func1", "os/signal.signal_recv", "os/signal.loop", "runtime.ensureSigM", "runtime.ReadTrace",
			"testing.(*testState).waitParallel", "testing.(*testContext).waitParallel":
			return true
		}
	}
	switch g.created.Func {
	case "testing.(*M).startAlarm", "os/signal.Notify.func1.1", "runtime/trace.Start", "runtime/pprof.StartCPUProfile", "runtime.ensureSigM", "testing.(*M).Run":
		return true
	}
	return false
}

// verifyQueues sees whether a sentinel's finalizer, and a cleanup, run.
func (c *check) verifyQueues(t TB) {
	t.Helper()
	p := &probe{}
	p.closed.Store(true) // once is enough
	ran := make(chan struct{})
	runtime.GC() // what the test has dropped is queued in front of the sentinel
	armQueues(p, ran)
	runtime.GC()
	runtime.GC()
	deadline := time.Now().Add(c.patient)
	cleaned := false
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-ran:
			cleaned = true
		default:
		}
		if p.runs.Load() > 0 && cleaned {
			return
		}
		if !time.Now().Before(deadline) {
			break
		}
		time.Sleep(pause)
	}
	text := dump(runtime.NumGoroutine())
	for _, kind := range [...]QueueKind{Finalizers, Cleanups} {
		if kind == Finalizers && p.runs.Load() > 0 || kind == Cleanups && cleaned {
			continue
		}
		run := InDump(text, kind)
		where := "nobody knows where: it is not in a function of the program"
		if run.Count > 0 {
			where = fmt.Sprintf("%s blocks in [%s]\n    %s\n        %s:%d", run.Func.Func, run.State, run.Where.Func, run.Where.File, run.Where.Line)
		}
		t.Errorf("leak: the %s queue does not get on: %s", kind, where)
	}
}

// armQueues makes two objects that nothing refers to once it has returned.
//
//go:noinline
func armQueues(p *probe, cleaned chan struct{}) {
	p.arm()
	runtime.AddCleanup(&sentinel{of: p}, func(c chan struct{}) { close(c) }, cleaned)
}
