// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
