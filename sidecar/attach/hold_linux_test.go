// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// wait waits for the end of a target in the background, from when the hold is in
// place.
func wait(t testing.TB, target *Target, ctx context.Context) <-chan struct {
	*Death
	error
} {
	tid, err := target.monitor()
	require.NoError(t, err)
	done := make(chan struct {
		*Death
		error
	}, 1)
	go func() {
		d, err := target.HoldExit(ctx, 0, Spans|Goroutines|HeapProfile)
		done <- struct {
			*Death
			error
		}{d, err}
	}()
	require.Eventually(t, func() bool { return traced(t, tid) }, 10*time.Second, time.Millisecond)
	return done
}

// traced reports whether somebody traces a thread.
func traced(t testing.TB, tid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	require.NoError(t, err)
	return !strings.Contains(string(b), "\nTracerPid:\t0\n")
}

// TestHoldExit reads targets after their end has begun, whatever ends them.
func TestHoldExit(t *testing.T) {
	for _, b := range []build{{release: current}, {release: current, flags: "-ldflags=-s,-w"}} {
		for _, c := range []struct {
			name   string
			end    func(p *truth)
			signal int
			code   int
		}{
			{"SIGKILL", func(p *truth) { p.cmd.Process.Kill() }, 9, 0},
			{"SIGTERM", func(p *truth) { p.cmd.Process.Signal(syscall.SIGTERM) }, 15, 0},
			{"fatal error", func(p *truth) { fmt.Fprintln(p.in, "fatal") }, 0, 2},
			{"exit", func(p *truth) { fmt.Fprintln(p.in, "exit") }, 0, 7},
		} {
			t.Run(c.name+" "+b.String(), func(t *testing.T) {
				cmd := exec.Command(compile(t, b), "-goroutines=1000")
				cmd.Stderr, _ = os.Open(os.DevNull) // the runtime's last words
				p := startCommand(t, cmd)
				target := open(t, p.pid())
				done := wait(t, target, t.Context())
				_, err := target.Snapshot(t.Context(), Goroutines)
				require.NoError(t, err, "the target can be read while it is waited for")
				c.end(p)
				r := <-done
				require.NoError(t, r.error)
				require.NoError(t, r.Why)
				assert.Equal(t, c.signal, r.Signal)
				assert.Equal(t, c.code, r.Code)
				s := r.Snapshot
				require.NotNil(t, s)
				assert.Equal(t, "exit hold", s.How.Way)
				checkClusters(t, s, 1000)
				assert.NotNil(t, s.SizeClasses)
				objects, ok := s.Heap.Objects.Get()
				assert.True(t, ok, "%v", s.Unknown)
				assert.Greater(t, objects, uint64(4<<20))
				assert.Less(t, r.Held, DefaultHold)
				state, err := p.cmd.Process.Wait()
				require.NoError(t, err)
				ws := state.Sys().(syscall.WaitStatus)
				if c.signal != 0 {
					assert.Equal(t, syscall.Signal(c.signal), ws.Signal())
				} else {
					assert.Equal(t, c.code, ws.ExitStatus())
				}
			})
		}
	}
}

