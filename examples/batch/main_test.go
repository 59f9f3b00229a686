// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBatch(t *testing.T) {
	t.Parallel()
	limiter := shed.New(shed.Config{})
	guard := memguard.Start(memguard.Config{Shed: limiter})
	defer guard.Close()
	var out bytes.Buffer
	err := run(t.Context(), limiter, strings.NewReader(strings.Repeat("1\n", 20)+"much\n-1\n"), &out)
	require.ErrorContains(t, err, `line 21: "much": want 0 to 1024 mebibytes`)
	require.ErrorContains(t, err, `line 22: "-1"`)
	assert.Equal(t, 20, strings.Count(out.String(), "bytes from 1048564"), out.String())
}

// With the memory full jobs wait, and are done when there is room.
func TestBatchWaits(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	limiter := shed.New(shed.Config{})
	limiter.Update(shed.Memory{Limit: 64 * mib, Usage: 64 * mib, Must: 50 * mib})
	time.AfterFunc(200*time.Millisecond, func() {
		limiter.Update(shed.Memory{Limit: 64 * mib, Usage: 20 * mib, Must: 10 * mib})
	})
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), limiter, strings.NewReader(strings.Repeat("1\n", 10)), &out))
	assert.Equal(t, 10, strings.Count(out.String(), "\n"))
	s := limiter.Snapshot()
	assert.EqualValues(t, 1, s.Braked)

	limiter.Update(shed.Memory{Limit: 64 * mib, Usage: 64 * mib, Must: 50 * mib})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := run(ctx, limiter, strings.NewReader("1\n"), &out)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// Told to end it does not wait for a next line.
func TestBatchEnds(t *testing.T) {
	t.Parallel()
	in, lines := io.Pipe()
	defer lines.Close()
	results, out := io.Pipe()
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, shed.New(shed.Config{}), in, out) }()
	_, err := io.WriteString(lines, "1\n")
	require.NoError(t, err)
	said, err := bufio.NewReader(results).ReadString('\n')
	require.NoError(t, err)
	assert.Contains(t, said, "line 1: ")
	end()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// The program is built and run: it does the jobs of its standard input, says which
// it cannot do, and fails for those.
func TestProgram(t *testing.T) {
	t.Parallel()
	exe := filepath.Join(t.TempDir(), "batch")
	built, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	require.NoError(t, err, "%s", built)
	for _, c := range []struct {
		in, says string
		done     int
	}{
		{strings.Repeat("2\n", 12), "", 12},
		{"1\nmuch\n1\n", `line 2: "much": want 0 to 1024 mebibytes` + "\n", 2},
		{"", "", 0},
	} {
		var out, errs bytes.Buffer
		cmd := exec.Command(exe)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.in), &out, &errs
		err := cmd.Run()
		assert.Equal(t, c.says, errs.String())
		assert.Len(t, regexp.MustCompile(`(?m)^line \d+: \d+ bytes from \d+, after \d+ tries$`).FindAllString(out.String(), -1), c.done, out.String())
		if c.says == "" {
			assert.NoError(t, err)
			continue
		}
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		assert.Equal(t, 1, exit.ExitCode())
	}

	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be told to end on windows")
	}
	cmd := exec.Command(exe)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	_, err = io.WriteString(in, "1\n")
	require.NoError(t, err)
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	assert.Equal(t, 1, exit.ExitCode(), "it says that it was not done, and is not killed")
}
