// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLeak(t *testing.T) {
	t.Parallel()
	pid := stranger(t)
	code, stdout, stderr := execute("", "leak", "--pid", pid, "--interval", "50ms", "--json")
	require.Equal(t, exitFine, code, stderr)
	var d struct {
		Before, After int
		Stayed        []any
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &d))
	assert.Positive(t, d.Before)
	assert.NotEmpty(t, d.Stayed)
	assert.Contains(t, stdout, `"created"`, "from outside it is known who created them")

	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	server := httptest.NewServer(mux)
	defer server.Close()
	code, stdout, stderr = execute("", "leak", "--pprof", server.URL, "--interval", "50ms")
	require.Equal(t, exitFine, code, stderr)
	assert.NotEmpty(t, stdout)
	code, _, stderr = execute("", "leak", "--pprof", server.URL+"/debug/pprof/nothing")
	assert.Equal(t, exitBlind, code)
	assert.Contains(t, stderr, "404")
}

func TestLeakFiles(t *testing.T) {
	t.Parallel()
	dumps, err := filepath.Glob("../../../memguard/leak/testdata/dumps/go1.2*.debug*")
	require.NoError(t, err)
	require.NotEmpty(t, dumps)
	for _, file := range dumps {
		code, stdout, stderr := execute("", "leak", "--pprof", file)
		assert.Equal(t, exitFine, code, stderr)
		assert.Contains(t, stdout, "goroutine", file)
	}
	code, stdout, stderr := execute("", "leak", "diff", dumps[0], dumps[1])
	assert.Equal(t, exitFine, code, stderr)
	assert.NotEmpty(t, stdout)
	code, stdout, stderr = execute("", append([]string{"leak", "merge", "--json"}, dumps...)...)
	assert.Equal(t, exitFine, code, stderr)
	assert.True(t, json.Valid([]byte(stdout)))
	assert.True(t, strings.Contains(stdout, `"instances"`), stdout)

	for _, wrong := range [][]string{{"leak"}, {"leak", "--pid", "1", "--pprof", "x"}, {"leak", "diff", dumps[0]}, {"leak", "merge"}} {
		code, _, stderr = execute("", wrong...)
		assert.Equal(t, exitUsage, code, "%v: %s", wrong, stderr)
	}
	for _, file := range []string{"/does/not/exist", "run.go"} {
		code, _, stderr = execute("", "leak", "--pprof", file)
		assert.Equal(t, exitBlind, code, stderr)
		assert.Contains(t, stderr, file)
	}
}
