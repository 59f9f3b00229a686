// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the environment says is what the runtime makes of it: children are
// started with many values, and ask their own runtime.
func TestEnvironMeansWhatTheRuntimeMakesOfIt(t *testing.T) {
	t.Parallel()
	for _, env := range [][]string{
		{}, {"GOGC="}, {"GOMEMLIMIT="}, {"GOGC=off", "GOMEMLIMIT=off"},
		{"GOGC=OFF", "GOMEMLIMIT=1B"}, {"GOGC=50", "GOMEMLIMIT=67108864"}, {"GOGC=0", "GOMEMLIMIT=100MiB"},
		{"GOGC=-1", "GOMEMLIMIT=1TiB"}, {"GOGC=-5", "GOMEMLIMIT=1GiB"}, {"GOGC=+7", "GOMEMLIMIT=+536870912"},
		{"GOGC=1e3", "GOMEMLIMIT=9223372036854775807"}, {"GOGC= 50", "GOMEMLIMIT=9223372036854775806"},
		{"GOGC=50 ", "GOMEMLIMIT=8388607TiB"}, {"GOGC=2147483647", "GOMEMLIMIT=00512MiB"},
		{"GOGC=2147483648"}, {"GOGC=-2147483648"}, {"GOGC=-2147483649"}, {"GOGC=0x10"}, {"GOGC=1_0"},
		{"GOGC=200", "GOGC=300", "GOMEMLIMIT=200MiB", "GOMEMLIMIT=300MiB"}, // the first counts
		{"XGOGC=7", "GOGCX=8", "gogc=9"}, {"GOGC=a=b"},
	} {
		var s settings
		answer(t, "settings", &s, env...)
		assert.Equal(t, s.Runtime.GCPercent, s.Environ.GCPercent, "%q", env)
		assert.Equal(t, s.Runtime.MemoryLimit, s.Environ.MemoryLimit, "%q", env)
		assert.Equal(t, FromEnviron, s.Environ.Origin)
	}
	// With these it does not start, and they are unknown.
	for _, limit := range []string{"B", "KiB", "1KB", "1kiB", "100 MiB", "1.5GiB", "off ", "-1", "-5B", "9223372036854775808", "8388608TiB", "1PiB", "1i", "1Ki", "1BB"} {
		state := started(t, "GOMEMLIMIT="+limit)
		assert.False(t, state.Success(), "GOMEMLIMIT=%s", limit)
		assert.Equal(t, Bytes{}, parseEnviron([]byte("GOMEMLIMIT="+limit)).MemoryLimit, limit)
	}
}

// started runs a child that may fail to start, and returns how it ended.
func started(t *testing.T, env string) *os.ProcessState {
	out, p := child(t, self(t), "settings", nil, env)
	_, err := io.Copy(io.Discard, out)
	require.NoError(t, err)
	state, err := p.Wait()
	require.NoError(t, err)
	return state
}

// Before the first collection nobody has measured what lives: unknown, not 0.
func TestLiveIsUnknownBeforeTheFirstCycle(t *testing.T) {
	t.Parallel()
	var r [2]Runtime
	answer(t, "collected", &r, "GOGC=off")
	assert.Equal(t, Known[uint64](0), r[0].Cycles)
	assert.Equal(t, Bytes{}, r[0].Live)
	assert.NotEqual(t, Bytes{}, r[0].Objects)
	assert.Equal(t, Known[uint64](1), r[1].Cycles)
	assert.NotEqual(t, Bytes{}, r[1].Live)
}

func TestOpenOfWhatIsNoProcess(t *testing.T) {
	t.Parallel()
	for pid, want := range map[int]string{
		0:       "memguard: pid 0: not a process id",
		-1:      "memguard: pid -1: not a process id",
		1 << 22: "memguard: pid 4194304: " + ErrGone.Error(), // PID_MAX_LIMIT: no process has it
	} {
		_, err := Open(pid)
		require.EqualError(t, err, want)
		_, err = explainPID(t.Context(), pid, 0)
		require.EqualError(t, err, want)
		assert.Equal(t, pid == 1<<22, errors.Is(err, ErrGone))
	}
}

