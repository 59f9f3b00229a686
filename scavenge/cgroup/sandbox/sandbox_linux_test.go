// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/scavenge/cgroup"
)

const mib = 1 << 20

// childEnv makes this test binary play a part instead of running tests.
const childEnv = "SANDBOX_TEST_CHILD"

func TestMain(m *testing.M) {
	if part := os.Getenv(childEnv); part != "" {
		os.Exit(child(part))
	}
	os.Exit(m.Run())
}

// child prints one line when it is where its part wants it, and then waits.
func child(part string) int {
	switch part {
	case "alloc": // goes over every limit of the tests
		b := make([]byte, 256*mib)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
	case "status": // tells who and where it is
		text, _ := os.ReadFile("/proc/self/cgroup")
		fmt.Printf("%d\n%s", os.Getpid(), text)
		return 7
	case "stay":
		fmt.Println(os.Getpid())
		stay()
	case "parent": // leaves a process behind that no longer belongs to it
		cmd := actor("stay")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println(cmd.Process.Pid)
		stay()
	case "creator": // makes a sandbox and waits to be killed
		s, err := New("creator", 64*mib)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		cmd := actor("parent")
		out, _ := cmd.StdoutPipe()
		if err := s.Start(cmd); err != nil {
			fmt.Println(err)
			return 1
		}
		grandchild, _ := bufio.NewReader(out).ReadString('\n')
		fmt.Printf("%s %d %s", s.Dir(), cmd.Process.Pid, grandchild)
		stay()
	}
	return 0
}

// stay waits for a signal, longer than any test.
func stay() { time.Sleep(time.Minute) }

// actor returns the command that plays part.
func actor(part string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+part)
	return cmd
}

// play prepares a child that plays part, and its output.
func play(t *testing.T, part string) (*exec.Cmd, *bufio.Reader) {
	cmd := actor(part)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	return cmd, bufio.NewReader(out)
}

func newSandbox(t *testing.T, limit uint64) *Sandbox {
	t.Helper()
	s, err := New(strings.ReplaceAll(t.Name(), "/", "-"), limit)
	if errors.Is(err, ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

func readLine(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	line, err := r.ReadString('\n')
	require.NoError(t, err, line)
	return strings.TrimSuffix(line, "\n")
}

func TestKernelKillsAboveLimit(t *testing.T) {
	t.Parallel()
	const limit = 64 * mib
	s := newSandbox(t, limit)
	kills, err := s.Kills()
	require.NoError(t, err)
	require.Zero(t, kills)

	cmd := actor("alloc")
	require.NoError(t, s.Start(cmd))
	err = cmd.Wait()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	ws := exit.Sys().(syscall.WaitStatus)
	assert.True(t, ws.Signaled() && ws.Signal() == syscall.SIGKILL, "%v", err)

	kills, err = s.Kills()
	require.NoError(t, err)
	assert.EqualValues(t, 1, kills)
	peak, err := s.Peak()
	require.NoError(t, err)
	assert.Less(t, peak, uint64(limit+mib), "a process that is dying may go a few pages over")
	assert.Greater(t, peak, uint64(limit*9/10))
}

func TestCommandIsItself(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, 64*mib)
	cmd := actor("status")
	var out strings.Builder
	cmd.Stdout = &out
	require.NoError(t, s.Start(cmd))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	assert.Equal(t, 7, exit.ExitCode())
	pid, where, _ := strings.Cut(out.String(), "\n")
	assert.Equal(t, strconv.Itoa(cmd.Process.Pid), pid)
	assert.Contains(t, where, filepath.Base(s.Dir())+"\n")

	err := s.Start(exec.Command("/nonexistent/command"))
	assert.ErrorIs(t, err, fs.ErrNotExist, "an exec that fails is Start's error, not an exit status")
}

// TestStartIsRaceFree starts many at once: each must be inside, and no thread
// of ours may be left there.
func TestStartIsRaceFree(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, 256*mib)
	g, err := cgroup.OpenDir(s.Dir())
	require.NoError(t, err)
	defer g.Close()
	var want []int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			cmd, out := play(t, "stay")
			if !assert.NoError(t, s.Start(cmd)) {
				return
			}
			if _, err := out.ReadString('\n'); !assert.NoError(t, err) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			want = append(want, cmd.Process.Pid)
		})
	}
	wg.Wait()
	got, err := g.Pids()
	require.NoError(t, err)
	assert.ElementsMatch(t, want, got)

	tasks, err := filepath.Glob("/proc/self/task/*/cgroup")
	require.NoError(t, err)
	require.NotEmpty(t, tasks)
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err == nil { // a thread may have ended
			assert.NotContains(t, string(text), filepath.Base(s.Dir()), task)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, 64*mib)
	cmd, out := play(t, "parent")
	require.NoError(t, s.Start(cmd))
	grandchild, err := strconv.Atoi(readLine(t, out))
	require.NoError(t, err)
	require.True(t, alive(grandchild))
	inner := filepath.Join(s.Dir(), "inner", "most")
	require.NoError(t, os.MkdirAll(inner, 0o755))

	require.NoError(t, s.Close())
	assert.NoDirExists(t, s.Dir())
	assert.False(t, alive(grandchild))
	assert.Error(t, cmd.Wait())
	assert.NoError(t, s.Close(), "a second Close has nothing to do")
	assert.ErrorIs(t, s.Start(actor("stay")), fs.ErrClosed)
	_, err = s.Kills()
	assert.Error(t, err)
}

