// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/target"
)

// A target is followed through restarts, and says what became of its processes.
func TestFollow(t *testing.T) {
	t.Parallel()
	bin := programFile(t)
	w := watch(t, Config{Rules: exeRule("api", bin), Interval: 100 * time.Millisecond})
	st, err := w.Status("api")
	require.NoError(t, err)
	assert.Equal(t, Waiting, st.State)
	assert.Nil(t, st.Process)
	assert.Nil(t, st.Guard)
	_, err = w.Status("other")
	assert.ErrorIs(t, err, ErrNone)
	_, err = w.Snapshot(t.Context(), "api")
	assert.ErrorIs(t, err, ErrNone)

	p := startChild(t, bin)
	st = w.sees("api", p.pid())
	assert.Equal(t, Running, st.State)
	assert.Equal(t, EyeAttach, st.Eye)
	assert.EqualValues(t, 0, st.Restarts)
	assert.Equal(t, OK, st.source("kernel").State, "%+v", st.Sources)
	assert.Equal(t, OK, st.source("attach").State, "%+v", st.Sources)
	assert.Equal(t, Off, st.source("pprof").State)
	w.until("api", "exit hold", func(st *Status) bool { return st.source("exit-hold").State == OK })
	w.until("api", "no agent", func(st *Status) bool {
		return st.source("agent").State == Off && strings.Contains(st.source("agent").Why, "agent")
	})
	p.tell("goroutines", 100)
	var s *attach.Snapshot
	require.Eventually(t, func() bool { // the last of them may not have run yet
		s, err = w.Snapshot(t.Context(), "api")
		return err == nil && len(s.Goroutines.Clusters) > 0 && s.Goroutines.Clusters[0].Count == 100
	}, patience, 50*time.Millisecond)
	assert.Equal(t, "main.stuckWorker", s.Goroutines.Clusters[0].Start)
	again, err := w.Snapshot(t.Context(), "api")
	require.NoError(t, err)
	assert.Same(t, s, again, "who asks again at once gets the last one")
	st, err = w.Status("api")
	require.NoError(t, err)
	require.NotEmpty(t, st.Clusters)
	assert.EqualValues(t, 100, st.Clusters[0].Count)
	assert.NotNil(t, st.Classes)

	p.order("exit", 7)
	e := w.death()
	assert.Equal(t, "api", e.Target)
	assert.Equal(t, p.pid(), e.Process.PID)
	assert.True(t, e.Exit.Known)
	assert.Equal(t, 7, e.Exit.Code)
	assert.Zero(t, e.Exit.Signal)
	assert.Equal(t, "exit-hold", e.Exit.From)
	require.NotNil(t, e.Snapshot, e.NoSnapshot)
	assert.Equal(t, "exit hold", e.Snapshot.How.Way)
	assert.Equal(t, EyeAttach, e.Eye)
	assert.NotNil(t, e.Last)
	assert.NotNil(t, e.Ledger)
	assert.NotEmpty(t, e.Timeline.Points)
	assert.NotEmpty(t, e.Heap)
	assert.NotEmpty(t, e.Goroutines)

	p2 := startChild(t, bin)
	st = w.sees("api", p2.pid())
	assert.EqualValues(t, 1, st.Restarts)
	require.NoError(t, p2.cmd.Process.Signal(syscall.SIGTERM))
	_ = p2.cmd.Wait()
	e = w.death()
	assert.Equal(t, int(syscall.SIGTERM), e.Exit.Signal)
	line, err := w.Timeline("api", time.Time{})
	require.NoError(t, err)
	pids := map[int]bool{}
	for i, q := range line.Points {
		pids[q.PID] = true
		assert.Len(t, q.Rows, len(line.Rows))
		if i > 0 {
			assert.False(t, q.Time.Before(line.Points[i-1].Time))
		}
	}
	assert.Equal(t, map[int]bool{p.pid(): true, p2.pid(): true}, pids, "through all lives")

	var kinds []string
	for i, e := range w.Events(t.Context(), 0) {
		assert.EqualValues(t, i+1, e.Seq)
		if e.Kind == Appeared || e.Kind == Ended {
			kinds = append(kinds, e.Kind)
		}
	}
	assert.Equal(t, []string{Appeared, Ended, Appeared, Ended}, kinds)
}

// Two processes of one rule are two targets, and the lowest free place is taken.
func TestTwo(t *testing.T) {
	t.Parallel()
	bin := programFile(t)
	w := watch(t, Config{Rules: exeRule("api", bin), Interval: 50 * time.Millisecond, Hold: -1})
	a := startChild(t, bin)
	w.sees("api", a.pid())
	b := startChild(t, bin)
	st := w.sees("api-2", b.pid())
	assert.Equal(t, "api", st.Rule)
	assert.Equal(t, Off, st.source("exit-hold").State)
	c := startChild(t, bin)
	w.sees("api-3", c.pid())
	b.kill()
	assert.Equal(t, b.pid(), w.death().Process.PID)
	w.until("api-2", "waits", func(st *Status) bool { return st.State == Waiting })
	a.kill()
	w.death()
	d := startChild(t, bin)
	assert.EqualValues(t, 1, w.sees("api", d.pid()).Restarts)
	names := []string{}
	for _, st := range w.Targets() {
		names = append(names, st.Name)
	}
	assert.Equal(t, []string{"api", "api-2", "api-3"}, names)
}

