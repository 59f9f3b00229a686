// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

func TestMain(m *testing.M) {
	if IsChild() {
		os.Exit(Main(nil, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// testRate is what a service with the race detector can serve on a busy machine.
const testRate = 50

// leftovers are the processes and cgroups that we have started and not ended.
func leftovers(t *testing.T) (left []string) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid: see proc_pid_stat(5).
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			left = append(left, string(text))
		}
	}
	g, err := cgroup.Open("/proc", 0)
	if err != nil {
		return left // nowhere to leave any
	}
	defer g.Close()
	for dir := g.Dir(); dir != "/"; dir = filepath.Dir(dir) {
		groups, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("memguard-overhead-*-%d-*", os.Getpid())))
		require.NoError(t, err)
		left = append(left, groups...)
	}
	return left
}

// skipBlind skips where no memory cgroup may be made, and fails for another error.
func skipBlind(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
}

// Everything that is measured is there. What it is, on a machine that runs tests,
// says nothing.
func TestProcessCompare(t *testing.T) {
	short := plan{
		warm: 100 * time.Millisecond, load: 4 * time.Second, window: 2, rate: testRate,
		start: 100 * time.Millisecond, rest: 100 * time.Millisecond,
	}
	var progress bytes.Buffer
	c, err := compare(t.Context(), 2, short, &progress)
	skipBlind(t, err)
	assert.Empty(t, leftovers(t))
	assert.Equal(t, 2, strings.Count(progress.String(), "\n"))
	require.Len(t, c.Rounds, 2)
	for _, b := range c.Rounds {
		assert.Positive(t, b.Request)
		assert.Positive(t, b.Compared)
		assert.GreaterOrEqual(t, b.Ticks, b.Compared)
	}
	assert.Nil(t, c.Limiter.Low, "two rounds are no interval")
	require.Len(t, c.Ways, len(ways))
	for i, o := range c.Ways {
		require.Len(t, o.Rests, 2, o.Name)
		assert.Positive(t, o.Memory.Anon, o.Name)
		require.Equal(t, i == 0, o.More == nil, o.Name)
		assert.Equal(t, o.Name == "limiter", o.Box > 0, o.Name)
	}
	var table, text bytes.Buffer
	require.NoError(t, c.print(&table))
	assert.Contains(t, table.String(), fmt.Sprintf("a file of %d KiB", c.Ways[len(ways)-1].Box>>10))
	assert.NotContains(t, table.String(), "NaN")
	assert.Contains(t, table.String(), "CPU of a tick")
	require.NoError(t, json.NewEncoder(&text).Encode(c))
}

// What a service pays at rest is measured when its guard is no longer new: a longer
// start is waited for, and is not in the figure.
func TestProcessRestAfterStart(t *testing.T) {
	short := plan{warm: 10 * time.Millisecond, start: 10 * time.Millisecond, rest: 10 * time.Millisecond, settle: 3 * time.Second, rate: testRate}
	began := time.Now()
	all, err := rest(t.Context(), short, 1)
	skipBlind(t, err)
	assert.Len(t, all, len(ways))
	assert.GreaterOrEqual(t, time.Since(began), short.settle+short.rest, "no machine is too fast for that")
	assert.GreaterOrEqual(t, usual.settle, 10*time.Second, "so long a guard is new: memguard/pace.go")
	assert.Less(t, usual.start, usual.settle)
}

func TestProcessSteady(t *testing.T) {
	keep := filepath.Join(t.TempDir(), "cpu.pprof")
	r, err := steady(t.Context(), time.Second, 4*testRate, keep, io.Discard)
	skipBlind(t, err)
	assert.Empty(t, leftovers(t))
	assert.FileExists(t, keep)
	require.Len(t, r.Minutes, 1)
	assert.Positive(t, r.Guard.Ticks)
	assert.Positive(t, r.Share.All)
	assert.Positive(t, r.Requests.Answered)
	assert.Positive(t, r.CPU)
	var text bytes.Buffer
	require.NoError(t, r.print(&text))
	assert.Contains(t, text.String(), fmt.Sprintf("%d of %d samples", r.Share.Guard, r.Share.All))
}

