// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The service is built, run, asked, and found to be guarded.
func TestBasic(t *testing.T) {
	t.Parallel()
	exe := filepath.Join(t.TempDir(), "basic")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.Command(exe, "-addr", "127.0.0.1:0")
	tmp, err := os.MkdirTemp("", "mg") // a socket's name is short
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(tmp) })
	cmd.Env = append(os.Environ(), "MEMGUARD=on", "MEMGUARD_AGENT=on", "XDG_RUNTIME_DIR=", "TMPDIR="+tmp)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	require.True(t, ok, line)

	resp, err := http.Get("http://" + addr + "/hello?name=gopher")
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, "Hello, \"gopher\"!\n", string(b))
	resp, err = http.Get("http://" + addr + "/hello")
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, http.StatusBadRequest, resp.StatusCode)

	if runtime.GOOS != "windows" { // nothing can be told to end there
		defer func() {
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			require.NoError(t, cmd.Wait())
		}()
	}
	if runtime.GOOS != "linux" {
		t.Skip("there is no agent to ask on " + runtime.GOOS)
	}
	var status *agent.Status
	require.Eventually(t, func() bool {
		c, err := agent.Dial(cmd.Process.Pid)
		if err != nil {
			return false
		}
		defer c.Close()
		status, err = c.Status(t.Context())
		return err == nil && status.Ticks > 0
	}, time.Minute, 10*time.Millisecond)
	require.NotNil(t, status.Hand, "it acts")
	assert.Equal(t, exe, status.Exe)
}