func TestOpenOfOneself(t *testing.T) {
	t.Parallel()
	s, err := Open(os.Getpid())
	require.NoError(t, err)
	defer s.Close()
	var d Sample
	require.NoError(t, s.Survey(&d))
	assert.Equal(t, FromRuntime, d.Runtime.Origin)
	assert.Equal(t, os.Getpid(), d.PID)
	assert.NotNil(t, d.Process.Maps)
	rss, ok := d.Process.RSS.Get()
	assert.True(t, ok)
	assert.Greater(t, rss, uint64(1<<20))
	assert.Equal(t, self(t), d.Process.Exe)
	_, ok = d.Process.Swap.Get()
	assert.True(t, ok)
}

// sleeper is a process that is not a Go program.
func sleeper(t *testing.T) *exec.Cmd {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("no sleep(1) here:", err)
	}
	c := exec.Command(sleep, "1000")
	require.NoError(t, c.Start()) // returns after the exec
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c
}

func TestOpenOfWhatIsNotGo(t *testing.T) {
	t.Parallel()
	s, err := Open(sleeper(t).Process.Pid)
	require.NoError(t, err)
	defer s.Close()
	var d Sample
	require.NoError(t, s.Survey(&d))
	assert.Contains(t, d.Blind, Blind{"Go", "not a Go program: only the kernel's view applies"})
	assert.Equal(t, Runtime{}, d.Runtime, "nothing of a runtime, not even its defaults")
	assert.False(t, d.Process.Go)
	l := NewLedger(&d)
	for _, row := range l.Rows {
		assert.False(t, strings.HasPrefix(row.Name, "go/heap"), row.Name)
	}
	n, ok := l.Row(RowFile)
	assert.True(t, ok)
	assert.Positive(t, n)
}

func TestOpenOfAnotherGoProgram(t *testing.T) {
	t.Parallel()
	out, p := child(t, self(t), "hold", &os.ProcAttr{Files: []*os.File{pipe(t)}}, "GOGC=70")
	ready(t, out)
	r, err := explainPID(t.Context(), p.Pid, 0)
	require.NoError(t, err)
	assert.NotEmpty(t, r.Go)
	assert.Equal(t, self(t), r.Exe)
	heap, ok := r.Ledger.Row(RowHeap)
	assert.True(t, ok)
	assert.Greater(t, heap, int64(64<<20))
	for _, name := range []string{RowLive, RowDead, RowUntouched} {
		_, ok := r.Ledger.Row(name)
		assert.False(t, ok, "%s is not to be seen from outside", name)
	}
	s, err := Open(p.Pid)
	require.NoError(t, err)
	defer s.Close()
	var d Sample
	require.NoError(t, s.Read(&d))
	assert.Equal(t, Known[int64](70), d.Runtime.GCPercent)
	assert.Equal(t, Known[uint64](Unlimited), d.Runtime.MemoryLimit, "what it was started with; it has changed it since")
	assert.Equal(t, FromEnviron, d.Runtime.Origin)
}

// A process that ends while it is looked at: first it is a zombie, then gone.
func TestProcessThatEnds(t *testing.T) {
	t.Parallel()
	c := sleeper(t)
	s, err := Open(c.Process.Pid)
	require.NoError(t, err)
	defer s.Close()
	var d Sample
	require.NoError(t, s.Read(&d))
	rss, ok := d.Process.RSS.Get()
	require.True(t, ok)
	assert.Positive(t, rss)

	require.NoError(t, c.Process.Kill())
	require.Eventually(t, func() bool { // a zombie as soon as the kernel gets to it
		b, _ := os.ReadFile(s.statm.Name())
		return strings.HasPrefix(string(b), "0 ")
	}, time.Minute, time.Millisecond)
	assert.ErrorIs(t, s.Read(&d), ErrGone)
	assert.ErrorIs(t, s.Survey(&d), ErrGone)
	assert.Equal(t, Bytes{}, d.Process.RSS, "a zombie's 0 is no measurement")

	_ = c.Wait()
	assert.ErrorIs(t, s.Read(&d), ErrGone)
	assert.ErrorIs(t, s.Survey(&d), ErrGone)
	_, err = Open(c.Process.Pid)
	assert.ErrorIs(t, err, ErrGone)
	_, err = explainPID(t.Context(), c.Process.Pid, time.Second)
	assert.ErrorIs(t, err, ErrGone)
}

