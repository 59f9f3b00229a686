// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The program in the README is built and run: told to end, it puts everything back
// and closes its black box.
func TestReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	programs := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindAllSubmatch(readme, -1)
	require.Len(t, programs, 1)
	dir := t.TempDir()
	kept := filepath.Join(dir, "evidence")
	program := string(programs[0][1])
	for was, is := range map[string]string{`":8080"`: `"127.0.0.1:0"`, `"/var/lib/orders/memguard"`: strconv.Quote(kept)} {
		require.Equal(t, 1, strings.Count(program, was), was)
		program = strings.ReplaceAll(program, was, is)
	}
	file, exe := filepath.Join(dir, "main.go"), filepath.Join(dir, "readme")
	require.NoError(t, os.WriteFile(file, []byte(program), 0o600))
	formatted, err := format.Source([]byte(program))
	require.NoError(t, err)
	assert.Equal(t, string(formatted), program)
	out, err := exec.Command("go", "build", "-o", exe, file).CombinedOutput()
	require.NoError(t, err, "%s", out)

	if runtime.GOOS != "linux" {
		t.Skip("the black box is for linux; this is " + runtime.GOOS)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(exe)
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var boxes []string
	require.Eventually(t, func() bool {
		boxes, _ = evidence.Boxes(kept)
		return len(boxes) == 1
	}, time.Minute, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), "%s", &stderr)
	r, err := evidence.ReadBox(boxes[0])
	require.NoError(t, err)
	assert.Equal(t, evidence.Closed, r.State, "%s", &stderr)
}
