// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestJudge applies the kernel's rules to pairs of processes.
func TestJudge(t *testing.T) {
	t.Parallel()
	user := func(uid uint64, caps uint64) credentials {
		return credentials{uids: [3]uint64{uid, uid, uid}, gids: [3]uint64{uid, uid, uid}, permitted: caps, effective: caps}
	}
	suid := user(1000, 0)
	suid.uids[2] = 0
	for _, c := range []struct {
		name     string
		me, them credentials
		scope    string
		want     Rule
		fix      string
	}{
		{"another user", user(1000, 0), user(1001, 0), "0", RuleUID, "runAsUser"},
		{"a program that can become root again", user(1000, 0), suid, "0", RuleUID, "runAsUser"},
		{"root without capabilities reads a user", user(0, 0), user(1000, 0), "0", RuleUID, "SYS_PTRACE"},
		{"the target may more", user(0, 0), user(0, 0xa80425fb), "0", RuleCaps, "drop [ALL]"},
		{"same user, yama 1", user(1000, 0), user(1000, 0), "1", RuleYama, "SYS_PTRACE"},
		{"same user, yama 2", user(1000, 0), user(1000, 0), "2", RuleYama, "SYS_PTRACE"},
		{"root, yama 3", user(0, capSysPtrace), user(0, 0), "3", RuleYama, "boot"},
		{"same user, no yama", user(1000, 0), user(1000, 0), "", RuleUnknown, "fix"},
		{"with the capability", user(1000, capSysPtrace), user(0, 0), "1", RuleUnknown, "fix"},
	} {
		rule, why, fix := judge(c.me, c.them, c.scope, "why", "fix")
		assert.Equal(t, c.want, rule, c.name)
		assert.NotEmpty(t, why, c.name)
		assert.Contains(t, fix, c.fix, c.name)
	}
}

// TestProcessPrivileges attaches as other users: this test runs itself as them.
func TestProcessPrivileges(t *testing.T) {
	if pid := os.Getenv("MEMGUARD_ATTACH_PID"); pid != "" {
		n, err := strconv.Atoi(pid)
		require.NoError(t, err)
		target, err := Open(n)
		var refused *PermissionError
		switch {
		case err == nil:
			defer target.Close()
			s, err := target.Snapshot(t.Context(), Spans|Goroutines)
			require.NoError(t, err)
			goroutines, _ := s.Goroutines.Total.Get()
			fmt.Println("answer: goroutines", goroutines)
		case errors.As(err, &refused):
			require.ErrorIs(t, err, ErrPermission)
			fmt.Println("answer:", refused.Rule)
		default:
			fmt.Println("answer:", err)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can run programs as other users")
	}
	install := installer(t)
	bin := compile(t, build{release: current, flags: "-ldflags=-s,-w"})
	readable := install(bin, "readable", 0o755)
	unreadable := install(bin, "unreadable", 0o711)
	reader := install(os.Args[0], "reader", 0o755)
	for _, c := range []struct {
		name           string
		bin            string
		target, reader uint32
		want           string
	}{
		{"the same user without capabilities", readable, 1000, 1000, "answer: goroutines 101\n"},
		{"another user", readable, 1000, 1001, "answer: uid\n"},
		{"a program that may not be read", unreadable, 1000, 1000, "answer: dumpable\n"},
		{"root with capabilities", readable, 1000, 0, "answer: goroutines 101\n"},
		{"a user reads root", readable, 0, 1000, "answer: uid\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			scope, _ := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
			if c.target == c.reader && len(scope) > 0 && scope[0] != '0' {
				t.Skipf("kernel.yama.ptrace_scope is %s", scope)
			}
			p := startCommand(t, as(exec.Command(c.bin, "-goroutines=100"), c.target))
			r := as(exec.Command(reader, "-test.run=^TestProcessPrivileges$"), c.reader)
			r.Env = append(os.Environ(), "MEMGUARD_ATTACH_PID="+strconv.Itoa(p.pid()))
			out, err := r.Output()
			require.NoError(t, err, "%s", out)
			assert.Contains(t, string(out), c.want)
		})
	}
}

// installer copies files to where every user can run them.
func installer(t *testing.T) func(from, name string, mode os.FileMode) string {
	dir, err := os.MkdirTemp("", "attach")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return func(from, name string, mode os.FileMode) string {
		to := filepath.Join(dir, name)
		b, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, b, 0o755))
		require.NoError(t, os.Chmod(to, mode))
		return to
	}
}

// as has a command run as another user, without capabilities.
func as(c *exec.Cmd, uid uint32) *exec.Cmd {
	c.Dir = filepath.Dir(c.Path)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return c
}

// TestProcessFallBack reads through /proc/PID/mem.
func TestProcessFallBack(t *testing.T) {
	p := start(t, compile(t, build{release: current}), "-goroutines=100")
	target := open(t, p.pid())
	require.NoError(t, target.mem.UseFile())
	s, err := target.Snapshot(t.Context(), Spans|Goroutines|HeapProfile)
	require.NoError(t, err)
	assert.Equal(t, "/proc/PID/mem", s.How.Reads)
	assert.Empty(t, s.Unknown)
	checkClusters(t, s, 100)
	require.NoError(t, p.cmd.Process.Kill())
	p.cmd.Wait()
	_, err = target.Snapshot(t.Context(), 0)
	assert.ErrorIs(t, err, ErrGone)
}

// TestLeavesNoTrace reads a target five hundred times: it faults no page in.
func TestLeavesNoTrace(t *testing.T) {
	p := start(t, compile(t, build{release: current}), "-goroutines=1000", "-heap=64")
	target := open(t, p.pid())
	resident := func() int {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid()))
		require.NoError(t, err)
		n, err := strconv.Atoi(strings.Fields(string(b))[1])
		require.NoError(t, err)
		return n
	}
	_, err := target.Snapshot(t.Context(), Spans|Goroutines|HeapProfile)
	require.NoError(t, err)
	before := resident()
	faults := minorFaults(t, p.pid())
	for range 500 {
		_, err := target.Snapshot(t.Context(), Spans|Goroutines|HeapProfile)
		require.NoError(t, err)
	}
	assert.LessOrEqual(t, resident(), before, "pages") // its scavenger may give some back
	assert.InDelta(t, faults, minorFaults(t, p.pid()), 8, "the target's own background threads may have some")
}

// minorFaults is field 10 of proc_pid_stat(5).
func minorFaults(t *testing.T, pid int) float64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	var n float64
	var skip string
	_, err = fmt.Sscan(string(b[len(fmt.Sprint(pid))+1:]), &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &n)
	require.NoError(t, err)
	return n
}
