// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// freePort is a port of this host that nothing listens at.
func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// daemon starts a program that runs until the test ends, and shows what it printed
// if the test fails.
func daemon(t *testing.T, start func(*exec.Cmd) error, name string, args ...string) *exec.Cmd {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	log, err := os.Create(path)
	require.NoError(t, err)
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr = log, log
	require.NoError(t, start(c))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Wait() // a signal ends it
	}()
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Errorf("%s does not end", name)
			_ = c.Process.Kill()
			<-done
		}
		log.Close()
		if t.Failed() {
			t.Logf("%s printed:\n%s", filepath.Base(name), read(t, path))
		}
	})
	return c
}

func started(c *exec.Cmd) error { return c.Start() }

// get asks for a page until it is there.
func get(t *testing.T, u string) string {
	t.Helper()
	var text string
	require.Eventually(t, func() bool {
		r, err := http.Get(u)
		if err != nil {
			return false
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		text = string(b)
		return err == nil && r.StatusCode == http.StatusOK
	}, time.Minute, 50*time.Millisecond, u)
	return text
}

// server is a Prometheus that runs.
type server struct{ at string }

// ask asks its API.
func (p server) ask(t *testing.T, path string, data any) {
	t.Helper()
	answer := struct {
		Status, Error string
		Warnings      []string
		Data          any
	}{Data: data}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+p.at+"/api/v1/"+path, nil)
	require.NoError(t, err)
	r, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer r.Body.Close()
	require.NoError(t, json.NewDecoder(r.Body).Decode(&answer), path)
	require.Equal(t, "success", answer.Status, "%s: %s", path, answer.Error)
	require.Empty(t, answer.Warnings, path)
}

type vector struct {
	Result []struct {
		Metric map[string]string
		Value  [2]any
	}
}

func (p server) query(t *testing.T, expr string) (v vector) {
	t.Helper()
	p.ask(t, "query?query="+url.QueryEscape(expr), &v)
	return v
}

type alert struct {
	Labels, Annotations map[string]string
	State               string
}

// firing is an alert that fires, by its name and a label.
func (p server) firing(t *testing.T, name string) (a alert) {
	t.Helper()
	require.Eventually(t, func() bool {
		var answer struct{ Alerts []alert }
		p.ask(t, "alerts", &answer)
		for _, one := range answer.Alerts {
			if one.Labels["alertname"] == name && one.State == "firing" {
				a = one
				return true
			}
		}
		return false
	}, 3*time.Minute, 100*time.Millisecond, name)
	return a
}

