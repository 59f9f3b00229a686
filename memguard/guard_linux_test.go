// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A stage is a process of 100 MiB in a version 2 cgroup of 1 GiB, both made of
// files: what the kernel would write there, the test does.
type stage struct {
	t   testing.TB
	dir string
}

func newStage(t testing.TB) *stage {
	s := &stage{t, t.TempDir()}
	for name, text := range map[string]string{
		"cgroup.controllers": "memory\n", "cgroup.type": "domain\n", "cgroup.procs": "",
		"memory.max": "1073741824\n", "memory.high": "max\n", "memory.swap.current": "0\n", "memory.swap.max": "max\n",
		"memory.stat":   "anon 104857600\nfile 0\nkernel 0\nsock 0\nshmem 0\nactive_file 0\ninactive_file 0\nunevictable 0\nactive_anon 0\ninactive_anon 104857600\n",
		"memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n", "memory.events.local": "oom_kill 0\n", "memory.peak": "104857600\n",
		"memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"statm":           "50000 25600 2000 100 0 30000 0\n",
	} {
		s.write(name, text)
	}
	s.usage(0.1)
	return s
}

func (s *stage) write(name, text string) {
	require.NoError(s.t, os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600))
}

// usage sets what is charged, as a share of the limit.
func (s *stage) usage(share float64) {
	f, err := os.OpenFile(filepath.Join(s.dir, "memory.current"), os.O_WRONLY|os.O_CREATE, 0o600)
	require.NoError(s.t, err)
	defer f.Close()
	// At one stroke, as the kernel does: not truncated first.
	_, err = fmt.Fprintf(f, "%019d\n", int64(share*(1<<30)))
	require.NoError(s.t, err)
}

// source reads the stage as if it were a Go process that runs under GOMEMLIMIT.
func (s *stage) source() *Source {
	g, err := cgroup.OpenDir(s.dir)
	require.NoError(s.t, err)
	statm, err := os.Open(filepath.Join(s.dir, "statm"))
	require.NoError(s.t, err)
	start, err := startTime("/proc/self")
	require.NoError(s.t, err)
	return &Source{
		pid: os.Getpid(), start: start, group: g, statm: statm,
		environ: Runtime{Origin: FromEnviron, GCPercent: Known[int64](100), MemoryLimit: Known[uint64](900 << 20)},
	}
}

// lines are the events so far in short, without what is said at the first look.
func (d *diary) lines() (lines []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.events {
		switch e.Kind {
		case Raised:
			lines = append(lines, fmt.Sprintf("raised %s %s", e.Finding.ID, e.Finding.Severity))
		case Cleared:
			lines = append(lines, fmt.Sprintf("cleared %s", e.Finding.ID))
		case Lost:
			lines = append(lines, "lost "+e.Blind.What)
		default:
			lines = append(lines, string(e.Kind))
		}
	}
	return lines
}

// counting is a detector that counts the ticks, and panics when it is asked to.
type counting struct {
	ticks atomic.Int64
	panic atomic.Int64
}

func (c *counting) id() ID { return "counting" }

func (c *counting) step(*Sample) verdict {
	c.ticks.Add(1)
	if c.panic.Load() != 0 {
		panic("a defect")
	}
	return clearly()
}

func (c *counting) say(*verdict) string { return "" }

// counted starts a guard with a detector that counts its ticks.
func counted(cfg Config) (*Guard, *counting) {
	c := new(counting)
	g := Start(cfg)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.judge.watched = append(g.judge.watched, watched{detector: c})
	return g, c
}

func TestGuardAtRestLooksOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, c := counted(Config{Source: newStage(t).source()})
		defer g.Close()
		time.Sleep(10500 * time.Millisecond)
		synctest.Wait()
		first := c.ticks.Load()
		assert.InDelta(t, 11, first, 1, "at 0 s, 1 s ... 10 s; the first may have been before it was counted")
		time.Sleep(100 * time.Second)
		synctest.Wait()
		assert.EqualValues(t, 100, c.ticks.Load()-first)
	})
}

func TestGuardLooksMoreOftenNearTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := newStage(t)
		g, c := counted(Config{Source: stage.source()})
		defer g.Close()
		inTenSeconds := func(usage float64) int64 {
			stage.usage(usage)
			time.Sleep(time.Minute) // the growth itself is forgotten
			before := c.ticks.Load()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			return c.ticks.Load() - before
		}
		assert.InDelta(t, 10, inTenSeconds(0.5), 1)
		assert.InDelta(t, 33, inTenSeconds(0.9), 3)
		assert.InDelta(t, 1000, inTenSeconds(1), 10)
		assert.InDelta(t, 10, inTenSeconds(0.3), 1, "and comes to rest again")
	})
}

func TestGuardTellsWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := newStage(t)
		var d diary
		g := Start(Config{Source: stage.source(), Event: d.write})
		defer g.Close()
		after := func(s time.Duration) []string {
			time.Sleep(s*time.Second + 500*time.Millisecond)
			synctest.Wait()
			return d.lines()
		}
		assert.Empty(t, after(30), "nothing changes, nothing is told")

		stage.write("memory.max", "838860800\n") // resized in place, below GOMEMLIMIT
		assert.Equal(t, []string{"raised limit-above-cgroup warning"}, after(2))
		stage.write("memory.events", "oom_kill 1\n")
		assert.Equal(t, []string{"raised oom-kill critical"}, after(2)[1:])
		stage.write("memory.max", "max\n")
		assert.Len(t, after(5), 2, "not yet withdrawn")
		assert.Equal(t, []string{"cleared limit-above-cgroup"}, after(10)[2:])

		stage.write("memory.current", "what\n")
		assert.Equal(t, []string{"lost cgroup", "lost cgroup usage"}, after(60)[3:], "told once")
		stage.usage(0.2)
		after(5)
		stage.write("memory.current", "what\n")
		assert.Equal(t, []string{"lost cgroup", "lost cgroup usage"}, after(5)[5:], "told again after it was seen again")
		stage.usage(0.2)
		assert.Equal(t, []string{"raised oom-kill info"}, after(600)[7:])

		// A file that is read once a second is not lost anew between the seconds.
		stage.write("memory.pressure", "what\n")
		stage.write("memory.max", "1073741824\n")
		stage.usage(1) // a hundred ticks a second
		assert.Equal(t, []string{"lost cgroup"}, slices.DeleteFunc(after(10)[8:], func(s string) bool { return !strings.HasPrefix(s, "lost") }))

		times := slices.Collect(func(yield func(time.Time) bool) {
			for _, e := range d.events {
				yield(e.Time)
			}
		})
		assert.True(t, slices.IsSortedFunc(times, time.Time.Compare), "in order: %v", times)
	})
}

// A callback that panics is told of it, and the guard goes on; also one that
// always does.
func TestGuardOutlivesItsCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := newStage(t)
		stage.write("memory.max", "838860800\n")
		var d diary
		g, c := counted(Config{Source: stage.source(), Event: func(e Event) {
			d.write(e)
			if e.Kind == Raised {
				panic("no such map")
			}
		}})
		defer g.Close()
		time.Sleep(10500 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, []string{"raised limit-above-cgroup warning", "lost event callback"}, d.lines())
		assert.Equal(t, "panic: no such map", d.events[1].Blind.Why)
		assert.InDelta(t, 11, c.ticks.Load(), 1)

		always, ticks := counted(Config{Source: stage.source(), Event: func(Event) { panic("always") }})
		defer always.Close()
		time.Sleep(10500 * time.Millisecond)
		synctest.Wait()
		assert.InDelta(t, 11, ticks.ticks.Load(), 1)
	})
}

// A defect of a detector is told, in a tick and in a report, and ends neither
// the guard nor the service.
func TestGuardOutlivesADefect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		g, c := counted(Config{Source: newStage(t).source(), Event: d.write})
		defer g.Close()
		c.panic.Store(1)
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		assert.Contains(t, d.lines(), "lost tick")
		_, err := g.Report()
		assert.EqualError(t, err, "memguard: report: panic: a defect")
		c.panic.Store(0)
		before := c.ticks.Load()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		assert.InDelta(t, 10, c.ticks.Load()-before, 1, "it goes on")
		r, err := g.Report()
		require.NoError(t, err)
		assert.NotNil(t, r.Ledger)
	})
}

