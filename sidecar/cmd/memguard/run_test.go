// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// execute runs the program as main does.
func execute(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// sleeper starts a process that is not a Go program.
func sleeper(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return strconv.Itoa(cmd.Process.Pid)
}

func needLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the kernel's process files are Linux's; this is " + runtime.GOOS)
	}
}

const goodLine = "gc 1 @0.010s 2%: 0.010+0.50+0.003 ms clock, 0.020+0.10/0.40/0.20+0.006 ms cpu, 4->4->1 MB, 5 MB goal, 0 MB stacks, 0 MB globals, 2 P\n"

func TestExitStatus(t *testing.T) {
	t.Parallel()
	needLinux(t)
	offLine := strings.ReplaceAll(goodLine, "5 MB goal", "8532210231537 MB goal")
	for _, test := range []struct {
		name   string
		stdin  string
		args   []string
		code   int
		stderr string // one clear sentence
	}{
		{"help", "", []string{"help"}, exitFine, ""},
		{"no command prints help", "", nil, exitFine, ""},
		{"unknown command", "", []string{"explian"}, exitUsage, `unknown command "explian"`},
		{"unknown flag", "", []string{"ledger", "--pdi", "1"}, exitUsage, "unknown flag: --pdi"},
		{"no pid", "", []string{"explain"}, exitUsage, `required flag(s) "pid" not set`},
		{"pid is no number", "", []string{"explain", "--pid", "orders"}, exitUsage, `invalid argument "orders"`},
		{"argument too many", "", []string{"explain", "--pid", "1", "2"}, exitUsage, `unknown command "2"`},
		{"bad severity", "", []string{"gctrace", "--fail-on", "bad"}, exitUsage, "want info, warning, critical or never"},
		{"negative time", "", []string{"explain", "--pid", "1", "--for", "-1s"}, exitUsage, "--for -1s"},
		{"watch without pause", "", []string{"ledger", "--pid", "1", "--watch", "--every", "0"}, exitUsage, "want a time above zero"},
		{"demo of what", "", []string{"demo", "this"}, exitUsage, `"this"`},
		{"pid 0", "", []string{"ledger", "--pid", "0"}, exitUsage, "want a process id"},
		{"negative pid", "", []string{"ledger", "--pid", "-3"}, exitUsage, "want a process id"},
		{"unknown shell", "", []string{"completion", "tcsh"}, exitUsage, `"tcsh"`},
		{"version", "", []string{"--version"}, exitFine, ""},
		{"no such process", "", []string{"explain", "--pid", "4194999"}, exitBlind, "pid 4194999: no such process"},
		{"no such file", "", []string{"gctrace", "/does/not/exist"}, exitBlind, "open /does/not/exist"},
		{"a directory", "", []string{"gctrace", "/"}, exitBlind, "is a directory"},
		{"nothing to read", "", []string{"gctrace"}, exitBlind, "standard input is empty"},
		{"healthy", goodLine, []string{"gctrace", "-"}, exitFine, ""},
		{"finding below", offLine, []string{"gctrace", "--fail-on", "never"}, exitFine, ""},
		{"finding", offLine, []string{"gctrace", "--fail-on", "info"}, exitFinding, ""},
		{"garbage is no failure", "not a trace\n\x00\xff\n", []string{"gctrace"}, exitFine, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := execute(test.stdin, test.args...)
			assert.Equal(t, test.code, code, "%s%s", stdout, stderr)
			if test.stderr == "" {
				assert.Empty(t, stderr)
				assert.NotEmpty(t, stdout)
				return
			}
			assert.Contains(t, stderr, test.stderr)
			assert.True(t, strings.HasPrefix(stderr, "memguard: "), stderr)
			assert.NotContains(t, stderr, "memguard: memguard:")
		})
	}
}

func TestKernelThread(t *testing.T) {
	t.Parallel()
	needLinux(t)
	if _, err := os.Stat("/proc/2"); err != nil {
		t.Skip("no kernel thread can be seen here: ", err)
	}
	code, _, stderr := execute("", "explain", "--pid", "2", "--for", "0")
	assert.Equal(t, exitBlind, code)
	assert.Contains(t, stderr, "pid 2")
}

