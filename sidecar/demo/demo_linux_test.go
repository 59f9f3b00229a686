// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// oneBurst is as long as steady load and a burst.
const oneBurst = 5 * time.Second

// orders builds the service once for all tests.
var orders = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "memguard-demo-test-")
	if err != nil {
		return "", err
	}
	return build(context.Background(), dir)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if exe, err := orders(); err == nil {
		_ = os.RemoveAll(filepath.Dir(exe))
	}
	os.Exit(code)
}

func built(t *testing.T) string {
	t.Helper()
	exe, err := orders()
	require.NoError(t, err)
	return exe
}

// config is one that logs.
func config(t *testing.T) Config {
	return Config{Say: func(line string) { t.Log(line) }, Show: func(Now) {}}
}

// kernelKills skips where no memory cgroup may be made.
func kernelKills(t *testing.T) {
	t.Helper()
	box, err := sandbox.New("probe", 64<<20)
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
	require.NoError(t, box.Close())
}

// Both lives through one burst, with real kills by the kernel: it kills the one,
// and not the other.
func TestTwoLives(t *testing.T) {
	kernelKills(t) // and not beside another test: the load is for a machine of two cores
	cfg := config(t)
	shown := map[bool]int{}
	cfg.Show = func(n Now) { shown[n.Guarded]++ }
	dir := t.TempDir()
	cfg.Keep = dir
	out, err := run(t.Context(), cfg, built(t), dir, newPlace, oneBurst)
	require.NoError(t, err)
	assert.Contains(t, out.Enforced, "kernel")
	assert.Positive(t, shown[false])
	assert.Positive(t, shown[true])

	u := out.Unguarded
	require.NotEmpty(t, u.Deaths)
	kills, ok := u.OOMKills.Get()
	require.True(t, ok)
	assert.EqualValues(t, len(u.Deaths), kills, "the kernel's own count")
	assert.True(t, u.Deaths[0].Killed, u.Deaths[0].Exit)
	assert.Positive(t, u.Deaths[0].InAir)
	assert.Positive(t, u.Failed)
	require.NotNil(t, u.Seen)
	assert.NotEmpty(t, u.Seen.Growth)
	assert.Less(t, u.Seen.Until, u.Deaths[0].Second)
	assert.Nil(t, u.Kept)

	g := out.Guarded
	require.NotNil(t, g)
	assert.Empty(t, g.Deaths)
	assert.Equal(t, memguard.Known[uint64](0), g.OOMKills)
	assert.Positive(t, g.Good)
	assert.Less(t, g.Failed, u.Failed, "what does not fit is refused, not lost")
	peak, ok := g.Peak.Get()
	require.True(t, ok)
	assert.LessOrEqual(t, peak, uint64(limit))
	share, ok := g.GCCPU.Get()
	require.True(t, ok)
	assert.Greater(t, share, 0.0)
	assert.Less(t, share, 1.0)
	_, ok = g.P99.Get()
	assert.True(t, ok)
	require.NotNil(t, g.Kept)
	assert.True(t, slices.ContainsFunc(g.Kept.Actions, func(a Action) bool { return a.Name == memguard.SetMemoryLimit }), "%+v", g.Kept.Actions)
	low, ok := g.Kept.Lowest.Get()
	require.True(t, ok)
	assert.Less(t, low, uint64(limit))
	kinds := map[string]int{}
	for _, f := range g.Kept.Files {
		kinds[f.Kind] = f.Count
	}
	assert.Equal(t, 1, kinds["black box"])
	assert.Positive(t, kinds["heap.pb.gz"])
	boxes, err := evidence.Boxes(dir)
	require.NoError(t, err)
	require.Len(t, boxes, 1, "it is kept")
	r, err := evidence.ReadBox(boxes[0])
	require.NoError(t, err)
	assert.Equal(t, evidence.Closed, r.State)

	text := told(t, out)
	assert.Contains(t, text, "killed by the kernel")
	assert.Contains(t, text, "✗")
	assert.Contains(t, text, "memguard incident "+dir)
	t.Log("\n" + text)
	b, err := json.Marshal(out)
	require.NoError(t, err)
	var again Outcome
	require.NoError(t, json.Unmarshal(b, &again))
	assert.Equal(t, g.Good, again.Guarded.Good)
}

// Stopping the demo in the middle ends the service and removes its cgroup.
func TestDemoLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var service string
	_, err := Run(ctx, Config{
		Service: built(t),
		Say: func(line string) {
			if _, rest, ok := strings.Cut(line, "the service is pid "); ok {
				service, _, _ = strings.Cut(rest, " ")
			}
		},
		Show: func(Now) { cancel() },
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

// Without a cgroup the demo watches the resident size and kills itself, and says so;
// the guard is told the limit.
func TestWatchedLimit(t *testing.T) {
	t.Parallel()
	low := func(uint64) (*place, error) { return watched(24<<20, sandbox.ErrUnsupported), nil }
	out, err := run(t.Context(), config(t), built(t), t.TempDir(), low, 2*time.Second)
	require.NoError(t, err)
	assert.Contains(t, out.Enforced, "watches the resident size")
	require.NotEmpty(t, out.Unguarded.Deaths)
	assert.True(t, out.Unguarded.Deaths[0].Killed, out.Unguarded.Deaths[0].Exit)
	_, counted := out.Unguarded.OOMKills.Get()
	assert.False(t, counted, "nobody counts where there is no cgroup")
	require.NotNil(t, out.Guarded)
	assert.Positive(t, out.Guarded.Good)
	assert.True(t, slices.ContainsFunc(out.Guarded.Kept.Actions, func(a Action) bool { return a.Name == memguard.SetMemoryLimit }), "%+v", out.Guarded.Kept.Actions)
	text := told(t, out)
	assert.Contains(t, text, "by this demo in the kernel's place")
}

func TestServiceThatDoesNotListen(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Service = "/bin/false"
	_, err := Run(t.Context(), cfg)
	require.ErrorContains(t, err, "ended before it listened")
	cfg.Service = "/does/not/exist"
	_, err = Run(t.Context(), cfg)
	require.ErrorContains(t, err, "/does/not/exist")
}
