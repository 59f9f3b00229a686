// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/internal/brink"
	"github.com/memguard/memguard-go/sidecar/stderr"
	"github.com/memguard/memguard-go/sidecar/target"
)

func sandboxOf(t *testing.T, limit uint64) *sandbox.Sandbox {
	t.Helper()
	box, err := sandbox.New("watch", limit)
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { box.Close() })
	return box
}

// The kernel kills a service that leaks. What is left names who leaked, and whose
// limit it was.
func TestOOM(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		hold    time.Duration
		oomHold bool
		ways    []string // version 2 may have been told in time
	}{
		{"held", 0, false, []string{attach.ExitHold}},
		{"polled", -1, false, []string{Poll, brink.MemoryEvents}},
		{"kill held", -1, true, []string{brink.OOMControl}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bin := programFile(t)
			box := sandboxOf(t, 96<<20)
			if c.oomHold && box.Version() != 1 {
				t.Skip("cgroup version 2 cannot hold a kill")
			}
			cfg := Config{Rules: exeRule("api", bin), Hold: c.hold}
			if c.oomHold {
				cfg.OOMHold, cfg.OOMDir = true, t.TempDir()
			}
			w := watch(t, cfg)
			p := startChildBy(t, bin, box.Start)
			w.sees("api", p.pid())
			if c.hold == 0 {
				w.until("api", "exit hold", func(st *Status) bool { return st.source("exit-hold").State == OK })
			}
			if c.oomHold {
				st := w.until("api", "oom hold", func(st *Status) bool { return st.source("oom-hold").State == OK })
				assert.Contains(t, st.source("oom-hold").Why, "will be set above")
			}
			p.order("leak", 40)
			_ = p.cmd.Wait()
			e := w.death()
			killed, err := box.Kills()
			require.NoError(t, err)
			require.Positive(t, killed)
			require.NotNil(t, e.Snapshot, e.NoSnapshot)
			assert.Contains(t, c.ways, e.Snapshot.How.Way, e.NoSnapshot)
			if c.oomHold {
				assert.Positive(t, e.Held)
				assert.Less(t, e.Held, attach.DefaultHold+patience)
				last, _ := e.Snapshot.Heap.Objects.Get()
				assert.Greater(t, last, uint64(80<<20), "of the moment when the limit was reached")
				held := false
				for _, ev := range w.Events(t.Context(), 0) {
					held = held || strings.Contains(ev.Text, "the kernel's kill was held for")
				}
				assert.True(t, held)
			}
			if e.Exit.Known {
				assert.Equal(t, 9, e.Exit.Signal)
			}
			require.NotEmpty(t, e.Cgroups)
			own := e.Cgroups[0]
			before, ok := own.Before.Get()
			after, ok2 := own.After.Get()
			assert.True(t, ok && ok2, "%+v", own)
			assert.Equal(t, before+1, after, "%+v", own)
			hit, ok := own.HitBefore.Get()
			hits, ok2 := own.HitAfter.Get()
			assert.True(t, ok && ok2)
			assert.Greater(t, hits, hit)
			assert.Equal(t, memguard.Known[uint64](96<<20), own.Limit)
			assert.NotContains(t, own.Dir, "/proc/")
			for _, l := range e.Cgroups[1:] {
				assert.Equal(t, l.HitBefore, l.HitAfter, "no limit further up was hit: %+v", l)
			}
			machine, ok := e.Machine.Before.Get()
			machines, ok2 := e.Machine.After.Get()
			assert.True(t, ok && ok2)
			assert.Greater(t, machines, machine)

			heap, err := profile.ParseData(e.Heap)
			require.NoError(t, err, e.NoSnapshot)
			assert.Equal(t, "main.leakOrders", biggest(heap))
			closest := time.Hour
			for i, q := range e.Timeline.Points[1:] {
				closest = min(closest, q.Time.Sub(e.Timeline.Points[i].Time))
			}
			t.Logf("looked at every %s when it was closest; the last snapshot was begun %s before the end was seen", closest, e.Ended.Sub(e.Snapshot.Time))
			last := e.Timeline.Points[len(e.Timeline.Points)-1]
			usage, _ := last.Usage.Get()
			assert.Greater(t, usage, uint64(60<<20), "it was looked at near the end")
			require.NotNil(t, e.Last)
			var raised bool
			for _, g := range e.Events {
				raised = raised || g.Kind == memguard.Raised && g.Finding.ID == "oom-forecast"
			}
			assert.True(t, raised, "%+v", e.Events)
		})
	}
}

