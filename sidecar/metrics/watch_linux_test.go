// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"net/http/httptest"
	"os/exec"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/memguard/memguard-go/sidecar/watch"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A real watcher beside a real process, which comes, is looked at while it is
// scraped, and ends.
func TestWatcher(t *testing.T) {
	defer leak.VerifyNone(t) // alone
	cmd := exec.Command("sleep", "600")
	require.NoError(t, cmd.Start())
	end := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	defer end()
	w, err := watch.New(watch.Config{
		Interval: 10 * time.Millisecond,
		Rules:    []target.Rule{{Name: "sleeper", PID: cmd.Process.Pid}, {Name: "nobody", Exe: "/no/such/program"}},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	c := NewCollector(Config{Targets: w.Targets})
	h, err := Handler(testLogger(t), c)
	require.NoError(t, err)
	ran, followed := make(chan error, 1), make(chan struct{})
	go func() { ran <- w.Run(ctx) }()
	go func() {
		defer close(followed)
		c.Follow(ctx, w.Events)
	}()
	defer func() {
		cancel()
		assert.NoError(t, <-ran)
		<-followed
	}()
	until := func(done func(got map[string]string) bool) (got map[string]string) {
		require.Eventually(t, func() bool {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
			got = series(rec.Body.String())
			return rec.Code == 200 && done(got)
		}, time.Minute, time.Millisecond)
		return got
	}
	got := until(func(got map[string]string) bool {
		_, ok := got[`memguard_target_findings{id="oom-kill",severity="critical",target="sleeper"}`]
		return ok
	})
	assert.Equal(t, "1", got[`memguard_target_up{target="sleeper"}`])
	assert.Equal(t, "0", got[`memguard_target_up{target="nobody"}`])
	assert.Equal(t, "1", got[`memguard_target_source_state{source="kernel",state="ok",target="sleeper"}`])
	assert.Contains(t, got, `memguard_target_resident_memory_bytes{target="sleeper"}`)
	assert.Contains(t, got, `memguard_target_start_time_seconds{target="sleeper"}`)
	for name := range got {
		assert.NotRegexp(t, "^memguard_target_(gc_|breaker|shed|actions).*sleeper", name, "it has no guard")
	}
	end()
	got = until(func(got map[string]string) bool { return got[`memguard_target_up{target="sleeper"}`] == "0" })
	assert.NotContains(t, got, `memguard_target_resident_memory_bytes{target="sleeper"}`, "what was is not what is")
	assert.Equal(t, "0", got["promhttp_metric_handler_errors_total{cause=\"gathering\"}"])
}
