// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/sidecar/incident"
)

// profiles serves heap profiles of this process, and remembers what was asked for.
func profiles(t *testing.T) (url string, asked func() []string) {
	var mu sync.Mutex
	var paths []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		paths = append(paths, r.URL.Path)
		mu.Unlock()
		_ = pprof.Lookup("heap").WriteTo(w, 0)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/debug/pprof", func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), paths...)
	}
}

// Where its memory cannot be read and it has no guard, the service's own heap profile is
// what its report has.
func TestHeapIsAskedFor(t *testing.T) {
	t.Parallel()
	bin := programFile(t, "-ldflags=-s -w")
	b, err := os.ReadFile(bin)
	require.NoError(t, err)
	_, minor, ok := strings.Cut(runtime.Version(), "go1.")
	require.True(t, ok && len(minor) > 2, "%s is no release", runtime.Version())
	// A release that nobody knows: its symbols are not there to ask either.
	b = bytes.ReplaceAll(b, []byte("go1."+minor[:2]), []byte("go1.99"))
	require.NoError(t, os.WriteFile(bin, b, 0o755))
	url, asked := profiles(t)
	rules := exeRule("api", bin)
	rules[0].Pprof = url
	w := watch(t, Config{Rules: rules, Interval: 100 * time.Millisecond})
	p := startChild(t, bin)
	st := w.until("api", "the heap profile", func(st *Status) bool { return st.source("pprof").State == OK })
	assert.Equal(t, Failed, st.source("attach").State)
	p.kill()
	e := w.death()
	assert.Nil(t, e.Snapshot)
	require.NotEmpty(t, e.Heap)
	assert.False(t, e.HeapAsked.Before(e.Ended.Add(-e.Lived)))
	assert.False(t, e.HeapAsked.After(e.Ended))
	assert.InDelta(t, e.Ended.Sub(e.Process.Started).Seconds(), e.Lived.Seconds(), 1)
	assert.Equal(t, []string{"/debug/pprof/heap"}, asked(), "once in half a minute, and nothing that stops the service")
	r, _ := incident.New(e, incident.Meta{})
	require.NotNil(t, r.Growth)
	assert.Contains(t, r.Growth.Later, "before its end")
}

// Where its memory can be read nobody asks.
func TestHeapIsNotAskedFor(t *testing.T) {
	t.Parallel()
	bin := programFile(t)
	url, asked := profiles(t)
	rules := exeRule("api", bin)
	rules[0].Pprof = url
	w := watch(t, Config{Rules: rules, Interval: 100 * time.Millisecond})
	p := startChild(t, bin)
	w.sees("api", p.pid())
	time.Sleep(walkFirst + 2*time.Second)
	p.kill()
	e := w.death()
	assert.NotEmpty(t, e.Heap)
	assert.Zero(t, e.HeapAsked)
	assert.Empty(t, asked())
}
