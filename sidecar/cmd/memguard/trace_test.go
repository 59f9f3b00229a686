// SPDX-License-Identifier: Apache-2.0

package main

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recorded unpacks a real trace.
func recorded(t *testing.T) string {
	t.Helper()
	f, err := os.Open("../../../pacer/exectrace/testdata/go1.26.8.trace.gz")
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	b, err := io.ReadAll(z)
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "app.trace")
	require.NoError(t, os.WriteFile(name, b, 0o600))
	return name
}

func TestTrace(t *testing.T) {
	t.Parallel()
	name := recorded(t)
	code, stdout, stderr := execute("", "trace", name, "--fail-on", "never")
	assert.Equal(t, exitFine, code, stderr)
	assert.Contains(t, stdout, "The world stopped")

	code, stdout, stderr = execute("", "trace", name, "--json")
	assert.Equal(t, exitFinding, code, "the recorded program overshoots its goal: %s", stderr)
	var r struct {
		Findings []struct{ ID, Severity string }
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &r))
	assert.NotEmpty(t, r.Findings)

	page := filepath.Join(t.TempDir(), "story.html")
	code, stdout, stderr = execute("", "trace", name, "--html", page, "--fail-on", "never")
	assert.Equal(t, exitFine, code, stderr)
	assert.Contains(t, stdout, "story.html: ", "the verdict alone")
	assert.NotContains(t, stdout, "The world stopped")
	b, err := os.ReadFile(page)
	require.NoError(t, err)
	assert.Contains(t, string(b), "</html>")
	left, err := os.ReadDir(filepath.Dir(page))
	require.NoError(t, err)
	assert.Len(t, left, 1, "no temporary file is left")

	code, _, stderr = execute("", "trace", name, "--html", "/does/not/exist/story.html")
	assert.Equal(t, exitBlind, code)
	assert.Contains(t, stderr, "/does/not/exist")
}

// A trace that was cut short tells what was whole, and says so.
func TestTraceCutShort(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(recorded(t))
	require.NoError(t, err)
	code, stdout, stderr := execute(string(b[:len(b)*3/4]), "trace", "-", "--fail-on", "never")
	assert.Equal(t, exitBlind, code)
	assert.Contains(t, stderr, "broken")
	assert.NotEmpty(t, stdout)

	for _, garbage := range []string{"", "hello", "go 1.26 trace\x00\x00\x00"} {
		code, _, stderr = execute(garbage, "trace", "-")
		assert.Equal(t, exitBlind, code, "%q", garbage)
		assert.NotEmpty(t, stderr)
	}
	code, _, stderr = execute("", "trace")
	assert.Equal(t, exitUsage, code, stderr)
}

// A process has one execution trace at a time.
func TestProcessTraceOfAServer(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := httptest.NewServer(mux)
	defer server.Close()
	done := make(chan struct{})
	go func() { // something for the trace to show
		for {
			select {
			case <-done:
				return
			default:
				runtime.GC()
			}
		}
	}()
	code, stdout, stderr := execute("", "trace", server.URL, "--for", "300ms", "--fail-on", "never")
	close(done)
	assert.Equal(t, exitFine, code, stderr)
	assert.Contains(t, stdout, "GC mark termination")

	code, _, stderr = execute("", "trace", server.URL+"/nowhere", "--for", "300ms")
	assert.Equal(t, exitBlind, code)
	assert.Contains(t, stderr, "404")
	code, _, stderr = execute("", "trace", "http://127.0.0.1:1/")
	assert.Equal(t, exitBlind, code)
	assert.Contains(t, stderr, "127.0.0.1:1")
}
