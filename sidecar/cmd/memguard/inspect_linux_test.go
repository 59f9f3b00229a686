// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stranger starts a Go service that is looked at from outside.
func stranger(t *testing.T) string {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("reading a runtime from outside is for amd64; this is " + runtime.GOARCH)
	}
	exe := filepath.Join(t.TempDir(), "orders")
	out, err := exec.Command("go", "build", "-o", exe, "github.com/memguard/memguard-go/examples/orders").CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.Command(exe, "-addr", "127.0.0.1:0")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "listening")
	return strconv.Itoa(cmd.Process.Pid)
}

// The runtime of a service that nobody changed is read by inspect, and fills the
// ledger of explain and ledger.
func TestSeenFromOutside(t *testing.T) {
	t.Parallel()
	pid := stranger(t)

	profile := filepath.Join(t.TempDir(), "g.pb.gz")
	code, stdout, stderr := execute("", "inspect", "--pid", pid, "--json", "--goroutines", profile)
	require.Equal(t, exitFine, code, stderr)
	var s struct {
		GoVersion   string `json:"go_version"`
		How, Heap   map[string]any
		GC          map[string]any
		Goroutines  struct{ Total int }
		SizeClasses []any `json:"size_classes"`
		Finalizers  map[string]any
		Unknown     []any
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &s))
	assert.Equal(t, runtime.Version(), s.GoVersion)
	assert.Positive(t, s.Goroutines.Total)
	assert.NotEmpty(t, s.SizeClasses)
	st, err := os.Stat(profile)
	require.NoError(t, err)
	assert.Positive(t, st.Size())

	code, stdout, stderr = execute("", "ledger", "--pid", pid, "--json")
	require.Equal(t, exitFine, code, stderr)
	var l struct {
		Rows []struct {
			Name  string
			Bytes *int64
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &l))
	known := map[string]bool{}
	for _, r := range l.Rows {
		known[r.Name] = r.Bytes != nil
	}
	for _, name := range []string{"go/heap/dead", "go/heap/unused", "go/heap/free", "go/stacks", "go/untouched"} {
		assert.True(t, known[name], "%s is not known: %s", name, stdout)
	}

	code, stdout, stderr = execute("", "explain", "--pid", pid, "--for", "0", "--fail-on", "never")
	require.Equal(t, exitFine, code, stderr)
	assert.NotContains(t, stdout, "found from outside", "the verdict is of one who saw the runtime")

	code, _, stderr = execute("", "inspect", "--pid", sleeper(t))
	assert.Equal(t, exitBlind, code)
	assert.Contains(t, strings.ToLower(stderr), "go")
}