// A process that turns into another program is another life.
func TestExec(t *testing.T) {
	t.Parallel()
	first, second := programFile(t), programFile(t, "-ldflags=-X=main.other=1", "-trimpath")
	rules := append(exeRule("first", first), exeRule("second", second)...)
	for _, hold := range []time.Duration{0, -1} {
		t.Run(fmt.Sprint(hold), func(t *testing.T) {
			w := watch(t, Config{Rules: rules, Interval: 50 * time.Millisecond, Hold: hold})
			p := startChild(t, first)
			w.sees("first", p.pid())
			p.order("exec", second)
			e := w.death()
			assert.Equal(t, "first", e.Target)
			assert.True(t, e.Exit.Became, "%+v", e.Exit)
			st := w.sees("second", p.pid())
			assert.Equal(t, p.pid(), st.Process.PID)
			assert.Equal(t, second, st.Process.Exe)
			p.kill()
			e = w.death()
			assert.Equal(t, "second", e.Target)
			assert.Equal(t, 9, e.Exit.Signal)
		})
	}
}

// What looks like the end of a process that lives is none: it is followed again.
// A thread that calls execve(2) brings that about now and then.
func TestLives(t *testing.T) {
	t.Parallel()
	bin := programFile(t)
	w := watch(t, Config{Rules: exeRule("api", bin), Interval: 50 * time.Millisecond, Hold: -1})
	p := startChild(t, bin)
	w.sees("api", p.pid())
	l, err := w.life("api")
	require.NoError(t, err)
	w.leave(l, time.Now(), false)
	x := l.exit(nil, nil, false, nil)
	assert.True(t, x.Became, "%+v", x)
	w.live(l)
	w.sees("api", p.pid())
	p.kill()
	w.death()
}

// Without a hold the last walk before the end is what is left, and the kernel tells
// the exit status.
func TestPoll(t *testing.T) {
	t.Parallel()
	bin := programFile(t)
	w := watch(t, Config{Rules: exeRule("api", bin), Interval: 50 * time.Millisecond, Hold: -1})
	p := startChild(t, bin)
	p.tell("goroutines", 50)
	w.until("api", "a walk", func(st *Status) bool { return st.Clusters != nil })
	p.order("exit", 3)
	require.Error(t, p.cmd.Wait())
	e := w.death()
	require.NotNil(t, e.Snapshot)
	assert.Equal(t, Poll, e.Snapshot.How.Way)
	assert.Contains(t, e.NoSnapshot, "by configuration")
	assert.Equal(t, "main.stuckWorker", e.Snapshot.Goroutines.Clusters[0].Start)
	assert.NotEmpty(t, e.Heap, e.NoSnapshot)
	if !e.Exit.Known {
		t.Skip("this kernel does not keep exit statuses for who has a pidfd (Linux 6.15)")
	}
	assert.Equal(t, "pidfd", e.Exit.From)
	assert.Equal(t, 3, e.Exit.Code)
}

// New rules let go of what they do not match, and keep what they do.
func TestRules(t *testing.T) {
	t.Parallel()
	one, two := programFile(t), programFile(t)
	w := watch(t, Config{Rules: append(exeRule("one", one), exeRule("two", two)...), Interval: 50 * time.Millisecond})
	a, b := startChild(t, one), startChild(t, two)
	before := w.sees("one", a.pid())
	w.sees("two", b.pid())
	require.Error(t, w.SetRules(exeRule("Not A Name", one)))
	require.Len(t, w.Targets(), 2)
	require.NoError(t, w.SetRules(append(exeRule("three", two), exeRule("one", one)...)))
	w.sees("three", b.pid())
	after := w.sees("one", a.pid())
	assert.Equal(t, before.source("attach").Since, after.source("attach").Since, "it was not opened anew")
	_, err := w.Status("two")
	assert.ErrorIs(t, err, ErrNone)
	require.NoError(t, w.SetRules([]target.Rule{{Name: "one", Exe: one + "x"}}))
	w.until("one", "waits", func(st *Status) bool { return st.State == Waiting })
	assert.Empty(t, w.dead, "none has ended")
	b.kill()
	w.stop()
	assert.Empty(t, w.dead)
}

// What was held goes on when the watching ends.
func TestStop(t *testing.T) {
	t.Parallel()
	bin := programFile(t)
	w := watch(t, Config{Rules: exeRule("api", bin), Interval: 50 * time.Millisecond})
	p := startChild(t, bin)
	w.until("api", "exit hold", func(st *Status) bool { return st.source("exit-hold").State == OK })
	w.stop()
	p.tell("goroutines", 1)
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid()))
	require.NoError(t, err)
	for _, f := range files {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", p.pid(), f.Name()))
		require.NoError(t, err)
		assert.Contains(t, string(b), "TracerPid:\t0\n")
	}
	require.Error(t, w.Run(context.Background()), "once")
}

// A program that is not Go has the kernel's view, and an end.
func TestNotGo(t *testing.T) {
	t.Parallel()
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Skip("there is no /bin/sleep here")
	}
	bin := t.TempDir() + "/sleeper"
	require.NoError(t, os.WriteFile(bin, sleep, 0o755))
	w := watch(t, Config{Rules: exeRule("c", bin), Interval: 50 * time.Millisecond})
	c := newSleep(t, bin)
	st := w.sees("c", c.Process.Pid)
	assert.Equal(t, EyeKernel, st.Eye)
	for _, name := range []string{"attach", "agent", "exit-hold"} {
		assert.Equal(t, Off, st.source(name).State, name)
	}
	_, err = w.Snapshot(t.Context(), "c")
	assert.ErrorIs(t, err, ErrNone)
	assert.ErrorIs(t, err, attach.ErrNotGo)
	require.NoError(t, c.Process.Kill())
	_ = c.Wait()
	e := w.death()
	assert.Nil(t, e.Snapshot)
	assert.NotNil(t, e.Ledger)
	if e.Exit.Known {
		assert.Equal(t, 9, e.Exit.Signal)
	}
}