// The keys that scripts rely on.
func TestJSON(t *testing.T) {
	t.Parallel()
	needLinux(t)
	type rows = []struct {
		Name  string
		Bytes *int64
		Why   string
	}
	type ledger struct {
		PID      int
		RSS      *uint64
		Rows     rows
		Residual *int64
		Cgroup   *struct {
			Rows     rows
			Residual *int64
			Usage    *uint64
		}
	}
	check := func(l ledger, pid string) {
		t.Helper()
		require.Equal(t, pid, strconv.Itoa(l.PID))
		require.NotNil(t, l.RSS)
		require.NotNil(t, l.Residual)
		sum := *l.Residual
		for _, r := range l.Rows {
			if r.Bytes == nil {
				assert.NotEmpty(t, r.Why, "%s is unknown without a reason", r.Name)
				continue
			}
			sum += *r.Bytes
		}
		assert.EqualValues(t, *l.RSS, sum)
	}
	for _, pid := range []string{strconv.Itoa(os.Getpid()), sleeper(t)} {
		code, stdout, stderr := execute("", "ledger", "--pid", pid, "--json")
		require.Equal(t, exitFine, code, stderr)
		var l ledger
		require.NoError(t, json.Unmarshal([]byte(stdout), &l))
		check(l, pid)

		code, stdout, stderr = execute("", "explain", "--pid", pid, "--json", "--for", "0", "--fail-on", "never")
		require.Equal(t, exitFine, code, stderr)
		var e struct {
			Verdict  string
			Findings []struct{ ID, Severity, Summary, Remedy string }
			Ledger   ledger
			Blind    []struct{ What, Why string }
		}
		require.NoError(t, json.Unmarshal([]byte(stdout), &e))
		assert.NotEmpty(t, e.Verdict)
		assert.NotNil(t, e.Findings, "an empty list, not null")
		assert.NotNil(t, e.Blind)
		check(e.Ledger, pid)
	}

	code, stdout, stderr := execute(goodLine+"torn gc\ngc 2 @0.02\n", "gctrace", "--json")
	require.Equal(t, exitFine, code, stderr)
	var g map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &g))
	for key, want := range map[string]float64{"cycles": 1, "forced": 0, "scavenges": 0, "skipped_lines": 1, "syntax_errors": 1} {
		assert.Equal(t, want, g[key], key)
	}
	assert.Contains(t, g, "findings")
}

// Watching ends by itself when the process does.
func TestWatchEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	needLinux(t)
	for _, command := range []string{"ledger", "explain"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("sleep", "1")
			require.NoError(t, cmd.Start())
			go cmd.Wait()
			code, stdout, _ := execute("", command, "--pid", strconv.Itoa(cmd.Process.Pid), "--watch", "--every", "100ms", "--json")
			assert.Equal(t, exitFine, code)
			lines := strings.Split(strings.TrimSpace(stdout), "\n")
			assert.Greater(t, len(lines), 1, "a line for each look")
			for _, line := range lines {
				assert.True(t, json.Valid([]byte(line)), line)
			}
		})
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, stdout, _ := execute("", "completion", shell)
		assert.Equal(t, exitFine, code)
		assert.Contains(t, stdout, "memguard")
	}
	code, stdout, _ := execute("", "__complete", "explain", "--fail-on", "")
	assert.Equal(t, exitFine, code)
	assert.Contains(t, stdout, "warning")
	if runtime.GOOS == "linux" {
		_, stdout, _ = execute("", "__complete", "explain", "--pid", "")
		assert.Contains(t, stdout, sleeperName(t, stdout))
	}
}

// sleeperName is the name of some process that can be seen.
func sleeperName(t *testing.T, completions string) string {
	t.Helper()
	_, rest, ok := strings.Cut(completions, "\t")
	require.True(t, ok, completions)
	name, _, _ := strings.Cut(rest, "\n")
	return name
}

// Every command explains itself, with an example that names it.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"explain", "ledger", "inspect", "leak", "gctrace", "trace", "demo"} {
		code, stdout, _ := execute("", command, "--help")
		assert.Equal(t, exitFine, code)
		assert.Contains(t, stdout, "memguard "+command)
		assert.Contains(t, stdout, "--json")
		for line := range strings.Lines(stdout) {
			assert.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\n"))), 140, line)
		}
	}
}

// A real interrupt in the middle of the demo leaves no process and no cgroup.
func TestProcessDemoInterrupted(t *testing.T) {
	needLinux(t)
	exe := filepath.Join(t.TempDir(), "memguard")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	var stderr lockedBuffer
	cmd := exec.Command(exe, "demo")
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return strings.Contains(stderr.String(), "orders come in") }, time.Minute, 50*time.Millisecond, stderr.String())
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	err = cmd.Wait()
	assert.Equal(t, exitBlind, cmd.ProcessState.ExitCode(), "%v %s", err, stderr.String())
	assert.Contains(t, stderr.String(), "interrupted")
	_, rest, _ := strings.Cut(stderr.String(), "the service is pid ")
	service, _, _ := strings.Cut(rest, " ")
	assert.NoDirExists(t, "/proc/"+service)
	left, err := exec.Command("find", "/sys/fs/cgroup", "-maxdepth", "5", "-name", "memguard-demo-"+strconv.Itoa(cmd.Process.Pid)+"-*").Output()
	require.NoError(t, err)
	assert.Empty(t, string(left))
}

// lockedBuffer may be read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
