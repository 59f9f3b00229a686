// SPDX-License-Identifier: Apache-2.0

package brink

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// TestMain is the keeper, and the processes that the tests need beside themselves.
func TestMain(m *testing.M) {
	KeepIfAsked()
	switch role := os.Getenv("MEMGUARD_BRINK_ROLE"); role {
	case "":
		os.Exit(m.Run())
	case "service":
		service()
	case "holder":
		holder()
	}
}

// service does what its standard input says: "use" so many MiB by touching them,
// "read" so many by system calls, or "free" all.
func service() {
	fmt.Println("ready")
	var used [][]byte
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		order, arg, _ := strings.Cut(in.Text(), " ")
		n, _ := strconv.Atoi(arg)
		failed := 0
		zero, err := os.Open("/dev/zero")
		if err != nil {
			panic(err)
		}
		for range n {
			b, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
			if err != nil { // it needs memory of the kernel's, which is charged, too
				failed++
				time.Sleep(time.Millisecond)
				continue
			}
			used = append(used, b)
			switch order {
			case "use":
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
			case "read":
				if k, err := unix.Read(int(zero.Fd()), b); err != nil || k < len(b) {
					failed++
				}
			}
			time.Sleep(time.Millisecond)
		}
		if order == "free" {
			for _, b := range used {
				_ = unix.Munmap(b)
			}
			used = nil
		}
		zero.Close()
		fmt.Println("done", failed)
	}
}

// child is a process in a cgroup of its own.
type child struct {
	*exec.Cmd
	t   *testing.T
	box *sandbox.Sandbox
	in  io.WriteCloser
	out *bufio.Reader
}

func version(t *testing.T, want int) *sandbox.Sandbox {
	t.Helper()
	box, err := sandbox.New("brink", limit)
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, box.Close()) })
	if box.Version() != want {
		t.Skipf("the memory controller is of cgroup version %d here", box.Version())
	}
	return box
}

func start(t *testing.T, version1 bool) *child {
	t.Helper()
	want := 2
	if version1 {
		want = 1
	}
	box := version(t, want)
	return startBy(t, box, box.Start)
}

func startBy(t *testing.T, box *sandbox.Sandbox, run func(*exec.Cmd) error, env ...string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command("/proc/self/exe"), t: t, box: box}
	c.Env = append(append(os.Environ(), "MEMGUARD_BRINK_ROLE=service", "GODEBUG=asyncpreemptoff=1"), env...)
	c.Stderr = os.Stderr
	var err error
	c.in, err = c.StdinPipe()
	require.NoError(t, err)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, run(c.Cmd))
	c.out = bufio.NewReader(out)
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	assert.Equal(t, "ready\n", c.line())
	return c
}

func (c *child) line() string {
	line, _ := c.out.ReadString('\n')
	return line
}

func (c *child) order(format string, args ...any) {
	c.t.Helper()
	_, err := fmt.Fprintf(c.in, format+"\n", args...)
	require.NoError(c.t, err)
}

func (c *child) alive() bool { return c.Process.Signal(syscall.Signal(0)) == nil }

// killed waits for the child's end, by the kernel's kill.
func (c *child) killed() {
	c.t.Helper()
	_ = c.Wait()
	assert.Equal(c.t, "signal: killed", c.ProcessState.String())
	n, err := c.box.Kills()
	assert.NoError(c.t, err)
	assert.Positive(c.t, n)
}

// state is oom_kill_disable and under_oom of the child's group.
func (c *child) state() (disabled, full bool) {
	c.t.Helper()
	dir, err := os.Open(c.box.Dir())
	require.NoError(c.t, err)
	defer dir.Close()
	disabled, full, err = oomState(int(dir.Fd()))
	require.NoError(c.t, err)
	return disabled, full
}

const patience = 30 * time.Second

func (c *child) disabled(want bool) {
	c.t.Helper()
	require.Eventually(c.t, func() bool { is, _ := c.state(); return is == want }, patience, 5*time.Millisecond)
}

