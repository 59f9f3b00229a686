// SPDX-License-Identifier: Apache-2.0

package cgroup_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// These tests run in real groups, with limits that the kernel enforces. Where
// none may be made they are skipped, and say why.

const mib = 1 << 20

const childEnv = "CGROUP_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "charge":
		charge()
	case "unshare":
		fmt.Println(unshare()) // does not return if all is well
	case "container":
		fmt.Println(container())
		io.Copy(io.Discard, os.Stdin)
	}
}

// charge holds 40 MiB, and at the word on its standard input 256 MiB more.
func charge() {
	touch := func(n int) []byte {
		// Not the Go heap, which under the race detector has a shadow.
		b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			panic(err)
		}
		for i := 0; i < n; i += 4096 {
			b[i] = 1
		}
		return b
	}
	held := touch(40 * mib)
	fmt.Println("charged")
	bufio.NewReader(os.Stdin).ReadString('\n')
	runtime.KeepAlive([][]byte{held, touch(256 * mib)})
}

// unshare goes on in cgroup and mount namespaces of its own. They belong to a
// thread; exec makes it the only one.
func unshare() error {
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_NEWNS | cloneNewCgroup); err != nil {
		return fmt.Errorf("skip: unshare: %w", err)
	}
	os.Setenv(childEnv, "container")
	return syscall.Exec("/proc/self/exe", os.Args[:1], os.Environ())
}

const cloneNewCgroup = 0x02000000 // CLONE_NEWCGROUP, clone(2)

// container mounts the hierarchy as a container runtime would and says what it
// sees.
func container() string {
	g, err := cgroup.Open("/proc", 0)
	if err != nil {
		return "before the mount: " + err.Error()
	}
	version, before := g.Version(), filepath.Base(g.Dir())
	g.Close()
	fstype, options := "cgroup2", ""
	if version == 1 {
		fstype, options = "cgroup", "memory"
	}
	const dir = "/sys/fs/cgroup"
	if err := errors.Join(
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("tmpfs", dir, "tmpfs", 0, ""),
		os.Mkdir(dir+"/mine", 0o755),
		syscall.Mount("none", dir+"/mine", fstype, 0, options),
	); err != nil {
		return "skip: mount: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	g, err = cgroup.Open("/proc", 0)
	if err != nil {
		return "after the mount: " + err.Error()
	}
	r, err := g.Read()
	return fmt.Sprint(before, " ", g.Path(), " ", g.Dir(), " ", r.Limit, " ", r.LimitFrom, " ", err)
}

func newSandbox(t testing.TB, limit uint64) *sandbox.Sandbox {
	t.Helper()
	s, err := sandbox.New(strings.ReplaceAll(t.Name(), "/", "-"), limit)
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

// openNew opens a new group with nothing in it.
func openNew(t testing.TB) *cgroup.Group {
	g, err := cgroup.OpenDir(newSandbox(t, 64*mib).Dir())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, g.Close()) })
	return g
}

// start plays a part inside the sandbox and returns its first line.
func start(t *testing.T, s *sandbox.Sandbox, part string) (cmd *exec.Cmd, in io.Writer, line string) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+part)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Start(cmd))
	line, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return cmd, in, strings.TrimSpace(line)
}

func known(t *testing.T, v cgroup.Value) uint64 {
	t.Helper()
	n, ok := v.Value()
	require.True(t, ok)
	return n
}

func bounded(t *testing.T, l cgroup.Limit) uint64 {
	t.Helper()
	n, ok := l.Value()
	require.True(t, ok, l)
	return n
}

func TestChargeAndKill(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, 96*mib)
	cmd, in, _ := start(t, s, "charge")
	g, err := cgroup.Open("/proc", cmd.Process.Pid)
	require.NoError(t, err)
	defer g.Close()
	assert.Equal(t, s.Version(), g.Version())
	assert.Equal(t, filepath.Base(s.Dir()), filepath.Base(g.Dir()))

	usage, err := g.Usage()
	require.NoError(t, err)
	assert.GreaterOrEqual(t, usage, uint64(40*mib))
	r, err := g.Read()
	require.NoError(t, err)
	assert.EqualValues(t, 96*mib, bounded(t, r.Limit))
	assert.Equal(t, g.Dir(), r.LimitFrom)
	anon, ok := r.Stat.Bytes(cgroup.Anon)
	require.True(t, ok)
	assert.GreaterOrEqual(t, anon, uint64(40*mib))
	assert.Less(t, anon, known(t, r.Usage)+mib)
	assert.LessOrEqual(t, known(t, r.WorkingSet), known(t, r.Usage))
	assert.GreaterOrEqual(t, known(t, r.Peak), uint64(40*mib))
	assert.Zero(t, known(t, r.Events.OOMKill))
	assert.True(t, r.High.Unlimited())
	room, dir, ok := r.Room()
	assert.True(t, ok)
	assert.Equal(t, g.Dir(), dir)
	assert.Equal(t, 96*mib-known(t, r.Usage), room)
	pids, err := g.Pids()
	require.NoError(t, err)
	assert.Equal(t, []int{cmd.Process.Pid}, pids)

	require.NoError(t, s.SetLimit(80*mib)) // at run time
	r, err = g.Read()
	require.NoError(t, err)
	assert.EqualValues(t, 80*mib, bounded(t, r.Limit))

	_, err = io.WriteString(in, "go\n")
	require.NoError(t, err)
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())
	r, err = g.Read() // the group outlives its process, and so do its files
	require.NoError(t, err)
	assert.EqualValues(t, 1, known(t, r.Events.OOMKill))
	assert.NotZero(t, known(t, r.Events.Max))
	pids, err = g.Pids()
	require.NoError(t, err)
	assert.Empty(t, pids)
	_, err = cgroup.Open("/proc", cmd.Process.Pid)
	assert.ErrorIs(t, err, cgroup.ErrNoProcess)
}