// When the kernel tells that the limit is reached the process is read at once, and
// that is what is left of it; it is not read each time that the kernel tells.
func TestWarned(t *testing.T) {
	t.Parallel()
	bin := programFile(t)
	w := watch(t, Config{Rules: exeRule("api", bin), Hold: -1})
	p := startChild(t, bin)
	p.tell("goroutines", 50)
	w.sees("api", p.pid())
	l, err := w.life("api")
	require.NoError(t, err)
	read := func() *attach.Snapshot {
		l.warned(t.Context())
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.brink.snapshot
	}
	s := read()
	require.NotNil(t, s)
	assert.Same(t, s, read())
	p.kill()
	e := w.death()
	assert.Same(t, s, e.Snapshot)
	assert.Equal(t, brink.MemoryEvents, s.How.Way)
	assert.Equal(t, "main.stuckWorker", s.Goroutines.Clusters[0].Start)
	assert.NotEmpty(t, e.Heap)
	assert.Zero(t, e.Held)
}

// Kills are held only where the exit is not: a service is held up once.
func TestOOMHoldInstead(t *testing.T) {
	t.Parallel()
	bin := programFile(t)
	box := sandboxOf(t, 96<<20)
	if box.Version() != 1 {
		t.Skip("cgroup version 2 cannot hold a kill")
	}
	w := watch(t, Config{Rules: exeRule("api", bin), OOMHold: true, OOMDir: t.TempDir()})
	p := startChildBy(t, bin, box.Start)
	w.until("api", "neither", func(st *Status) bool {
		return st.source("exit-hold").State == OK && st.source("oom-hold").Why == "not needed: the exit is held"
	})
	l, err := w.life("api")
	require.NoError(t, err)
	l.set(srcHold, Failed, "as if a debugger had taken the thread")
	w.until("api", "oom hold", func(st *Status) bool { return st.source("oom-hold").State == OK })
	p.kill()
	w.death()
}

// TestKillsHeld has the kernel kill a service that leaks goroutines, as often as
// MEMGUARD_KILLS says, and counts what was read while the kill was held. The setting
// that holds it may have the service die of itself: then the last walk is left.
func TestKillsHeld(t *testing.T) {
	s := os.Getenv("MEMGUARD_KILLS")
	if s == "" {
		t.Skip("MEMGUARD_KILLS=10 has the kernel kill ten times, on a machine that has nothing else to do")
	}
	kills, err := strconv.Atoi(s)
	require.NoError(t, err)
	const n = 100_000
	bin := programFile(t, "-ldflags=-s -w")
	ways, ends := map[string]int{}, map[string]int{}
	for range kills {
		box := sandboxOf(t, n*3<<10+64<<20) // a goroutine needs 2.5 KiB
		if box.Version() != 1 {
			t.Skip("cgroup version 2 cannot hold a kill")
		}
		w := watch(t, Config{Rules: exeRule("api", bin), Hold: -1, OOMHold: true, OOMDir: t.TempDir()})
		p := startChildBy(t, bin, box.Start)
		w.until("api", "oom hold", func(st *Status) bool { return st.source("oom-hold").State == OK })
		p.order("spawn", n)
		_ = p.cmd.Wait()
		e := w.death()
		w.stop()
		ends[p.cmd.ProcessState.String()]++
		require.NotNil(t, e.Snapshot, e.NoSnapshot)
		ways[e.Snapshot.How.Way]++
		if e.Snapshot.How.Way != brink.OOMControl {
			continue
		}
		total, ok := e.Snapshot.Goroutines.Total.Get()
		assert.True(t, ok, "%v", e.Snapshot.Unknown)
		if assert.NotEmpty(t, e.Snapshot.Goroutines.Clusters, "%v", e.Snapshot.Unknown) {
			c := e.Snapshot.Goroutines.Clusters[0]
			assert.InEpsilon(t, n, c.Count, 0.01)
			assert.Equal(t, "main.stuckWorker", c.Start)
		}
		t.Logf("%d goroutines read in %s, the kill held for %s", total, e.Snapshot.How.Took, e.Held)
	}
	t.Logf("%d deaths: %v, read by %v", kills, ends, ways)
	assert.Greater(t, ways[brink.OOMControl], kills/2)
}

// biggest is the function that holds the most.
func biggest(p *profile.Profile) (name string) {
	held := map[string]int64{}
	for _, s := range p.Sample {
		if len(s.Location) > 0 && len(s.Location[0].Line) > 0 {
			held[s.Location[0].Line[0].Function.Name] += s.Value[len(s.Value)-1]
		}
	}
	for f, n := range held {
		if n > held[name] {
			name = f
		}
	}
	return name
}

