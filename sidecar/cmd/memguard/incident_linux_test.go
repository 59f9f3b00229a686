// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The test binary runs itself again as a service that dies with its box open.
const boxEnv = "MEMGUARD_TEST_INCIDENT"

func init() {
	dir := os.Getenv(boxEnv)
	if dir == "" {
		return
	}
	b, err := evidence.OpenBox(evidence.BoxConfig{Dir: dir, Service: "orders", Bytes: 64 << 10})
	if err == nil {
		err = b.Record(time.Now(), 1, []byte("last words"))
	}
	if err != nil {
		panic(err)
	}
	os.Exit(3)
}

func deadService(t *testing.T, dir string) {
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), boxEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 3, exit.ExitCode(), "%s", out)
}

func TestIncident(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ended, err := evidence.OpenBox(evidence.BoxConfig{Dir: dir, Service: "orders", Bytes: 64 << 10})
	require.NoError(t, err)
	require.NoError(t, ended.Close())
	code, stdout, stderr := execute("", "incident", dir, "--fail-on", "info")
	assert.Equal(t, exitFine, code, stderr)
	assert.Contains(t, stdout, "ended as it meant to")

	deadService(t, dir)
	live, err := evidence.OpenBox(evidence.BoxConfig{Dir: dir, Service: "orders", Bytes: 64 << 10})
	require.NoError(t, err)
	defer live.Close()
	code, stdout, stderr = execute("", "incident", dir)
	assert.Equal(t, exitFine, code, "only a warning: %s", stderr)
	assert.Contains(t, stdout, "orders (pid ")
	assert.Contains(t, stdout, "died")
	code, _, _ = execute("", "incident", dir, "--fail-on", "warning")
	assert.Equal(t, exitFinding, code)

	code, stdout, _ = execute("", "incident", live.Path(), "--json", "--fail-on", "info")
	assert.Equal(t, exitFine, code)
	var one struct {
		Cause, Verdict, Service string
		PID                     int
		Moments, Notes          []any
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &one), stdout)
	assert.Equal(t, "running", one.Cause)
	assert.Equal(t, os.Getpid(), one.PID)

	require.NoError(t, os.WriteFile(strings.Replace(live.Path(), "-orders", "-broken", 1), []byte("half"), 0o600))
	code, stdout, stderr = execute("", "incident", dir, "--list")
	assert.Equal(t, exitFine, code)
	assert.Contains(t, stderr, "not a black box")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	require.Len(t, lines, 3, stdout)
	for i, want := range []string{"running", "other-death", "clean-exit"} {
		assert.Contains(t, lines[i], want)
	}
	code, stdout, _ = execute("", "incident", dir, "--list", "--json", "--fail-on", "warning")
	assert.Equal(t, exitFinding, code)
	var many []any
	require.NoError(t, json.Unmarshal([]byte(stdout), &many))
	assert.Len(t, many, 3)
}

func TestIncidentCannotLook(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "notes")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	for _, test := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"incident"}, exitUsage, "accepts 1 arg"},
		{[]string{"incident", dir, "--last", "0"}, exitUsage, "want a time above zero"},
		{[]string{"incident", dir}, exitBlind, "no black box"},
		{[]string{"incident", file}, exitBlind, "not a black box"},
		{[]string{"incident", filepath.Join(dir, "none")}, exitBlind, "no such file"},
		{[]string{"incident", dir, "--cgroup", file}, exitBlind, file},
	} {
		code, _, stderr := execute("", test.args...)
		assert.Equal(t, test.code, code, "%q %s", test.args, stderr)
		assert.Contains(t, stderr, test.stderr, "%q", test.args)
		assert.Equal(t, 1, strings.Count(stderr, "memguard: "), stderr)
	}
}

func TestIncidentAsksTheKernel(t *testing.T) {
	t.Parallel()
	group, err := sandbox.New("incident", 64<<20)
	if errors.Is(err, sandbox.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer group.Close()
	dir := t.TempDir()
	deadService(t, dir)
	code, stdout, stderr := execute("", "incident", dir, "--cgroup", group.Dir(), "--json")
	require.Equal(t, exitFine, code, stderr)
	d := json.NewDecoder(bytes.NewReader([]byte(stdout)))
	d.UseNumber()
	var i map[string]any
	require.NoError(t, d.Decode(&i))
	assert.Equal(t, json.Number("0"), i["oom_kills_after"])
	assert.Nil(t, i["oom_kills_before"], "the box does not say")
}
