// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// kept fills a store: an old clean exit, then an OOM kill.
func kept(t *testing.T) (dir string, ids []string) {
	dir = t.TempDir()
	s, err := incident.OpenStore(dir, incident.Limits{})
	require.NoError(t, err)
	defer s.Close()
	at := time.Date(2026, 11, 3, 3, 4, 5, 0, time.UTC)
	for i, exit := range []incident.Exit{{Known: true}, {Known: true, Code: 2}} {
		r, files := incident.New(&incident.Evidence{
			Target: "orders", Ended: at.Add(time.Duration(i) * time.Hour), Exit: exit, Process: target.Process{Identity: target.Identity{PID: 7 + i}, Go: "go1.26.8"},
			Stderr: []byte("panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/src/main.go:8 +0x1\n"),
		}, incident.Meta{})
		files = append(files, incident.File{Name: "heap.pb.gz", What: "a profile", Content: []byte("profile")})
		id, err := s.Add(r, files)
		require.NoError(t, err)
		ids = append(ids, id)
	}
	return dir, ids
}

func TestIncidentList(t *testing.T) {
	t.Parallel()
	dir, ids := kept(t)
	code, stdout, stderr := execute("", "incident", "list", "--store", dir)
	assert.Equal(t, exitFine, code, stderr)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	require.Len(t, lines, 2)
	assert.True(t, strings.HasPrefix(lines[0], ids[1]), "the newest first: %s", stdout)
	assert.Contains(t, lines[0], "go-panic")
	code, stdout, _ = execute("", "incident", "list", "--store", dir, "--json", "--fail-on", "warning")
	assert.Equal(t, exitFinding, code)
	var all []incident.Summary
	require.NoError(t, json.Unmarshal([]byte(stdout), &all))
	require.Len(t, all, 2)
	assert.Equal(t, ids[0], all[1].ID)
	code, stdout, _ = execute("", "incident", "list", "--store", t.TempDir())
	assert.Equal(t, exitFine, code)
	assert.Contains(t, stdout, "no incidents")
}

func TestIncidentShow(t *testing.T) {
	t.Parallel()
	dir, ids := kept(t)
	for _, test := range []struct {
		args []string
		says string
	}{
		{nil, "VERDICT\n  orders (pid 8) ended with a Go panic: boom, in main.main (main.go:8)"},
		{[]string{"latest"}, "pid 8"},
		{[]string{ids[0]}, "ended as it meant to"},
		{[]string{"--format", "markdown"}, "# orders: go-panic"},
		{[]string{"--format", "json"}, `"cause": "go-panic"`},
		{[]string{"--format", "html"}, `download="heap.pb.gz"`},
	} {
		code, stdout, stderr := execute("", append([]string{"incident", "show", "--store", dir}, test.args...)...)
		assert.Equal(t, exitFine, code, stderr)
		assert.Contains(t, stdout, test.says, "%q", test.args)
	}
	code, _, _ := execute("", "incident", "show", "--store", dir, "--fail-on", "warning")
	assert.Equal(t, exitFinding, code)
}

func TestIncidentOpen(t *testing.T) {
	t.Parallel()
	dir, ids := kept(t)
	page := filepath.Join(t.TempDir(), "page.html")
	code, stdout, stderr := execute("", "incident", "open", ids[0], "--store", dir, "-o", page)
	assert.Equal(t, exitFine, code, stderr)
	assert.Equal(t, page+"\n", stdout)
	b, err := os.ReadFile(page)
	require.NoError(t, err)
	assert.Contains(t, string(b), "<!doctype html>")
	st, err := os.Stat(page)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), st.Mode().Perm())

	code, stdout, stderr = execute("", "incident", "open", "--store", dir)
	assert.Equal(t, exitFine, code, stderr)
	path := strings.TrimSpace(stdout)
	defer os.Remove(path)
	assert.FileExists(t, path)
}

func TestIncidentStoreCannotLook(t *testing.T) {
	t.Parallel()
	dir, _ := kept(t)
	for _, test := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"list", "--store", filepath.Join(dir, "none")}, exitBlind, "no such file"},
		{[]string{"list", "more"}, exitUsage, "unknown command"},
		{[]string{"show", "--store", dir, "../../etc/passwd"}, exitBlind, "no such incident"},
		{[]string{"show", "--store", dir, "20261103T030405.000000000Z-other"}, exitBlind, "no such incident"},
		{[]string{"show", "--store", t.TempDir()}, exitBlind, "no incidents"},
		{[]string{"show", "--store", dir, "--format", "pdf"}, exitUsage, "want text, markdown, json or html"},
		{[]string{"show", "--store", dir, "a", "b"}, exitUsage, "accepts at most 1 arg"},
		{[]string{"open", "--store", dir, "-o", filepath.Join(dir, "no", "page.html")}, exitBlind, "no such file"},
	} {
		code, _, stderr := execute("", append([]string{"incident"}, test.args...)...)
		assert.Equal(t, test.code, code, "%q %s", test.args, stderr)
		assert.Contains(t, stderr, test.stderr, "%q", test.args)
	}
}

func TestDefaultStore(t *testing.T) {
	t.Parallel()
	env := map[string]string{}
	at := func() string { return defaultStore(func(k string) string { return env[k] }) }
	assert.Equal(t, "/var/lib/memguard/incidents", at())
	home := t.TempDir()
	env["XDG_STATE_HOME"] = home
	assert.Equal(t, "/var/lib/memguard/incidents", at(), "the user's is not there")
	require.NoError(t, os.MkdirAll(filepath.Join(home, "memguard", "incidents"), 0o700))
	assert.Equal(t, filepath.Join(home, "memguard", "incidents"), at())
	env[envStateDir] = "/state"
	assert.Equal(t, "/state/incidents", at(), "what the sidecar itself goes by")
}
