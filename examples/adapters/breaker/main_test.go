// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The program follows its breaker through a failure of what it asks.
func TestBreaker(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("a guard paces on linux; this is " + runtime.GOOS)
	}
	var broken atomic.Bool
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, "a quote")
	}))
	defer upstream.Close()

	exe := filepath.Join(t.TempDir(), "breaker")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	var stderr bytes.Buffer
	cmd := exec.Command(exe, "-addr", "127.0.0.1:0", "-upstream", upstream.URL, "-wait", "5s")
	cmd.Env = append(os.Environ(), "GOGC=90") // not one of the table's
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	said, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	addr, ok := strings.CutPrefix(strings.TrimSpace(said), "listening on ")
	require.True(t, ok, said)

	get := func(path string) (int, []byte) {
		t.Helper()
		resp, err := http.Get("http://" + addr + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, body
	}
	becomes := func(state string, percent int) {
		t.Helper()
		var now coupling
		require.Eventually(t, func() bool {
			_, body := get("/debug/breaker")
			// Up the percent goes when two seconds have wanted it.
			return json.Unmarshal(body, &now) == nil && now.State == state && now.GCPercent == percent
		}, 30*time.Second, 10*time.Millisecond, "%s, %d", state, percent)
		assert.NotEmpty(t, now.Reason)
	}
	becomes("closed", 100)
	code, body := get("/quote")
	assert.Equal(t, http.StatusOK, code)
	assert.Equal(t, "a quote", string(body))

	broken.Store(true)
	for range 3 {
		code, _ = get("/quote")
		assert.Equal(t, http.StatusBadGateway, code)
	}
	code, _ = get("/quote")
	assert.Equal(t, http.StatusServiceUnavailable, code, "the breaker is open")
	becomes("open", 200)
	becomes("half-open", 50)
	broken.Store(false)
	code, _ = get("/quote")
	assert.Equal(t, http.StatusOK, code, "the probe")
	becomes("closed", 100)

	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), stderr.String())
}