// held is a Hold that runs for the test.
type held struct {
	*Hold
	cancel context.CancelFunc
	over   chan error

	mu     sync.Mutex
	states []string
	whys   []string
	bad    int // states that were not ok
}

func (h *held) last() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.states) == 0 {
		return ""
	}
	return h.states[len(h.states)-1]
}

func newHeld(t *testing.T, c *child, bound time.Duration, read func(context.Context)) *held {
	t.Helper()
	k := &Keeper{Dir: t.TempDir()}
	t.Cleanup(k.Close)
	return newHeldBy(t, k, c, bound, read)
}

func newHeldBy(t *testing.T, k *Keeper, c *child, bound time.Duration, read func(context.Context)) *held {
	t.Helper()
	hold, err := NewHold(c.Process.Pid, k, bound)
	require.NoError(t, err)
	assert.Equal(t, c.box.Dir(), hold.dir())
	h := &held{Hold: hold, over: make(chan error, 1)}
	h.State = func(ok, set bool, text string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.states = append(h.states, text)
		assert.Equal(t, strings.Contains(text, "is set:"), set)
		if !ok {
			h.bad++
		}
	}
	h.Held = func(took time.Duration, why string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.whys = append(h.whys, why)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	go func() { h.over <- hold.Run(ctx, read) }()
	t.Cleanup(cancel)
	return h
}

// stop ends the holding, and waits for that.
func (h *held) stop(t *testing.T) {
	t.Helper()
	h.cancel()
	assert.NoError(t, <-h.over)
}

// A process that runs into its limit stands still until it was read, and is killed
// then, as ever.
func TestHold(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	var reads atomic.Int32
	h := newHeld(t, c, 20*time.Second, func(ctx context.Context) {
		reads.Add(1)
		disabled, full := c.state()
		assert.True(t, disabled)
		assert.True(t, full)
		n, err := c.box.Kills()
		assert.NoError(t, err)
		assert.Zero(t, n)
		time.Sleep(300 * time.Millisecond)
		assert.True(t, c.alive())
		assert.NoError(t, ctx.Err())
	})
	require.Eventually(t, func() bool { return strings.Contains(h.last(), "will be set above") }, patience, 5*time.Millisecond)
	disabled, _ := c.state()
	assert.False(t, disabled, "nothing is set far from the limit")
	c.order("use 256")
	c.killed()
	disabled, _ = c.state()
	assert.False(t, disabled)
	h.stop(t)
	assert.EqualValues(t, 1, reads.Load())
	assert.Equal(t, []string{"its processes wait for memory"}, h.whys)
	assert.Zero(t, h.bad, "%q", h.states)
}

// However long the reading takes, the kill is let go at the bound.
func TestHoldBound(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	begin := make(chan struct{})
	h := newHeld(t, c, 200*time.Millisecond, func(ctx context.Context) {
		close(begin)
		<-ctx.Done()
		assert.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
	})
	c.order("use 256")
	select {
	case <-begin:
	case <-time.After(patience):
		require.FailNow(t, "no kill was held")
	}
	c.killed()
	h.stop(t)
	assert.Len(t, h.whys, 1)
}

// Near the limit the setting stands, and away from it it does not; nobody dies of
// that. Groups that are made meanwhile have it from their parent, and get it back.
func TestHoldNear(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	h := newHeld(t, c, time.Second, func(context.Context) { t.Error("the limit was not reached") })
	c.order("use %d", near)
	assert.Equal(t, "done 0\n", c.line())
	c.disabled(true)
	below := filepath.Join(c.box.Dir(), "below")
	require.NoError(t, os.Mkdir(below, 0o755))
	b, err := os.ReadFile(filepath.Join(below, oomControl))
	require.NoError(t, err)
	assert.Contains(t, string(b), "oom_kill_disable 1")
	c.order("free")
	assert.Equal(t, "done 0\n", c.line())
	c.disabled(false)
	require.Eventually(t, func() bool {
		b, err = os.ReadFile(filepath.Join(below, oomControl))
		return err == nil && strings.Contains(string(b), "oom_kill_disable 0")
	}, patience, 5*time.Millisecond)
	require.NoError(t, os.Remove(below))
	c.order("use %d", near)
	assert.Equal(t, "done 0\n", c.line())
	c.disabled(true)
	h.stop(t)
	disabled, _ := c.state()
	assert.False(t, disabled, "as it was")
	assert.True(t, c.alive())
	assert.Empty(t, h.whys)
	assert.Zero(t, h.bad, "%q", h.states)
}

// Where system calls need the memory nothing sleeps, and calls fail instead. That is
// seen, and the kernel kills.
func TestHoldCalls(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	var reads atomic.Int32
	h := newHeld(t, c, time.Second, func(context.Context) { reads.Add(1) })
	c.order("read 4096")
	c.killed()
	h.stop(t)
	assert.Positive(t, reads.Load())
	require.NotEmpty(t, h.whys)
}

// What may not be held is refused, and left as it is.
func TestHoldNot(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	k := &Keeper{Dir: t.TempDir()}
	t.Cleanup(k.Close)
	refused := func(want string) {
		t.Helper()
		_, err := NewHold(c.Process.Pid, k, time.Second)
		require.ErrorIs(t, err, ErrNot)
		assert.ErrorContains(t, err, want)
	}
	write := func(name, text string) {
		t.Helper()
		require.NoError(t, os.WriteFile(filepath.Join(c.box.Dir(), name), []byte(text), 0))
	}
	write(oomControl, "1")
	refused("is 1 already")
	disabled, _ := c.state()
	assert.True(t, disabled, "it is somebody else's")
	write(oomControl, "0")

	below := filepath.Join(c.box.Dir(), "below")
	require.NoError(t, os.Mkdir(below, 0o755))
	refused("such as below")
	require.NoError(t, os.WriteFile(filepath.Join(below, "cgroup.procs"), []byte(strconv.Itoa(c.Process.Pid)), 0))
	refused("its limit is that of " + c.box.Dir())
	write("cgroup.procs", strconv.Itoa(c.Process.Pid))
	require.NoError(t, os.Remove(below))

	write("memory.memsw.limit_in_bytes", "-1")
	write("memory.limit_in_bytes", "-1")
	refused("no limit")
	require.NoError(t, c.box.SetLimit(limit))

	h := newHeldBy(t, k, c, time.Second, func(context.Context) {})
	refused("held already")
	h.stop(t)
	h = newHeldBy(t, k, c, time.Second, func(context.Context) {})
	h.stop(t)

	_, err := NewHold(os.Getpid(), k, time.Second)
	assert.ErrorIs(t, err, ErrNot, "our own")
	_, err = NewHold(1<<22+1, k, time.Second)
	assert.Error(t, err)
}

// holder holds kills of a process until it is killed itself.
func holder() {
	pid, _ := strconv.Atoi(os.Getenv("MEMGUARD_BRINK_PID"))
	bound, _ := time.ParseDuration(os.Getenv("MEMGUARD_BRINK_BOUND"))
	h, err := NewHold(pid, &Keeper{Dir: os.Getenv("MEMGUARD_BRINK_DIR")}, bound)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	h.State = func(bool, bool, string) {}
	h.Held = func(time.Duration, string) {}
	fmt.Println("ready")
	_ = h.Run(context.Background(), func(context.Context) {
		fmt.Println("reading")
		select {}
	})
	time.Sleep(time.Hour) // what is left set is not the keeper's to take back yet
}

// startHolder starts one.
func startHolder(t *testing.T, c *child, bound time.Duration, dir string) *child {
	return startBy(t, nil, (*exec.Cmd).Start, "MEMGUARD_BRINK_DIR="+dir, "MEMGUARD_BRINK_ROLE=holder", fmt.Sprint("MEMGUARD_BRINK_PID=", c.Process.Pid), fmt.Sprint("MEMGUARD_BRINK_BOUND=", bound))
}

// The sidecar is killed while the setting stands: it is taken back, and the service
// lives on, to be killed at its limit as ever.
func TestHolderKilled(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	dir := t.TempDir()
	h := startHolder(t, c, 20*time.Second, dir)
	c.order("use %d", near)
	assert.Equal(t, "done 0\n", c.line())
	c.disabled(true)
	noted := func() int {
		notes, err := os.ReadDir(dir)
		require.NoError(t, err)
		return len(notes)
	}
	assert.Equal(t, 1, noted())
	require.NoError(t, h.Process.Kill())
	c.disabled(false)
	require.Eventually(t, func() bool { return noted() == 0 }, patience, 5*time.Millisecond)
	assert.True(t, c.alive())
	c.order("use 1")
	assert.Equal(t, "done 0\n", c.line())
	c.order("use 256")
	c.killed()
}

// The sidecar is killed while a kill is held: the kernel kills.
func TestHolderKilledHolding(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	h := startHolder(t, c, time.Hour, t.TempDir())
	c.order("use 256")
	assert.Equal(t, "reading\n", h.line())
	assert.True(t, c.alive())
	require.NoError(t, h.Process.Kill())
	c.killed()
	disabled, _ := c.state()
	assert.False(t, disabled)
}

// The sidecar stands still while a kill is held: its keeper lets the kernel kill.
func TestHolderStopped(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	h := startHolder(t, c, 2*time.Second, t.TempDir())
	c.order("use %d", near)
	assert.Equal(t, "done 0\n", c.line())
	c.disabled(true)
	require.NoError(t, h.Process.Signal(syscall.SIGSTOP))
	c.order("use 256")
	c.killed()
}

// The sidecar and its keeper are killed at once: the next sidecar takes back what they
// left, and knows that it was theirs.
func TestBothKilled(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	dir := t.TempDir()
	h := startHolder(t, c, time.Hour, dir)
	c.order("use %d", near)
	assert.Equal(t, "done 0\n", c.line())
	c.disabled(true)
	require.NoError(t, h.Process.Signal(syscall.SIGSTOP)) // else it would take it back when its keeper ends
	keeper, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", h.Process.Pid, h.Process.Pid))
	require.NoError(t, err)
	all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", h.Process.Pid)) // by the thread that forked
	for _, name := range all {
		b, _ := os.ReadFile(name)
		keeper = append(keeper, b...)
	}
	pids := strings.Fields(string(keeper))
	require.NotEmpty(t, pids)
	pid, err := strconv.Atoi(pids[0])
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.NoError(t, h.Process.Kill())
	_ = h.Wait()
	time.Sleep(200 * time.Millisecond)
	disabled, _ := c.state()
	require.True(t, disabled, "nobody is there to take it back")

	other := &Keeper{Dir: t.TempDir()}
	_, err = NewHold(c.Process.Pid, other, time.Second)
	require.ErrorContains(t, err, "is 1 already", "for all that another one knows")
	k := &Keeper{Dir: dir}
	t.Cleanup(k.Close)
	next := newHeldBy(t, k, c, 5*time.Second, func(context.Context) {})
	c.disabled(true)
	c.order("use 256")
	c.killed()
	next.stop(t)
	assert.Len(t, next.whys, 1)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// The keeper is killed: what it kept is taken back, and the next one is asked later.
func TestKeeperKilled(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	k := &Keeper{Dir: t.TempDir()}
	t.Cleanup(k.Close)
	h := newHeldBy(t, k, c, time.Second, func(context.Context) { t.Error("the limit was not reached") })
	c.order("use %d", near)
	assert.Equal(t, "done 0\n", c.line())
	c.disabled(true)
	k.mu.Lock()
	pid := k.c.pid
	k.mu.Unlock()
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	require.NoError(t, err)
	assert.Equal(t, keeperName+"\x00", string(comm))
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		require.NoError(t, syscall.Kill(pid, sig))
	}
	time.Sleep(100 * time.Millisecond)
	disabled, _ := c.state()
	assert.True(t, disabled, "what ends a sidecar does not end its keeper")
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	c.disabled(false)
	require.Eventually(t, func() bool { return strings.Contains(h.last(), "its keeper has ended") }, patience, 5*time.Millisecond)
	h.mu.Lock()
	assert.Equal(t, 1, h.bad)
	h.mu.Unlock()
	require.NoError(t, k.start(), "there can be another")
	h.stop(t)
}