// A service that imports the guard is heard; its box and profiles are found.
func TestOOMGuarded(t *testing.T) {
	t.Parallel()
	bin := programFile(t, "-tags=guarded")
	box := sandboxOf(t, 80<<20)
	dir := filepath.Join(t.TempDir(), "evidence")
	files := map[string]bool{}
	w := watch(t, Config{Rules: exeRule("api", bin), Hold: 1500 * time.Millisecond, Died: func(e *incident.Evidence) {
		for _, dir := range e.Boxes {
			entries, err := os.ReadDir(dir)
			assert.NoError(t, err)
			for _, e := range entries {
				files[filepath.Ext(e.Name())] = true
			}
			boxes, err := evidence.Boxes(dir)
			assert.NoError(t, err)
			assert.Len(t, boxes, 1)
		}
	}})
	run, err := os.MkdirTemp("/tmp", "mg")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(run) })
	p := startChildBy(t, bin, box.Start, "MEMGUARD_DIR="+dir, "XDG_RUNTIME_DIR="+run)
	st := w.until("api", "the agent", func(st *Status) bool { return st.Eye == EyeAgent })
	require.NotNil(t, st.Guard.Hand)
	assert.Equal(t, OK, st.source("agent").State)
	c, id, err := w.Agent("api")
	require.NoError(t, err)
	assert.Equal(t, p.pid(), id.PID)
	_, err = c.Do(t.Context(), memguard.Order{Action: memguard.CollectGarbage, Reason: "a test"})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		for _, e := range w.Events(t.Context(), 0) {
			if e.Guard != nil && e.Guard.Kind == memguard.Applied && e.Guard.Action.Reason == "a test" {
				return true
			}
		}
		return false
	}, patience, 10*time.Millisecond, "its events are heard")
	l, err := w.life("api")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		require.NoError(t, l.lock(t.Context()))
		defer l.unlock()
		return len(l.boxes.files) > 0
	}, patience, 10*time.Millisecond, "its box is found")
	p.order("leak", 5)
	_ = p.cmd.Wait()
	e := w.death()
	assert.Equal(t, EyeAgent, e.Eye)
	require.NotNil(t, e.Last)
	assert.NotNil(t, e.Last.Hand)
	require.Len(t, e.Boxes, 1)
	assert.True(t, files[".box"], "%v", files)
	require.NotNil(t, e.Snapshot, e.NoSnapshot)
	heap, err := profile.ParseData(e.Heap)
	require.NoError(t, err)
	assert.Equal(t, "main.leakOrders", biggest(heap))
	assert.Eventually(t, func() bool { // by its name: its number may be somebody else's by then
		to, err := os.Readlink(e.Boxes[0])
		return err != nil || to != dir
	}, patience, 10*time.Millisecond, "what the evidence refers to is closed after it was told")
	_, _, err = w.Agent("api")
	assert.ErrorIs(t, err, ErrNone)
}

// When the agent falls silent the process is looked at from outside, until it
// answers again.
func TestAgentSilent(t *testing.T) {
	t.Parallel()
	bin := programFile(t, "-tags=guarded")
	run, err := os.MkdirTemp("/tmp", "mg")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(run) })
	w := watch(t, Config{Rules: exeRule("api", bin), Interval: 50 * time.Millisecond})
	p := startChild(t, bin, "XDG_RUNTIME_DIR="+run)
	w.until("api", "the agent", func(st *Status) bool { return st.Eye == EyeAgent })
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	st := w.until("api", "another eye", func(st *Status) bool { return st.Eye == EyeAttach })
	assert.Equal(t, Failed, st.source("agent").State)
	assert.NotEmpty(t, st.source("agent").Why)
	assert.NotNil(t, st.Guard)
	w.until("api", "no agent", func(*Status) bool { _, _, err := w.Agent("api"); return errors.Is(err, ErrNone) })
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	w.until("api", "the agent again", func(st *Status) bool { return st.Eye == EyeAgent })
	p.kill()
	assert.Equal(t, 9, w.death().Exit.Signal)
}