func TestGroupRemoved(t *testing.T) {
	t.Parallel()
	dir := newInner(t, newSandbox(t, 64*mib))
	g, err := cgroup.OpenDir(dir)
	require.NoError(t, err)
	defer g.Close()
	_, err = g.Usage()
	require.NoError(t, err)
	for range 2 { // the second time there is a new group of the same name
		require.NoError(t, syscall.Rmdir(dir))
		_, err = g.Usage()
		assert.ErrorIs(t, err, cgroup.ErrGone)
		r, err := g.Read()
		assert.ErrorIs(t, err, cgroup.ErrGone)
		_, ok := r.Usage.Value()
		assert.False(t, ok)
		_, err = g.Pids()
		assert.ErrorIs(t, err, cgroup.ErrGone)
		_, err = cgroup.OpenDir(dir)
		assert.ErrorIs(t, err, cgroup.ErrGone)
		require.NoError(t, os.Mkdir(dir, 0o755))
	}
	again, err := cgroup.OpenDir(dir)
	require.NoError(t, err)
	_, err = again.Usage()
	assert.NoError(t, err)
	require.NoError(t, again.Close())
	require.NoError(t, again.Close())
	_, err = again.Usage()
	assert.ErrorIs(t, err, fs.ErrClosed)
	_, err = again.Read()
	assert.ErrorIs(t, err, fs.ErrClosed)
	_, err = again.Pids()
	assert.ErrorIs(t, err, fs.ErrClosed)
}

// newInner makes a group with the memory controller inside the sandbox, which
// removes it.
func newInner(t *testing.T, s *sandbox.Sandbox) (dir string) {
	if s.Version() == 2 {
		require.NoError(t, os.WriteFile(filepath.Join(s.Dir(), "cgroup.subtree_control"), []byte("+memory"), 0))
	}
	dir = filepath.Join(s.Dir(), "inner")
	require.NoError(t, os.Mkdir(dir, 0o755))
	return dir
}

func TestLimitOfAncestor(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, 64*mib)
	limitFile := "memory.limit_in_bytes"
	if s.Version() == 2 {
		limitFile = "memory.max"
	}
	inner := newInner(t, s)
	require.NoError(t, os.WriteFile(filepath.Join(inner, limitFile), []byte("128M"), 0))
	g, err := cgroup.OpenDir(inner)
	require.NoError(t, err)
	defer g.Close()
	for _, tt := range []struct {
		outer uint64
		want  uint64
		from  string
	}{
		{64 * mib, 64 * mib, s.Dir()},
		{32 * mib, 32 * mib, s.Dir()},
		{256 * mib, 128 * mib, inner},
	} {
		require.NoError(t, s.SetLimit(tt.outer))
		r, err := g.Read()
		require.NoError(t, err)
		assert.Equal(t, tt.want, bounded(t, r.Limit))
		assert.Equal(t, tt.from, r.LimitFrom)
		require.GreaterOrEqual(t, len(r.Levels), 2)
		assert.Equal(t, tt.outer, bounded(t, r.Levels[1].Limit))
	}
}

// TestContainer reads the group of a process in namespaces of its own, from
// inside and from outside.
func TestContainer(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, 96*mib)
	cmd, _, line := start(t, s, "unshare")
	if strings.HasPrefix(line, "skip") {
		t.Skip(line)
	}
	assert.Equal(t, fmt.Sprint(filepath.Base(s.Dir()), " / /sys/fs/cgroup/mine ", 96*mib, " /sys/fs/cgroup/mine <nil>"), line)

	g, err := cgroup.Open("/proc", cmd.Process.Pid)
	require.NoError(t, err)
	defer g.Close()
	assert.Equal(t, fmt.Sprintf("/proc/%d/root/sys/fs/cgroup/mine", cmd.Process.Pid), g.Dir())
	assert.Equal(t, filepath.Base(s.Dir()), filepath.Base(g.Path()))
	r, err := g.Read()
	require.NoError(t, err)
	assert.EqualValues(t, 96*mib, bounded(t, r.Limit))

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.NoDirExists(t, g.Dir(), "the name is gone with the process ...")
	_, err = g.Read()
	assert.NoError(t, err, "... but the files are open")
	_, err = g.Pids()
	assert.NoError(t, err)
}

