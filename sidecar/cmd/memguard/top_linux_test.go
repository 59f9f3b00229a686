// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// guarded starts a service that serves an agent.
func guarded(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "basic")
	out, err := exec.Command("go", "build", "-o", exe, "github.com/memguard/memguard-go/examples/basic").CombinedOutput()
	require.NoError(t, err, "%s", out)
	tmp, err := os.MkdirTemp("/tmp", "mg")
	require.NoError(t, err)
	cmd := exec.Command(exe, "-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "MEMGUARD=on", "MEMGUARD_AGENT=on", "XDG_RUNTIME_DIR=", "TMPDIR="+tmp)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		os.RemoveAll(tmp)
	})
	require.Eventually(t, func() bool {
		c, err := agent.Dial(cmd.Process.Pid)
		if err != nil {
			return false
		}
		defer c.Close()
		st, err := c.Status(t.Context())
		return err == nil && st.Ticks > 0
	}, time.Minute, 10*time.Millisecond)
	return strconv.Itoa(cmd.Process.Pid)
}

// Where a service serves an agent, its own guard tells; else the process is read
// from outside; else there is what the kernel knows. The output says which.
func TestWhoseEye(t *testing.T) {
	t.Parallel()
	type seen struct {
		Eye      string
		PID      int
		Findings []any
		Ledger   json.RawMessage
		Hand     *struct{}
		Rows     []struct {
			Name  string
			Bytes *int64
		}
	}
	for _, test := range []struct{ eye, pid string }{
		{"agent", guarded(t)}, {"attach", stranger(t)}, {"kernel", sleeper(t)},
	} {
		t.Run(test.eye, func(t *testing.T) {
			t.Parallel()
			for _, args := range [][]string{
				{"explain", "--for", "0", "--fail-on", "never"}, {"ledger"}, {"top", "--once", "--fail-on", "never"},
			} {
				args = append(args, "--pid", test.pid)
				code, stdout, stderr := execute("", args...)
				require.Equal(t, exitFine, code, stderr)
				assert.Empty(t, stderr)
				assert.Contains(t, stdout, test.eye)
				assert.Contains(t, stdout, "WHERE THE PROCESS'S MEMORY IS")

				code, stdout, stderr = execute("", append(args, "--json")...)
				require.Equal(t, exitFine, code, stderr)
				var got seen
				require.NoError(t, json.Unmarshal([]byte(stdout), &got), stdout)
				assert.Equal(t, test.eye, got.Eye)
				assert.Equal(t, test.pid, strconv.Itoa(got.PID))
				if args[0] == "top" {
					assert.Equal(t, test.eye == "agent", got.Hand != nil, "only the service's own guard acts")
				}
			}
		})
	}
}

// Top goes on until the process ends, with a line for each look and each event.
func TestTop(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "1")
	require.NoError(t, cmd.Start())
	go cmd.Wait()
	pid := strconv.Itoa(cmd.Process.Pid)
	code, stdout, stderr := execute("", "top", "--pid", pid, "--interval", "100ms")
	assert.Equal(t, exitFine, code, stderr)
	looks := 0
	for line := range strings.Lines(stdout) {
		assert.Contains(t, line, " pid="+pid+" ")
		if strings.Contains(line, " eye=kernel rss_bytes=") {
			looks++
		}
	}
	assert.Greater(t, looks, 1)
	assert.Contains(t, stdout, "not a Go program", "events are lines of their own")

	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"top"}, exitUsage, "pid"},
		{[]string{"top", "--pid", "1", "--interval", "0"}, exitUsage, "above zero"},
		{[]string{"top", "--pid", "4194999", "--once"}, exitBlind, "no such process"},
	} {
		code, _, stderr := execute("", test.args...)
		assert.Equal(t, test.code, code)
		assert.Contains(t, stderr, test.says)
	}
	code, stdout, _ = execute("", "top", "--help")
	assert.Equal(t, exitFine, code)
	assert.Contains(t, stdout, "memguard top")
}

// What another process says is text for a terminal, and fits it.
func TestTopPage(t *testing.T) {
	t.Parallel()
	evil := "x\x1b[2J\n\u202e" + strings.Repeat("y", 300)
	var s memguard.Sample
	s.Process.RSS, s.Process.Shared = memguard.Known[uint64](5<<20), memguard.Known[uint64](1<<20)
	v := view{Eye: eyeAgent, Status: &agent.Status{
		PID: 7, Exe: "/bin/" + evil, Go: evil, Left: memguard.Known(90.0), Ledger: memguard.NewLedger(&s),
		Findings: []memguard.Finding{{ID: memguard.ID(evil), Severity: memguard.Critical, Summary: evil}},
		Hand: &agent.Hand{
			DryRun: true, Breaker: "open", Clamps: 3, Baseline: agent.Setting{GCPercent: -1, MemoryLimit: 1<<63 - 1},
			Wanted: agent.Setting{GCPercent: 50, MemoryLimit: 200 << 20}, Grade: evil, Spiral: true,
			Shed: &agent.Shed{Limited: true, Braking: true, Held: 1 << 20, Budget: 2 << 20, Routes: []agent.Route{{Route: evil, InFlight: 4, Refused: 5}}},
		},
	}}
	for _, kind := range []memguard.EventKind{
		memguard.Raised, memguard.Cleared, memguard.Planned, memguard.Applied, memguard.Undone, memguard.Clamped,
		memguard.Lost, memguard.Saved, memguard.Died, memguard.Ended, memguard.EventKind(evil),
	} {
		v.New = append(v.New, memguard.Event{
			Kind: kind, Finding: memguard.Finding{ID: memguard.ID(evil), Summary: evil}, Path: evil, Why: evil, Blind: memguard.Blind{What: evil, Why: evil},
			Action: memguard.Action{Name: memguard.SetGCPercent, From: -1, To: 50, Reason: evil},
		})
	}
	v.recent = v.New
	v.looks = looks{
		Clusters:  []attach.Cluster{{Count: 42, State: "waiting", Reason: evil, Start: evil, Stack: []attach.Frame{{Func: "runtime.gopark"}, {Func: "main.wait"}}, CreatedBy: attach.Frame{Func: "main.begin"}}},
		Classes:   []attach.SizeClass{{Size: 48, Objects: 1000, Bytes: 3 << 20, Free: 1 << 20}, {Bytes: 1 << 20}},
		Incidents: []incident.Summary{{Verdict: "orders was killed " + evil}},
	}
	var page, lines bytes.Buffer
	require.NoError(t, v.page(&page, 80, false))
	require.NoError(t, v.lines(&lines))
	assert.Equal(t, 1+len(v.New), strings.Count(lines.String(), "\n"))
	for _, text := range []string{page.String(), lines.String()} {
		assert.NotContains(t, text, "\x1b")
		assert.NotContains(t, text, "\u202e")
	}
	for line := range strings.Lines(page.String()) {
		assert.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\n"))), 80, line)
	}
	for _, part := range []string{
		"Time left: 1m30s", "dry run", "GC percent 50 (own: off)", "limiter: 4 in flight hold 1.0 MiB, 0 wait, 5 refused", "gc-percent off -> 50",
		"main.wait, created in main.begin", "48 B        1000 objects     3.0 MiB in spans, 1.0 MiB of it free", "large", "orders was killed ",
		"collecting harder helps no longer", "breaker open; its GC percent was not given 3 times",
	} {
		assert.Contains(t, page.String(), part)
	}
}
