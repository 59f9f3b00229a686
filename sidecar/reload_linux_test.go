// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const reloadConfig = `targets: [{name: one, exe: /nowhere/one}]
auth:
  token_file: tokens
  open_reads: all
  rules:
    - {users: [alice], verbs: ["*"], resources: ["*"], namespaces: ["*"], names: ["*"]}
    - {users: [alice], verbs: [post], paths: [/-/reload]}
`

// configured starts a sidecar with a file, and says how to write that anew.
func configured(t *testing.T, text string) (r *running, write func(string)) {
	dir, err := os.MkdirTemp("", "memguard-config-*")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "sidecar.yaml")
	write = func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o644)) }
	write(text)
	tokens := fmt.Sprintf("sha256:%x alice\n", sha256.Sum256([]byte("secret")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tokens"), []byte(tokens), 0o644))
	return start(t, "--config", path), write
}

// send sends a request as alice, and returns the answer's status and text.
func (r *running) send(method, path, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	require.NoError(r.t, err)
	req.Header.Set("Authorization", "Bearer secret")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	return resp.StatusCode, string(b)
}

func (r *running) names() (names []string) {
	var list struct{ Items []struct{ Name string } }
	r.get("/runtimes", &list)
	for _, i := range list.Items {
		names = append(names, i.Name)
	}
	return names
}

// A file that turns bad changes nothing and is told of everywhere; one that is good
// again is taken, by signal and by request.
func TestReload(t *testing.T) {
	r, write := configured(t, reloadConfig)
	require.Equal(t, []string{"one"}, r.names())
	require.Eventually(t, func() bool { code, _ := r.send("GET", "/readyz", ""); return code == 200 }, 30*time.Second, 50*time.Millisecond)
	bad := func(says string) {
		t.Helper()
		code, text := r.send("GET", "/readyz", "")
		assert.Equal(t, 503, code)
		assert.Contains(t, text, "[-]config failed: ")
		assert.Contains(t, text, says)
		assert.Contains(t, string(r.text("/metrics")), "\nmemguard_config_last_reload_successful 0\n")
		assert.Equal(t, []string{"one"}, r.names(), "the old one stays in force")
	}

	write(reloadConfig + "tragets: []\n")
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool { code, _ := r.send("GET", "/readyz", ""); return code == 503 }, 30*time.Second, 50*time.Millisecond)
	bad("line 8: field tragets not found")
	for text, says := range map[string]string{
		strings.Replace(reloadConfig, "tokens", "nowhere", 1):   "token_file",
		strings.Replace(reloadConfig, "[post]", "[pots]", 1):    `verbs: "pots"`,
		reloadConfig + "writes: {enabled: true}\n":              "writes: changed; restart",
		reloadConfig + "webhooks: [{url: 'ftp://h/'}]\n":        "webhooks[0].url",
		strings.Replace(reloadConfig, "name: one", "pid: 1", 1): "name: is missing",
	} {
		write(text)
		code, answer := r.send("POST", "/-/reload", "")
		assert.Equal(t, 500, code, text)
		assert.Contains(t, answer, says)
		bad(says)
	}
	code, _ := r.send("GET", "/-/reload", "")
	assert.Equal(t, 405, code, "nothing acts on GET")
	resp, err := http.Post(r.url+"/-/reload", "", nil)
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, 401, resp.StatusCode)

	two := strings.Replace(reloadConfig, "exe: /nowhere/one}", "exe: /nowhere/one}, {name: two, exe: /nowhere/two}", 1)
	write(two)
	code, answer := r.send("POST", "/-/reload", "")
	require.Equal(t, 200, code, answer)
	assert.Equal(t, []string{"one", "two"}, r.names())
	assert.Contains(t, string(r.text("/metrics")), "\nmemguard_config_last_reload_successful 1\n")
	code, answer = r.send("GET", "/readyz", "")
	assert.Equal(t, 200, code, answer)
	write(reloadConfig)
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool { return len(r.names()) == 1 }, 30*time.Second, 50*time.Millisecond)
}

// Rules that allow orders are not enough: writes.enabled says whether there are any.
func TestWritesAreOff(t *testing.T) {
	const path = "/apis/memguard.dev/v1alpha1/namespaces/default/runtimes/one/gcpercent"
	const order = `{"to":50,"reason":"a test"}`
	for text, want := range map[string]struct {
		code int
		says string
	}{
		reloadConfig: {403, "writes.enabled"},
		reloadConfig + "writes: {enabled: true}\n": {409, "no process of it runs"},
	} {
		r, _ := configured(t, text)
		code, answer := r.send("PUT", path, order)
		assert.Equal(t, want.code, code, answer)
		assert.Contains(t, answer, want.says)
	}
}

// Of thousands of calls that are refused the log has few lines, and in them, when the
// sidecar has ended, all of them: also those that it answered while it ended.
func TestRefusalsAreOnRecord(t *testing.T) {
	r, _ := configured(t, reloadConfig)
	var recorded, flood, enough atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for {
				resp, err := http.Post(r.url+"/-/reload", "", nil)
				if err != nil {
					return // it has ended
				}
				resp.Body.Close()
				switch resp.StatusCode {
				case 401:
					recorded.Add(1)
				case 429:
					flood.Add(1)
				default:
					t.Errorf("answered %s", resp.Status)
				}
				if enough.Add(1) == 1000 {
					_ = r.cmd.Process.Signal(syscall.SIGTERM)
				}
			}
		})
	}
	callers.Wait()
	_, err := r.cmd.Process.Wait()
	require.NoError(t, err)
	log, err := os.ReadFile(filepath.Join(r.dir, "audit.log"))
	require.NoError(t, err)
	lines, sum := 0, 0
	for line := range strings.Lines(string(log)) {
		var e struct{ Annotations map[string]string }
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		if e.Annotations["authorization.k8s.io/decision"] != "forbid" {
			continue
		}
		lines++
		calls, err := strconv.Atoi(cmp.Or(e.Annotations["memguard.dev/denied-calls"], "1"))
		require.NoError(t, err)
		sum += calls
	}
	answered := int(recorded.Load() + flood.Load())
	assert.GreaterOrEqual(t, sum, answered)
	assert.LessOrEqual(t, sum, answered+8, "each caller had one that was cut off, at most")
	assert.Less(t, lines, int(recorded.Load())+10, "those refused too often are few lines, of which there is one a minute")
	assert.NotContains(t, r.logs.String(), "an audit record is lost")
}

// An end that is not to be held up is not.
func TestNoHold(t *testing.T) {
	service := build(t, "./testdata/crowd")
	r, _ := configured(t, fmt.Sprintf("targets: [{name: crowd, exe: %s}]\nexit_hold: 0s\n", service))
	r.asPod(exec.Command(service))
	var st struct {
		Sources []struct{ Name, State, Why string }
	}
	r.get("/runtimes/crowd", &st)
	i := slices.IndexFunc(st.Sources, func(s struct{ Name, State, Why string }) bool { return s.Name == "exit-hold" })
	require.GreaterOrEqual(t, i, 0)
	assert.Equal(t, "off", st.Sources[i].State)
	assert.Contains(t, st.Sources[i].Why, "configuration")
}