// Close may be called again and by several at once. It leaves no goroutine:
// synctest fails if one is left.
func TestGuardClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := Start(Config{Source: newStage(t).source()})
		time.Sleep(1500 * time.Millisecond)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { assert.NoError(t, g.Close()) })
		}
		all.Wait()
		assert.NoError(t, g.Close())
		select {
		case <-g.Done():
		default:
			t.Error("not done")
		}
		_, err := g.Report()
		assert.ErrorIs(t, err, errClosed)

		// At once, before the first look.
		assert.NoError(t, Start(Config{Source: newStage(t).source()}).Close())
	})
	// And with a source of its own.
	g := Start(Config{})
	runs := func() bool {
		buf := make([]byte, 1<<20)
		return strings.Contains(string(buf[:runtime.Stack(buf, true)]), fmt.Sprintf("(*Guard).run(%p", g))
	}
	require.Eventually(t, runs, time.Minute, time.Millisecond)
	require.NoError(t, g.Close())
	require.Eventually(t, func() bool { return !runs() }, time.Minute, time.Millisecond)
}

// Reports are taken while the guard ticks as fast as it can, and while it is
// closed. The race detector looks on.
func TestGuardReportsWhileItTicks(t *testing.T) {
	t.Parallel()
	stage := newStage(t)
	stage.usage(1)
	var d diary
	g, c := counted(Config{Source: stage.source(), Event: d.write})
	var all sync.WaitGroup
	reports := make(chan *Report, 1000)
	for range 4 {
		all.Go(func() {
			for {
				r, err := g.Report()
				if err != nil {
					assert.ErrorIs(t, err, errClosed)
					return
				}
				select {
				case reports <- r:
				default:
				}
			}
		})
	}
	require.Eventually(t, func() bool { return c.ticks.Load() > 40 && len(reports) > 20 }, time.Minute, time.Millisecond)
	require.NoError(t, g.Close())
	all.Wait()
	close(reports)
	for r := range reports {
		require.NotNil(t, r.Ledger.Cgroup)
		n, ok := r.Ledger.Cgroup.Usage.Get()
		require.True(t, ok)
		require.EqualValues(t, 1<<30, n)
		require.NotNil(t, r.Ledger.Rows)
	}
}

// What a report finds, the next tick tells.
func TestGuardTellsWhatAReportFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := newStage(t)
		var d diary
		g := Start(Config{Source: stage.source(), Event: d.write})
		defer g.Close()
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		stage.write("memory.max", "838860800\n")
		g.source.readAt = time.Time{} // as if a second had passed
		r, err := g.Report()
		require.NoError(t, err)
		require.NotEmpty(t, r.Findings)
		assert.Empty(t, d.lines(), "callbacks are the guard's own")
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"raised limit-above-cgroup warning"}, d.lines())
	})
}

// The watched process ends, and the guard with it.
func TestGuardEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	c := sleeper(t)
	src, err := Open(c.Process.Pid)
	require.NoError(t, err)
	var d diary
	g := Start(Config{Source: src, Event: d.write})
	require.Eventually(t, func() bool { _, err := g.Report(); return err == nil }, time.Minute, time.Millisecond)
	require.NoError(t, c.Process.Kill())
	<-g.Done()
	lines := d.lines()
	assert.Equal(t, string(Ended), lines[len(lines)-1])
	assert.Equal(t, 1, strings.Count(strings.Join(lines, "\n"), string(Ended)))
	_, err = g.Report()
	assert.ErrorIs(t, err, ErrGone)
	assert.NoError(t, g.Close())
}

// What hangs (a disk, say) keeps Close waiting for two seconds, and is told.
func TestCloseLeavesWhatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		hangs := make(chan struct{})
		g := Start(Config{DryRun: true, Event: d.write})
		time.Sleep(time.Second)
		g.locked(func() {
			require.True(t, g.aside("capture", true, func() func() { <-hangs; return func() {} }))
		})
		begin := time.Now()
		require.NoError(t, g.Close())
		assert.LessOrEqual(t, time.Since(begin), leaveWait+time.Second) // the clock is the test's
		last := d.events[len(d.events)-1]
		assert.Equal(t, Blind{"capture", "still under way when the guard ended: left"}, last.Blind)
		close(hangs)
	})
}