// TestManyAtOnce makes and removes sandboxes side by side. On version 2 they
// share the switch in the group above them.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	newSandbox(t, 64*mib) // skips where there are none
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				s, err := New("many", 64*mib)
				if !assert.NoError(t, err) {
					return
				}
				assert.NoError(t, s.SetLimit(32*mib))
				assert.NoError(t, s.Close())
			}
		})
	}
	wg.Wait()
}

func TestSetLimit(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, 64*mib)
	g, err := cgroup.OpenDir(s.Dir())
	require.NoError(t, err)
	defer g.Close()
	for _, want := range []uint64{64 * mib, 128 * mib, 32 * mib} { // up and down
		require.NoError(t, s.SetLimit(want))
		r, err := g.Read()
		require.NoError(t, err)
		limit, ok := r.Limit.Value()
		require.True(t, ok)
		assert.Equal(t, want, limit)
		assert.Equal(t, s.Dir(), r.LimitFrom)
		if swap, ok := r.SwapLimit.Value(); ok {
			assert.LessOrEqual(t, swap, uint64(os.Getpagesize()))
		}
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	own := newSandbox(t, 64*mib)

	cmd, out := play(t, "creator")
	require.NoError(t, cmd.Start())
	line := readLine(t, out)
	var dir string
	var inside, orphan int
	_, err := fmt.Sscan(line, &dir, &inside, &orphan)
	require.NoError(t, err, line)
	require.DirExists(t, dir)
	t.Cleanup(func() { Sweep() }) // also when the test fails on the way
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	for alive(inside) { // dies with its creator, before any Sweep
		time.Sleep(time.Millisecond)
	}
	require.DirExists(t, dir)
	require.True(t, alive(orphan), "the test needs somebody left inside")

	removed, err := Sweep()
	require.NoError(t, err)
	assert.GreaterOrEqual(t, removed, 1)
	assert.NoDirExists(t, dir)
	assert.False(t, alive(orphan))
	assert.DirExists(t, own.Dir(), "the creator of this one lives")
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, limit := range []uint64{0, 1<<60 + 1, 1<<64 - 1} {
		_, err := New("x", limit)
		assert.ErrorContains(t, err, "limit", limit)
		assert.NotErrorIs(t, err, ErrUnsupported)
	}
	for _, name := range []string{"", "../x", "a/b", "a b", strings.Repeat("x", 101)} {
		_, err := New(name, mib)
		assert.ErrorContains(t, err, "name", name)
		assert.NotErrorIs(t, err, ErrUnsupported)
	}
}

// tree makes a directory tree of files that are only text; what a kernel would
// do on a write is for the tests in a real group.
func tree(t *testing.T, files map[string]string) string {
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return root
}

func TestChain(t *testing.T) {
	t.Parallel()
	root := tree(t, map[string]string{
		"fs/cgroup.procs":                    "",
		"fs/user.slice/cgroup.procs":         "",
		"fs/user.slice/a.scope/cgroup.procs": "",
	})
	fs := filepath.Join(root, "fs")
	assert.Equal(t, []string{fs, fs + "/user.slice/a.scope", fs + "/user.slice"}, chain(fs+"/user.slice/a.scope"))
	assert.Equal(t, []string{fs}, chain(fs))
}

func TestOpenParent(t *testing.T) {
	t.Parallel()
	root := tree(t, map[string]string{
		"v1/cgroup.procs":            "",
		"on/cgroup.procs":            "",
		"on/cgroup.controllers":      "cpu memory\n",
		"on/cgroup.subtree_control":  "memory\n",
		"off/cgroup.procs":           "",
		"off/cgroup.controllers":     "cpu memory\n",
		"off/cgroup.subtree_control": "",
		"off/old/cgroup.procs":       "",
		"none/cgroup.procs":          "",
		"none/cgroup.controllers":    "cpu memory_recursive\n",
	})
	control := func(dir string) string {
		text, err := os.ReadFile(filepath.Join(root, dir, "cgroup.subtree_control"))
		require.NoError(t, err)
		return string(text)
	}

	_, err := openParent(filepath.Join(root, "v1"))
	require.NoError(t, err)

	p, err := openParent(filepath.Join(root, "on"))
	require.NoError(t, err)
	require.NoError(t, p.restore())
	assert.Equal(t, "memory\n", control("on"), "neither switched on nor off")

	p, err = openParent(filepath.Join(root, "off"))
	require.NoError(t, err)
	assert.Equal(t, "+memory", control("off"))
	other := filepath.Join(root, "off", "new")
	require.NoError(t, os.Mkdir(other, 0o755))
	// As the kernel shows it after the write.
	require.NoError(t, os.WriteFile(filepath.Join(root, "off", "cgroup.subtree_control"), []byte("memory\n"), 0o644))
	second, err := openParent(filepath.Join(root, "off"))
	require.NoError(t, err)
	require.NoError(t, p.restore())
	assert.Equal(t, "memory\n", control("off"), "somebody relies on it now")
	require.NoError(t, os.Remove(other))
	require.NoError(t, second.restore())
	assert.Equal(t, "-memory", control("off"), "the last one switches it off")

	_, err = openParent(filepath.Join(root, "none"))
	assert.ErrorContains(t, err, "no memory controller")
}

func TestSweepLeavesOtherNamespaces(t *testing.T) {
	t.Parallel()
	root := tree(t, map[string]string{"theirs/cgroup.procs": "0\n0\n", "ours/cgroup.procs": "12\n100\n"})
	assert.True(t, foreign(filepath.Join(root, "theirs")))
	assert.False(t, foreign(filepath.Join(root, "ours")))
}
