// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// orders builds the service once for a test.
func orders(t *testing.T) string {
	t.Helper()
	exe, err := build(t.Context(), t.TempDir())
	require.NoError(t, err)
	return exe
}

// kernelKills skips where no memory cgroup may be created.
func kernelKills(t *testing.T) {
	t.Helper()
	box, err := sandbox.New("probe", 64<<20)
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
	require.NoError(t, box.Close())
}

// The whole demo with a real kill by the kernel.
func TestDemoTellsWhyItDied(t *testing.T) {
	t.Parallel()
	kernelKills(t)
	var points []Point
	out, err := Run(t.Context(), Config{
		Service: orders(t), Limit: 96 << 20,
		Say: func(line string) { t.Log(line) }, Show: func(p Point) { points = append(points, p) },
	})
	require.NoError(t, err)

	kills, ok := out.OOMKills.Get()
	require.True(t, ok)
	assert.EqualValues(t, 1, kills, "the kernel's own count")
	assert.True(t, out.Killed, out.Exit)
	assert.Contains(t, out.Enforced, "kernel")
	assert.Greater(t, out.Answered, uint64(100))
	assert.NotEmpty(t, points)

	require.NotEmpty(t, out.Growth)
	assert.Equal(t, memguard.RowLive, out.Growth[0].Row, "what leaks is live heap: %v", out.Growth)
	var said []memguard.ID
	for _, f := range out.Warned {
		said = append(said, f.ID)
		assert.Less(t, f.Second, out.Seconds)
	}
	assert.Contains(t, said, memguard.ID("oom-forecast"))
	assert.Contains(t, said, memguard.ID("limit-missing"))

	var story strings.Builder
	require.NoError(t, out.Tell(&story, memguard.Text{}))
	assert.Contains(t, story.String(), "the kernel killed it at its limit of 96 MiB: oom_kill 1")
	assert.Contains(t, story.String(), "✗")
	for line := range strings.Lines(story.String()) {
		assert.NotContains(t, line, "%!", "a format is wrong")
	}
	t.Log("\n" + story.String())
}

// Stopping the demo in the middle ends the service and removes its cgroup.
func TestDemoLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var service string
	_, err := Run(ctx, Config{
		Service: orders(t), Limit: 512 << 20,
		Say: func(line string) {
			if _, rest, ok := strings.Cut(line, "the service is pid "); ok {
				service, _, _ = strings.Cut(rest, " ")
			}
		},
		Show: func(Point) { cancel() },
	})
	require.ErrorIs(t, err, context.Canceled)
	require.NotEmpty(t, service)
	assert.NoDirExists(t, filepath.Join("/proc", service))
	for _, pattern := range []string{"/sys/fs/cgroup/memory/*/memguard-demo-*", "/sys/fs/cgroup/memguard-demo-*", "/sys/fs/cgroup/memory/memguard-demo-*"} {
		dirs, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, dir := range dirs { // another test's may be there, but no process of ours
			b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			assert.True(t, err != nil || !strings.Contains(string(b), service+"\n"), "%s holds %s", dir, service)
		}
	}
}

// Without a cgroup the demo watches RSS and kills itself, and says so.
func TestWatchedLimit(t *testing.T) {
	t.Parallel()
	v, err := startIn(t.Context(), orders(t), 24<<20, nil, sandbox.ErrUnsupported)
	require.NoError(t, err)
	defer v.Close()
	assert.Contains(t, v.enforced, "watches the resident size")
	out := &Outcome{Limit: 24 << 20, Enforced: v.enforced}
	require.NoError(t, drive(t.Context(), v, out, func(Point) {}))
	assert.True(t, out.Killed, out.Exit)
	_, counted := out.OOMKills.Get()
	assert.False(t, counted, "nobody counts where there is no cgroup")
	var story strings.Builder
	require.NoError(t, out.Tell(&story, memguard.Text{}))
	assert.Contains(t, story.String(), "killed by this demo in the kernel's place")
}

func TestServiceThatDoesNotListen(t *testing.T) {
	t.Parallel()
	_, err := Run(t.Context(), Config{Service: "/bin/false", Limit: 64 << 20, Say: func(string) {}, Show: func(Point) {}})
	require.ErrorContains(t, err, "ended before it listened")
	_, err = Run(t.Context(), Config{Service: "/does/not/exist", Limit: 64 << 20, Say: func(string) {}, Show: func(Point) {}})
	require.ErrorContains(t, err, "/does/not/exist")
}
