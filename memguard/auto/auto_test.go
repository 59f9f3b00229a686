// SPDX-License-Identifier: Apache-2.0

package auto

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain is also a service of one line: it logs as JSON from its first moment,
// and lives until its input ends.
func TestMain(m *testing.M) {
	if os.Getenv("MEMGUARD_TEST_SERVICE") == "" {
		os.Setenv("MEMGUARD", "off")
		os.Exit(m.Run())
	}
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stdout, nil)))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// service is a process that imports this package, with such an environment.
type service struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	out   bytes.Buffer
}

func start(t *testing.T, env ...string) *service {
	t.Helper()
	s := &service{t: t, cmd: exec.Command(os.Args[0])}
	s.cmd.Env = append(os.Environ(), append([]string{"MEMGUARD_TEST_SERVICE=1", "MEMGUARD=on", "XDG_RUNTIME_DIR="}, env...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	stdin, err := s.cmd.StdinPipe()
	require.NoError(t, err)
	s.stdin = stdin
	require.NoError(t, s.cmd.Start())
	t.Cleanup(func() { s.kill() })
	return s
}

// agent waits for the service's agent.
func (s *service) agent() *agent.Client {
	s.t.Helper()
	var c *agent.Client
	require.Eventually(s.t, func() (ok bool) {
		var err error
		c, err = agent.Dial(s.cmd.Process.Pid)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	return c
}

func (s *service) kill() string {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	return s.out.String()
}

// ends is what a service has logged when it ended by itself.
func (s *service) ends(after time.Duration) string {
	s.t.Helper()
	time.Sleep(after)
	require.NoError(s.t, s.stdin.Close())
	require.NoError(s.t, s.cmd.Wait(), s.out.String())
	return s.out.String()
}

func needLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("there is no agent on " + runtime.GOOS)
	}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "mg")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// The import alone guards a process; killed, it leaves a black box, and its
// successor logs that, in the format that main has set.
func TestOneLine(t *testing.T) {
	t.Parallel()
	needLinux(t)
	dir := filepath.Join(shortDir(t), "evidence")
	tmp := shortDir(t)
	first := start(t, "MEMGUARD_DIR="+dir, "TMPDIR="+tmp)
	c := first.agent()
	var status *agent.Status
	require.Eventually(t, func() bool {
		var err error
		status, err = c.Status(t.Context())
		return err == nil && status.Ticks > 0
	}, time.Minute, 10*time.Millisecond)
	require.NotNil(t, status.Hand)
	assert.False(t, status.Hand.DryRun)
	_, err := c.Do(t.Context(), memguard.Order{Action: memguard.CollectGarbage, Reason: "a test"})
	require.NoError(t, err)
	first.kill()
	st, err := os.Stat(dir)
	require.NoError(t, err)
	assert.EqualValues(t, 0o700, st.Mode().Perm())

	second := start(t, "MEMGUARD_DIR="+dir, "TMPDIR="+tmp)
	second.agent()
	require.Eventually(t, func() bool {
		c, err := agent.Dial(second.cmd.Process.Pid)
		if err != nil {
			return false
		}
		es, err := c.Events(t.Context(), 0, time.Second)
		if err != nil {
			return false
		}
		for _, e := range es {
			if e.Kind == memguard.Died {
				return true
			}
		}
		return false
	}, time.Minute, 10*time.Millisecond)
	out := second.ends(100 * time.Millisecond)
	assert.Contains(t, out, fmt.Sprintf("pid %d, died", first.cmd.Process.Pid))
	for line := range strings.Lines(out) {
		assert.True(t, strings.HasPrefix(line, `{"time"`), "as main has set: %s", line)
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	needLinux(t)
	tmp := shortDir(t)
	const begun = 3 * startAfter
	assert.Empty(t, start(t, "MEMGUARD=off", "TMPDIR="+tmp).ends(begun))
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	assert.Empty(t, left, "off is nothing at all")
	start(t, "MEMGUARD_AGENT=off", "TMPDIR="+tmp).ends(begun)
	left, err = os.ReadDir(tmp)
	require.NoError(t, err)
	assert.Empty(t, left)

	s := start(t, "MEMGUARD=dryrun", "MEMGUARD_AGENT=nein", "TMPDIR="+tmp)
	status, err := s.agent().Status(t.Context())
	require.NoError(t, err)
	assert.True(t, status.Hand.DryRun, "what is not understood changes nothing")
	out := s.ends(0)
	assert.Contains(t, out, `"value":"dryrun"`)
	assert.Contains(t, out, `"value":"nein"`)

	// A limit that the environment states is held where none smaller is enforced.
	s = start(t, "MEMGUARD_LIMIT=700MiB", "TMPDIR="+tmp)
	require.Eventually(t, func() bool {
		status, err = s.agent().Status(t.Context())
		return err == nil && status.Ticks > 0 && status.Hand.Wanted.MemoryLimit < 700<<20
	}, time.Minute, 10*time.Millisecond)
	s.ends(0)
	s = start(t, "MEMGUARD_LIMIT=700M", "TMPDIR="+tmp)
	s.agent()
	assert.Contains(t, s.ends(0), `size \"700M\": want bytes`)

	// What cannot be had is said, and the service lives.
	s = start(t, "MEMGUARD_DIR=/proc/nowhere", "TMPDIR=/proc/nowhere")
	out = s.ends(2 * time.Second)
	assert.Contains(t, out, "/proc/nowhere")
	assert.Contains(t, out, "no agent")
}

// The default logger may be set at any time, also under attributes.
func TestProcessLazy(t *testing.T) {
	old := slog.Default()
	defer slog.SetDefault(old)
	log := slog.New(lazy{})
	var first, second bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&first, nil)))
	log.Info("one")
	slog.SetDefault(slog.New(slog.NewJSONHandler(&second, &slog.HandlerOptions{Level: slog.LevelWarn})))
	log.Info("two")
	log.With("a", 1).WithGroup("g").Warn("three", "b", 2)
	assert.Contains(t, first.String(), "msg=one")
	assert.NotContains(t, first.String(), "two")
	assert.NotContains(t, second.String(), "two", "its level counts")
	assert.Contains(t, second.String(), `"msg":"three"`)
}

// init costs a timer.
func BenchmarkInit(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		time.AfterFunc(time.Hour, func() { begin(os.Getenv) }).Stop()
	}
}

// What begins a tenth of a second later, beside main.
func BenchmarkBegin(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		r := begin(func(key string) string { return map[string]string{"MEMGUARD": "dry-run", "MEMGUARD_AGENT": "off"}[key] })
		b.StopTimer()
		_ = r.guard.Close()
		b.StartTimer()
	}
}