// kills is how often the kernel is to kill, by MEMGUARD_KILLS. It takes the memory
// away two seconds after an OOM kill, whether or not it was read; a loaded machine,
// or the race detector, may need longer to read it, and that is no defect.
func kills(t *testing.T) int {
	t.Helper()
	s := os.Getenv("MEMGUARD_KILLS")
	if s == "" {
		t.Skip("MEMGUARD_KILLS=10 has the kernel kill ten times, on a machine that has nothing else to do")
	}
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

// TestHoldOOM is the kernel's own kill, of a target that leaks goroutines into a
// real limit.
func TestHoldOOM(t *testing.T) {
	for i := range kills(t) {
		for _, b := range []build{{release: current}, {release: current, flags: "-ldflags=-s,-w"}} {
			t.Run(fmt.Sprint(b, " ", i), func(t *testing.T) { holdOOM(t, b, leaked) })
		}
	}
}

func holdOOM(t *testing.T, b build, n int) {
	box, err := sandbox.New("exit-hold", uint64(n)*3<<10+64<<20) // a goroutine needs 2.5 KiB
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
	defer box.Close()
	p := startWith(t, exec.Command(compile(t, b), "-goroutines=0"), box.Start)
	target := open(t, p.pid())
	done := wait(t, target, t.Context())
	fmt.Fprintln(p.in, "leak", n)
	r := <-done
	require.NoError(t, r.error)
	require.NotNil(t, r.Snapshot, "%v", r.Why)
	assert.Equal(t, 9, r.Signal)
	killed, err := box.Kills()
	require.NoError(t, err)
	assert.Positive(t, killed)
	s := r.Snapshot
	total, ok := s.Goroutines.Total.Get()
	assert.True(t, ok, "%v", s.Unknown)
	assert.InEpsilon(t, n+1, total, 0.01)
	require.NotEmpty(t, s.Goroutines.Clusters, "%v %v", s.Unknown, r.Why)
	c := s.Goroutines.Clusters[0]
	assert.InEpsilon(t, n, c.Count, 0.01)
	assert.Equal(t, "main.leaker", c.Start)
	if assert.NotEmpty(t, c.Stack) {
		assert.Equal(t, "main.leaker", c.Stack[len(c.Stack)-1].Func)
	}
	assert.Equal(t, "main.main", c.CreatedBy.Func)
	assert.Less(t, r.Held, DefaultHold+200*time.Millisecond)
	t.Logf("%d goroutines read in %s after the kill, held for %s", total, s.How.Took, r.Held)
}

// TestHoldBound has too little time: what was not read is unknown.
func TestHoldBound(t *testing.T) {
	p := start(t, compile(t, build{release: current}), "-goroutines=100000")
	target := open(t, p.pid())
	tid, err := target.monitor()
	require.NoError(t, err)
	type result struct {
		d   *Death
		err error
	}
	done := make(chan result, 1)
	go func() {
		d, err := target.HoldExit(t.Context(), time.Millisecond, Spans|Goroutines|Stacks)
		done <- result{d, err}
	}()
	require.Eventually(t, func() bool { return traced(t, tid) }, 10*time.Second, time.Millisecond)
	require.NoError(t, p.cmd.Process.Kill())
	r := <-done
	require.NoError(t, r.err)
	require.Error(t, r.d.Why)
	if r.d.Snapshot != nil {
		assert.Nil(t, r.d.Snapshot.Goroutines.Clusters)
		assert.NotEmpty(t, r.d.Snapshot.Unknown)
	}
	assert.Less(t, r.d.Held, DefaultHold)
}

// TestHoldLetsGo ends waiting, and the target does not notice.
func TestHoldLetsGo(t *testing.T) {
	p := start(t, compile(t, build{release: current}), "-goroutines=100")
	target := open(t, p.pid())
	tid, err := target.monitor()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := wait(t, target, ctx)
	cancel()
	r := <-done
	assert.ErrorIs(t, r.error, context.Canceled)
	assert.False(t, traced(t, tid))
	assert.EqualValues(t, 101, p.truth(t).Goroutines)
}

// TestHoldExec: a process that becomes another program is let go at once.
func TestHoldExec(t *testing.T) {
	p := start(t, compile(t, build{release: current}), "-goroutines=100")
	target := open(t, p.pid())
	done := wait(t, target, t.Context())
	p.ask(t, "exec")
	r := <-done
	assert.ErrorIs(t, r.error, ErrGone)
	assert.Nil(t, r.Death)
	line, err := p.out.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "ready\n", line)
	assert.EqualValues(t, 11, p.truth(t).Goroutines)
	_, err = target.Snapshot(t.Context(), 0)
	if err == nil {
		// The same program at the same addresses: what was read is right.
		again := open(t, p.pid())
		s, err := again.Snapshot(t.Context(), 0)
		require.NoError(t, err)
		n, _ := s.Goroutines.Total.Get()
		assert.EqualValues(t, 11, n)
	}
}

// TestHoldStop: job control goes through.
func TestHoldStop(t *testing.T) {
	p := start(t, compile(t, build{release: current}), "-goroutines=100")
	target := open(t, p.pid())
	done := wait(t, target, t.Context())
	state := func() string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
		require.NoError(t, err)
		_, rest, _ := strings.Cut(string(b), "\nState:\t")
		return rest[:1]
	}
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	require.Eventually(t, func() bool { return state() == "T" || state() == "t" }, 10*time.Second, time.Millisecond)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	require.Eventually(t, func() bool { return state() == "S" || state() == "R" }, 10*time.Second, time.Millisecond)
	assert.EqualValues(t, 101, p.truth(t).Goroutines)
	require.NoError(t, p.cmd.Process.Kill())
	r := <-done
	require.NoError(t, r.error)
	assert.NotNil(t, r.Snapshot)
}