// Ctrl-C leaves nothing behind.
func TestProcessCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(500*time.Millisecond, cancel)
	_, err := compare(ctx, 1, plan{warm: time.Minute, load: time.Minute, window: 2, rest: time.Minute, rate: testRate}, io.Discard)
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.Error(t, err)
	assert.Empty(t, leftovers(t))
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args   []string
		status int
		stderr string
	}{
		"help":         {[]string{"--help"}, exitFine, ""},
		"flag":         {[]string{"--fast"}, exitUsage, "-fast"},
		"argument":     {[]string{"x"}, exitUsage, `unexpected argument "x"`},
		"rounds":       {[]string{"--rounds", "0"}, exitUsage, "--rounds 0: want"},
		"steady":       {[]string{"--steady", "0s"}, exitUsage, "--steady 0s: want"},
		"not a number": {[]string{"--fail-over", "NaN"}, exitUsage, "--fail-over NaN: want"},
		"both":         {[]string{"--steady", "1m", "--rounds", "2"}, exitUsage, "without --rounds"},
		"profile":      {[]string{"--profile", "x"}, exitUsage, "--profile is for --steady"},
		"too few":      {[]string{"--fail-over", "0.5", "--rounds", "5"}, exitUsage, "6 rounds: --rounds 5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			assert.Equal(t, tt.status, Main(tt.args, &stdout, &stderr))
			assert.Contains(t, stderr.String(), tt.stderr)
			assert.Equal(t, tt.status == exitFine, strings.Contains(stdout.String(), "usage: overhead"))
		})
	}
}

func TestOver(t *testing.T) {
	t.Parallel()
	low, high := 0.6, 2.
	c := comparison{GuardShare: interval{1, &low, &high}}
	assert.True(t, c.over(0.5))
	assert.False(t, c.over(0.7), "it may be less")
	assert.False(t, c.over(-1), "nobody asked")
	c.GuardShare.Low = nil
	assert.False(t, c.over(0), "nobody knows")

	r := steadyRun{Share: share{All: 1000, Guard: 6, Limiter: 100}}
	assert.True(t, r.bad(0.5))
	assert.False(t, r.bad(0.7))
	assert.False(t, r.bad(-1))
	r.Guard.Loud = 1
	assert.True(t, r.bad(-1))
}

// The same seed sends the same requests, another one others.
func TestLoad(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprint(r.Method, r.URL.Path, n))
		switch len(got) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer srv.Close()
	l := load{http: srv.Client(), small: []byte("small"), large: make([]byte, 1000)}
	sent := func(seed uint64) (tally, []string) {
		got = nil
		tally := l.send(srv.Listener.Addr().String(), 300*time.Millisecond, perSecond, seed)
		slices.Sort(got)
		return tally, got
	}
	tally, first := sent(1)
	assert.EqualValues(t, len(first)-2, tally.Answered)
	assert.EqualValues(t, 1, tally.Refused)
	assert.EqualValues(t, 1, tally.Failed)
	assert.Contains(t, tally.Error, "status 418")
	assert.LessOrEqual(t, tally.P50, tally.P99)
	_, again := sent(1)
	assert.Equal(t, first, again)
	_, other := sent(2)
	assert.NotEqual(t, first, other)
}

// The service answers what the load sends.
func TestService(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(newStore().handler())
	defer srv.Close()
	l := load{http: srv.Client()}
	one, err := json.Marshal(newDocument(1))
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		method, path string
		body         []byte
		status       int
	}{
		"read":        {http.MethodGet, "/documents/7", nil, http.StatusOK},
		"no number":   {http.MethodGet, "/documents/x", nil, http.StatusBadRequest},
		"write":       {http.MethodPut, "/documents/7", one, http.StatusOK},
		"no document": {http.MethodPut, "/documents/7", []byte("["), http.StatusBadRequest},
		"batch":       {http.MethodPost, "/batch", slices.Concat([]byte("["), one, []byte("]")), http.StatusOK},
		"no batch":    {http.MethodPost, "/batch", one, http.StatusBadRequest},
	} {
		status, _, err := l.exchange(tt.method, srv.URL+tt.path, tt.body)
		require.NoError(t, err, name)
		assert.Equal(t, tt.status, status, name)
	}
}

const someStatus = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t    1024 kB\nRssFile:\t    1000 kB\nRssShmem:\t      24 kB\n"

func TestParseMemory(t *testing.T) {
	t.Parallel()
	m, err := parseMemory(strings.NewReader(someStatus))
	require.NoError(t, err)
	assert.Equal(t, memory{RSS: 2048 << 10, Anon: 1024 << 10, File: 1000 << 10}, m)
	_, err = parseMemory(strings.NewReader("Name:\tx\nState:\tZ (zombie)\n"))
	assert.ErrorContains(t, err, "there is no RssAnon, RssFile, VmRSS")
	_, err = parseMemory(strings.NewReader("VmRSS:\t-1 kB\n"))
	assert.ErrorContains(t, err, "VmRSS")
}

// A memory is whole or an error: nothing that could not be read is 0.
func FuzzMemory(f *testing.F) {
	f.Add(someStatus)
	f.Add("VmRSS:\nVmRSS: 99999999999999999999 kB\nRssAnon")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMemory(strings.NewReader(text))
		if err != nil {
			assert.Zero(t, m)
			return
		}
		for _, name := range []string{"VmRSS:", "RssAnon:", "RssFile:"} {
			assert.Contains(t, text, name)
		}
	})
}