// Profiles come from the process's memory, else from its own server.
func TestProfile(t *testing.T) {
	t.Parallel()
	bin := programFile(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	l.Close()
	rules := exeRule("api", bin)
	rules[0].Pprof = "http://" + addr + "/debug/pprof"
	w := watch(t, Config{Rules: rules, Interval: 50 * time.Millisecond, Hold: -1})
	p := startChild(t, bin)
	p.tell("hold", 8)
	_, port, _ := net.SplitHostPort(addr)
	p.tell("serve", port)
	w.sees("api", p.pid())
	all := func() {
		for _, kind := range []string{"heap", "goroutine"} {
			var b bytes.Buffer
			require.NoError(t, w.Profile(t.Context(), "api", kind, &b))
			prof, err := profile.ParseData(b.Bytes())
			require.NoError(t, err)
			assert.NotEmpty(t, prof.Sample)
		}
	}
	all()
	st, err := w.Status("api")
	require.NoError(t, err)
	assert.Equal(t, Off, st.source("pprof").State, "not needed")
	assert.ErrorIs(t, w.Profile(t.Context(), "api", "mutex", &bytes.Buffer{}), ErrNone)
	assert.ErrorIs(t, w.Profile(t.Context(), "none", "heap", &bytes.Buffer{}), ErrNone)

	life, err := w.life("api") // as if its memory could not be read
	require.NoError(t, err)
	require.NoError(t, life.lock(t.Context()))
	require.NoError(t, life.target.Close())
	life.target, life.whyNot, life.opened, life.retry = nil, attach.ErrPermission, time.Now(), time.Hour
	life.unlock()
	time.Sleep(walkAgain)
	var dial net.Dialer
	require.Eventually(t, func() bool {
		c, err := dial.DialContext(t.Context(), "tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, patience, 10*time.Millisecond)
	all()
	w.until("api", "pprof", func(st *Status) bool {
		return st.source("pprof").State == OK && st.source("attach").State == Failed && st.Eye == EyeKernel
	})
	_, err = w.Snapshot(t.Context(), "api")
	assert.ErrorIs(t, err, ErrNone)
}

// What memguard exec keeps of a process is read to its end: it writes that down
// after the process's own end is seen here.
func TestExecState(t *testing.T) {
	t.Parallel()
	bin, dir := programFile(t), t.TempDir()
	w := watch(t, Config{Rules: exeRule("api", bin), Interval: 50 * time.Millisecond, ExecState: dir})
	for _, looked := range []bool{true, false} { // one that ends before it was looked into left it all the same
		p := startChild(t, bin)
		start, err := target.StartTicks(p.pid())
		require.NoError(t, err)
		rec, err := stderr.NewRecord(dir, target.Identity{PID: p.pid(), Start: start})
		require.NoError(t, err)
		if looked {
			w.until("api", "is held", func(st *Status) bool {
				return st.Process != nil && st.Process.PID == p.pid() && st.source("exit-hold").State == OK
			})
		} else {
			w.sees("api", p.pid())
		}
		p.order("exit", 2)
		_ = p.cmd.Wait()
		life := filepath.Join(dir, fmt.Sprintf("%d-%d", p.pid(), start))
		require.NoError(t, os.WriteFile(filepath.Join(life, "stderr"), []byte("panic: late\n\ngoroutine 1 [running]:\nmain.main()\n\t/x.go:1\n"), 0o600))
		require.NoError(t, rec.Close(stderr.Exit{Code: 2, Time: time.Now()}))
		e := w.death()
		require.Equal(t, p.pid(), e.Process.PID)
		words := incident.ReadWords(e.Stderr)
		require.NotNil(t, words, "%q", e.Stderr)
		assert.Equal(t, "late", words.Text)
		assert.True(t, e.Exit.Known)
		assert.Equal(t, 2, e.Exit.Code)
	}
}

// What the process prints is read where its rule says it is sent to.
func TestStderr(t *testing.T) {
	t.Parallel()
	bin := programFile(t)
	log := filepath.Join(t.TempDir(), "stderr.log")
	rules := exeRule("api", bin)
	rules[0].Stderr = log
	w := watch(t, Config{Rules: rules, Interval: 50 * time.Millisecond, Hold: -1})
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	defer out.Close()
	p := startChildBy(t, bin, func(c *exec.Cmd) error {
		c.Stderr = out
		return c.Start()
	}, "GODEBUG=gctrace=1")
	for range 8 {
		p.tell("hold", 8)
	}
	st := w.until("api", "collections", func(st *Status) bool { return len(st.Cycles) > 0 && st.source("gctrace").State == OK })
	assert.EqualValues(t, 1, st.Cycles[0].N)
	p.order("panic")
	_ = p.cmd.Wait()
	e := w.death()
	assert.Contains(t, string(e.Stderr), "gc 1 @")
	words := incident.ReadWords(e.Stderr)
	require.NotNil(t, words, "%s", e.Stderr)
	assert.Equal(t, "as told", words.Text)
	assert.NotEmpty(t, words.Stack, "to its end, which is written after the process's")
	if e.Exit.Known {
		assert.Equal(t, 2, e.Exit.Code)
	}

	p2 := startChildBy(t, bin, func(c *exec.Cmd) error {
		c.Stderr = out
		return c.Start()
	})
	w.sees("api", p2.pid())
	p2.order("exit", 2)
	_ = p2.cmd.Wait()
	assert.NotContains(t, string(w.death().Stderr), "panic", "of its predecessor")
	require.NoError(t, w.SetRules(exeRule("api", bin)))
}