// TestProcessHoldReaderDies kills the reader, which is this test again: the
// target runs on.
func TestProcessHoldReaderDies(t *testing.T) {
	if pid := os.Getenv("MEMGUARD_HOLD_PID"); pid != "" {
		n, err := strconv.Atoi(pid)
		require.NoError(t, err)
		_, err = open(t, n).HoldExit(t.Context(), 0, 0)
		t.Fatal(err)
	}
	p := start(t, compile(t, build{release: current}), "-goroutines=100")
	tid, err := open(t, p.pid()).monitor()
	require.NoError(t, err)
	reader := exec.Command(os.Args[0], "-test.run=^TestProcessHoldReaderDies$")
	reader.Env = append(os.Environ(), "MEMGUARD_HOLD_PID="+strconv.Itoa(p.pid()))
	require.NoError(t, reader.Start())
	require.Eventually(t, func() bool { return traced(t, tid) }, 10*time.Second, time.Millisecond)
	require.NoError(t, reader.Process.Kill())
	reader.Wait()
	assert.False(t, traced(t, tid))
	assert.EqualValues(t, 101, p.truth(t).Goroutines)
}

// TestProcessHoldUnprivileged is the kernel's kill with both sides the same user
// without capabilities. The reader is this test again.
func TestProcessHoldUnprivileged(t *testing.T) {
	if pid := os.Getenv("MEMGUARD_HOLD_AS_USER"); pid != "" {
		n, err := strconv.Atoi(pid)
		require.NoError(t, err)
		done := wait(t, open(t, n), t.Context())
		fmt.Println("waiting")
		r := <-done
		require.NoError(t, r.error)
		require.NotNil(t, r.Snapshot, "%v", r.Why)
		total, _ := r.Snapshot.Goroutines.Total.Get()
		fmt.Printf("answer: signal %d, %d goroutines, %s\n", r.Signal, total, r.Snapshot.Goroutines.Clusters[0].Start)
		return
	}
	times := kills(t)
	if os.Getuid() != 0 {
		t.Skip("only root can run programs as other users")
	}
	if scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); err == nil && scope[0] != '0' {
		t.Skipf("kernel.yama.ptrace_scope is %s", scope)
	}
	for i := range times {
		for _, b := range []build{{release: current}, {release: current, flags: "-ldflags=-s,-w"}} {
			t.Run(fmt.Sprint(b, " ", i), func(t *testing.T) { holdAsUser(t, b, leaked) })
		}
	}
}

// leaked is how many goroutines a target leaks until the kernel kills it.
const leaked = 400_000

func holdAsUser(t *testing.T, b build, n int) {
	box, err := sandbox.New("exit-hold", uint64(n)*3<<10+64<<20)
	if errors.Is(err, sandbox.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer box.Close()
	install := installer(t)
	bin := install(compile(t, b), "target", 0o755)
	p := startWith(t, as(exec.Command(bin, "-goroutines=0"), 1000), box.Start)
	reader := as(exec.Command(install(os.Args[0], "reader", 0o755), "-test.run=^TestProcessHoldUnprivileged$"), 1000)
	reader.Env = append(os.Environ(), "MEMGUARD_HOLD_AS_USER="+strconv.Itoa(p.pid()))
	out, err := reader.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, reader.Start())
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "waiting\n", line)
	fmt.Fprintln(p.in, "leak", n)
	line, err = lines.ReadString('\n')
	require.NoError(t, err)
	var signal, total int
	var where string
	_, err = fmt.Sscanf(line, "answer: signal %d, %d goroutines, %s", &signal, &total, &where)
	require.NoError(t, err, "%q", line)
	assert.Equal(t, 9, signal)
	assert.InEpsilon(t, n+1, total, 0.01)
	assert.Equal(t, "main.leaker", where)
	killed, err := box.Kills()
	require.NoError(t, err)
	assert.Positive(t, killed)
	require.NoError(t, reader.Wait())
}