// A real service leaks into a real limit, a real sidecar sees it, and a real
// Prometheus with these rules raises the alarm before the kernel kills, and says
// afterwards that it did.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	prometheusPath := tool(t, "prometheus")
	box, err := sandbox.New("prometheus", 192<<20)
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, box.Close()) })
	dir := t.TempDir()
	leak := filepath.Join(dir, "orders")
	run(t, "", "go", "build", "-o", leak, "./testdata/leak")

	sidecar, prom := freePort(t), server{freePort(t)}
	state := filepath.Join(dir, "state")
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	daemon(t, started, memguardBinary(t), "sidecar", "--config", write("sidecar.yaml", fmt.Sprintf(`
state_dir: %s
targets:
  - name: orders
    exe: %s
  - name: nightly
    exe: %s-not-there
web:
  listen: %s
`, state, leak, leak, sidecar)))

	get(t, "http://"+sidecar+"/metrics")

	// The example's rules, at the pace of a test.
	rules, err := filepath.Abs("rules")
	require.NoError(t, err)
	example := strings.NewReplacer("15s", "500ms", "5s", "1s", "rules/", rules+"/", "localhost:9779", sidecar).Replace(read(t, "prometheus.yml"))
	daemon(t, started, prometheusPath, "--config.file="+write("prometheus.yml", example), "--storage.tsdb.path="+filepath.Join(dir, "tsdb"),
		"--web.listen-address="+prom.at, "--log.level=warn")
	get(t, "http://"+prom.at+"/-/ready")

	// Before anything runs: what is not known is not there.
	require.Eventually(t, func() bool { return len(prom.query(t, `memguard_target_up == 0`).Result) == 2 }, time.Minute, 100*time.Millisecond)
	assert.Empty(t, prom.query(t, `memguard_target_ledger_bytes`).Result)

	daemon(t, box.Start, leak, "-rate", "5") // forty seconds: time enough to be sure, on a busy machine too
	a := prom.firing(t, "MemguardOOMForecast")
	assert.Equal(t, "orders", a.Labels["target"])
	assert.Contains(t, []string{"warning", "critical"}, a.Labels["severity"])
	assert.Equal(t, "orders will run out of memory", a.Annotations["summary"])
	assert.Regexp(t, `^What cannot be freed grows towards the memory limit(, and is there in \d.*)?\. Take two`, a.Annotations["description"])
	kills, err := box.Kills()
	require.NoError(t, err)
	assert.Zero(t, kills, "the alarm comes before the kill")

	// While it lives: what each panel of the dashboard asks for is answered.
	empty := map[string]bool{}
	for where, expr := range dashboardExpressions(t) {
		empty[where] = len(prom.query(t, expr).Result) == 0
	}
	for _, where := range []string{
		"Targets that run A", "Worst finding A", "Fullest A", "Ends for lack of memory A", "Ledger of $target A", "Ledger of $target B",
		"Cgroup against the limit A", "Cgroup by kind A", "Headroom and time to limit A", "Findings A", "Sources A", "Age of the last look A",
		"Resident memory A", "CPU A", "Builds and configuration A", "variable target",
	} {
		missing, known := empty[where]
		assert.True(t, known, "%s: there is no such panel", where)
		assert.False(t, missing, "%s shows nothing", where)
	}
	assert.Len(t, prom.query(t, `memguard_target_cgroup_limit_bytes == 192 * 2^20`).Result, 1)
	assert.Len(t, prom.query(t, `abs(sum by (target) (memguard_target_ledger_bytes) - on (target) memguard_target_resident_memory_bytes) < 1`).Result, 1, "the rows add up")
	assert.Empty(t, prom.query(t, `{__name__=~"(go|process)_.*", target!=""}`).Result, "these are the sidecar's own")

	// A collection may hold the growth up for a moment, and the forecast with it.
	assert.NotEmpty(t, prom.query(t, `max_over_time(memguard_target_time_to_limit_seconds{target="orders"}[5m]) < 300`).Result)

	// The kernel kills.
	a = prom.firing(t, "MemguardOutOfMemory")
	assert.Equal(t, "orders", a.Labels["target"])
	assert.Equal(t, "critical", a.Labels["severity"])
	assert.Equal(t, "oom-kill", a.Labels["cause"])
	kills, err = box.Kills()
	require.NoError(t, err)
	assert.EqualValues(t, 1, kills)

	// Every rule was evaluated without an error, and every scrape was whole.
	var evaluated struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	prom.ask(t, "rules", &evaluated)
	n := 0
	for _, g := range evaluated.Groups {
		for _, r := range g.Rules {
			n++
			assert.Equal(t, "ok", r.Health, "%s: %s", r.Name, r.LastError)
		}
	}
	assert.Equal(t, len(readRules(t)), n)
	var targets struct {
		ActiveTargets []struct{ Health, LastError string }
	}
	prom.ask(t, "targets", &targets)
	require.Len(t, targets.ActiveTargets, 1)
	assert.Equal(t, "up", targets.ActiveTargets[0].Health, targets.ActiveTargets[0].LastError)
	assert.Empty(t, prom.query(t, `promhttp_metric_handler_errors_total{cause="gathering"} > 0`).Result)
	assert.Less(t, len(prom.query(t, `{job="memguard"}`).Result), 2*200, "two targets")
}