// The pid belongs to another process by now.
func TestPIDIsTakenByAnother(t *testing.T) {
	t.Parallel()
	s, err := Open(sleeper(t).Process.Pid)
	require.NoError(t, err)
	defer s.Close()
	var d Sample
	require.NoError(t, s.Survey(&d))
	s.start-- // as if it had been started before
	assert.ErrorIs(t, s.Survey(&d), ErrGone)
}

func TestKernelThread(t *testing.T) {
	t.Parallel()
	if comm, _ := os.ReadFile("/proc/2/comm"); strings.TrimSpace(string(comm)) != "kthreadd" {
		t.Skip("pid 2 is not a kernel thread here: a PID namespace")
	}
	_, err := explainPID(t.Context(), 2, 0)
	require.ErrorContains(t, err, "memguard: pid 2: ")
	require.ErrorContains(t, err, "kernel thread")
	assert.NotContains(t, err.Error(), "\n", "one sentence")
	s, err := Open(2)
	require.NoError(t, err)
	defer s.Close()
	var d Sample
	require.NoError(t, s.Read(&d), "a tick goes on")
	assert.Equal(t, Bytes{}, d.Process.RSS, "no address space is not 0 bytes")
}

// Without rights there is still the little that everybody may see, and a clear
// word on what is missing.
func TestAnotherUsersProcess(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("takes root to become another user")
	}
	dir, err := os.MkdirTemp("", "memguard")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	exe := filepath.Join(dir, "copy")
	// Not copied by this process: another test's child may inherit the descriptor
	// that it writes to, and then the copy cannot be run (golang.org/issue/22315).
	if err := os.Link(self(t), exe); err != nil {
		require.NoError(t, exec.Command("cp", self(t), exe).Run())
	}

	// The target is a Go program of root's.
	waiting, target := child(t, self(t), "wait", &os.ProcAttr{Files: []*os.File{pipe(t)}})
	ready(t, waiting)
	const nobody = 65534
	out, p := child(t, exe, "explain", &os.ProcAttr{Dir: "/", Sys: &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
	}}, jobEnv+"_PID="+strconv.Itoa(target.Pid))
	var got explained
	require.NoError(t, json.NewDecoder(out).Decode(&got))
	_, _ = p.Wait()
	if got.Err != "" { // hidepid: not even that it exists
		require.Contains(t, got.Err, "memguard: pid ")
		require.NotContains(t, got.Err, "\n")
		return
	}
	why := map[string]string{}
	for _, b := range got.Report.Blind {
		why[b.What] = b.Why
		assert.NotContains(t, b.Why, "\n", "one sentence each")
	}
	assert.Contains(t, why["executable"], "permission denied (reading another user's process needs the same user, or CAP_SYS_PTRACE)")
	assert.Contains(t, why["smaps"], "permission denied")
	_, ok := got.Report.Ledger.RSS.Get()
	assert.True(t, ok, "everybody may see the size")
	for _, name := range []string{RowBinary, RowLibc, RowLazyFree} {
		_, ok := got.Report.Ledger.Row(name)
		assert.False(t, ok, "%s cannot be known", name)
	}
}

// Files that cannot be read, or hold what they should not: unknown, with the
// file's name, and the tick goes on.
func TestGarbageInStatm(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "what\n", "1 2", "-1 2 3 4", strings.Repeat("9", 300)} {
		name := filepath.Join(t.TempDir(), "statm")
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		f, err := os.Open(name)
		require.NoError(t, err)
		s := &Source{pid: 4711, statm: f}
		var d Sample
		require.NoError(t, s.Read(&d))
		require.Len(t, d.Blind, 1, "%q", text)
		assert.Equal(t, "RSS", d.Blind[0].What)
		assert.Contains(t, d.Blind[0].Why, name)
		assert.Equal(t, Bytes{}, d.Process.RSS)
		require.NoError(t, s.Close())
	}
	// A closed one is an error that is said, too.
	dir, err := os.Open(t.TempDir())
	require.NoError(t, err)
	s := &Source{pid: 4711, statm: dir}
	var d Sample
	require.NoError(t, s.Read(&d))
	require.Len(t, d.Blind, 1)
	assert.Contains(t, d.Blind[0].Why, "is a directory")
	require.NoError(t, s.Close())
}