// TestPermission reads a group one of whose files may not be read. The user
// that may not is a thread of ours: file system rights are the thread's.
func TestPermission(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root may become somebody else")
	}
	root := t.TempDir()
	for dir := root; dir != "/"; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		require.NoError(t, err)
		if st.Mode()&0o11 != 0o11 { // our groups stay
			require.NoError(t, os.Chmod(dir, st.Mode()|0o11))
		}
	}
	for name, mode := range map[string]fs.FileMode{"cgroup.controllers": 0o644, "cgroup.type": 0o644, "cgroup.procs": 0o600, "memory.current": 0o644, "memory.max": 0o600} {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte("42\n"), mode))
		require.NoError(t, os.Chmod(filepath.Join(root, name), mode))
	}
	require.NoError(t, os.Chmod(root, 0o755))
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread is spoilt
		if !assert.NoError(t, syscall.Setfsuid(65534)) {
			return
		}
		g, err := cgroup.OpenDir(root)
		if !assert.NoError(t, err) {
			return
		}
		defer g.Close()
		r, err := g.Read()
		assert.NoError(t, err)
		n, ok := r.Usage.Value()
		assert.True(t, ok)
		assert.EqualValues(t, 42, n)
		assert.False(t, r.Limit.Known(), "%v", r.Limit)
		assert.ErrorIs(t, errors.Join(r.Errs...), fs.ErrPermission)
		_, err = g.Pids()
		assert.ErrorIs(t, err, fs.ErrPermission)
	}()
	<-done
}

// TestProcessUsageAllocatesNothing counts in this process: nothing else may run.
func TestProcessUsageAllocatesNothing(t *testing.T) {
	g := openNew(t)
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := g.Usage(); err != nil {
			t.Fatal(err)
		}
	}))
}

// race runs two functions alternately, each first as often as the other, and
// returns the median time of each call.
func race(b *testing.B, one, other func() error) (oneTime, otherTime time.Duration) {
	times := [2][]time.Duration{}
	fs := [2]func() error{one, other}
	turn := 0
	for b.Loop() {
		turn++
		for i := range 2 {
			i = (i + turn) % 2
			start := time.Now()
			if err := fs[i](); err != nil {
				b.Fatal(err)
			}
			times[i] = append(times[i], time.Since(start))
		}
	}
	for i := range times {
		slices.Sort(times[i])
	}
	return times[0][len(times[0])/2], times[1][len(times[1])/2]
}

// BenchmarkUsage compares one reading of the usage with the bare pread under it.
func BenchmarkUsage(b *testing.B) {
	g := openNew(b)
	name := "memory.current"
	if g.Version() == 1 {
		name = "memory.usage_in_bytes"
	}
	f, err := os.Open(filepath.Join(g.Dir(), name))
	require.NoError(b, err)
	defer f.Close()
	fd, buf := int(f.Fd()), make([]byte, 32)
	ours, bare := race(b, func() error {
		for range 100 {
			if _, err := g.Usage(); err != nil {
				return err
			}
		}
		return nil
	}, func() error {
		for range 100 {
			if _, err := syscall.Pread(fd, buf, 0); err != nil {
				return err
			}
		}
		return nil
	})
	b.ReportMetric(float64(ours)/100, "ns/usage")
	b.ReportMetric(float64(bare)/100, "ns/pread")
	b.ReportMetric(float64(ours)/float64(bare), "usage/pread")
	b.ReportMetric(testing.AllocsPerRun(100, func() { g.Usage() }), "allocs/usage")
}

// BenchmarkRead compares Read on open files with opening and reading the same
// files each time.
func BenchmarkRead(b *testing.B) {
	g := openNew(b)
	files := strings.Fields("current peak stat max high swap.current swap.max events events.local pressure")
	if g.Version() == 1 {
		files = strings.Fields("usage_in_bytes max_usage_in_bytes stat limit_in_bytes memsw.limit_in_bytes kmem.usage_in_bytes failcnt memsw.failcnt oom_control")
	}
	for i, f := range files {
		files[i] = filepath.Join(g.Dir(), "memory."+f)
	}
	ours, reopened := race(b, func() error {
		_, err := g.Read()
		return err
	}, func() error {
		for _, f := range files {
			os.ReadFile(f) // not every kernel has every one
		}
		return nil
	})
	b.ReportMetric(float64(ours), "ns/read")
	b.ReportMetric(float64(ours)/float64(reopened), "read/reopen")
	b.ReportMetric(testing.AllocsPerRun(100, func() { g.Read() }), "allocs/read")
}
