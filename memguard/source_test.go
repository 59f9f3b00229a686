// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var noContext = context.Background()

func FuzzStatm(f *testing.F) {
	for _, s := range []string{
		"5 4 3 1 0 2 0\n", "0 0 0 0 0 0 0\n", "", "\n", "1 2 3", "1 2 3 ", "1  2 3 4", " 1 2 3 4", "1 2 -3 4", "1 2 3x 4",
		"18446744073709551616 1 1 1", "1 70368744177664 1 1", "1 70368744177665 1 1", "1 2 3\n4", "00005 0004 03 \x00", "1\x002 3 4 ",
	} {
		f.Add([]byte(s))
	}
	three := regexp.MustCompile(`\A([0-9]+) ([0-9]+) ([0-9]+) `)
	f.Fuzz(func(t *testing.T, b []byte) {
		size, resident, shared, ok := parseStatm(b)
		m := three.FindSubmatch(b)
		var want [3]uint64
		fits := m != nil
		for i := range want {
			if fits {
				n, err := strconv.ParseUint(string(m[i+1]), 10, 64)
				want[i], fits = n, err == nil && n <= 1<<46
			}
		}
		require.Equal(t, fits, ok, "%q", b)
		if !ok {
			want = [3]uint64{}
		}
		require.Equal(t, want, [3]uint64{size, resident, shared})
		for _, pages := range want {
			require.LessOrEqual(t, pages, uint64(math.MaxUint64)>>16, "the largest page is 64 KiB: bytes must fit")
		}
	})
}

func FuzzStatus(f *testing.F) {
	for _, s := range []string{
		"Name:\tx\nRssAnon:\t     512 kB\nRssFile:\t 1 kB\n", "RssAnon:\t512 kB\n", "\nRssAnon:", "\nRssAnon:\t512\n", "\nRssAnon:\t-1 kB\n",
		"\nRssAnon:\t9007199254740991 kB", "\nRssAnon:\t18014398509481984 kB\n", "\nRssAnon:\t 1 2 kB\n", "\nRssAnon: kB\n", "Name:\tRssAnon:\t7 kB\n",
		"Name:\tx\\nRssAnon:\t7 kB\nRssAnon:\t9 kB\n", "\nRssAnon:\t1 kB\nRssAnon:\t2 kB\n",
	} {
		f.Add([]byte(s))
	}
	line := regexp.MustCompile(`\nRssAnon:[^\n]*`)
	f.Fuzz(func(t *testing.T, b []byte) {
		n, ok := statusBytes(b, "RssAnon").Get()
		first := line.Find(b)
		if first == nil {
			require.False(t, ok, "%q", b)
			return
		}
		digits := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(string(first[len("\nRssAnon:"):])), " kB"))
		want, err := strconv.ParseUint(digits, 10, 53)
		if ok {
			require.NoError(t, err, "%q", b)
			require.Equal(t, want<<10, n, "%q", b)
			require.Contains(t, string(first), " kB")
		} else {
			require.Zero(t, n, "unknown is not a number")
		}
	})
}

// FuzzEnviron: settings that nobody could mean are never taken, nor is anything
// else of an environment.
func FuzzEnviron(f *testing.F) {
	for _, s := range []string{
		"", "GOGC=50", "GOGC=off\x00GOMEMLIMIT=1GiB", "GOMEMLIMIT=", "GOMEMLIMIT=1.5GiB", "GOGC=1\x00GOGC=2", "XGOGC=5\x00GOGCX=6\x00GOGC", "=GOGC=7",
		"GOMEMLIMIT=9223372036854775807B\x00GOGC=-2147483648", "GOMEMLIMIT=8388608TiB", "SECRET=hunter2\x00GOGC=100\x00", "GOMEMLIMIT=off\x00GOMEMLIMIT=1",
		"GOMEMLIMIT=KiB\x00GOGC=2147483648",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := parseEnviron(b)
		percent, ok := r.GCPercent.Get()
		require.True(t, ok, "a malformed GOGC is 100")
		require.True(t, -1 <= percent && percent <= math.MaxInt32, "%d", percent)
		if limit, ok := r.MemoryLimit.Get(); ok {
			require.True(t, limit == Unlimited || limit < math.MaxInt64, "%d", limit)
		} else {
			require.Contains(t, string(b), "GOMEMLIMIT=")
		}
		// Only two names count, and of each the first.
		other := append([]byte("A=1\x00GOGCC=3\x00"), b...)
		require.Equal(t, r, parseEnviron(other))
		if bytes.HasPrefix(b, []byte("GOGC=")) {
			require.Equal(t, r.GCPercent, parseEnviron(append(bytes.Clone(b), "\x00GOGC=77"...)).GCPercent)
		}
		require.Equal(t, Runtime{Origin: FromEnviron, GCPercent: r.GCPercent, MemoryLimit: r.MemoryLimit}, r, "all else is unknown")
	})
}

func TestMetricsExist(t *testing.T) {
	t.Parallel()
	r := newRuntimeReader()
	var got Runtime
	runtime.GC()
	r.read(&got)
	for i, s := range r.samples {
		assert.NotEqual(t, Bytes{}, r.value(i), "%s is not a metric of %s", s.Name, runtime.Version())
	}
	// With every metric there every figure of a Runtime is known.
	assert.NotContains(t, fmt.Sprintf("%+v", got), "ok:false", "%+v", got)
}

// At rest our figures are those of ReadMemStats, and the classes add up to the total.
func TestProcessSelfAgreesWithMemStats(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(150))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(3 << 30))
	held := make([][]byte, 64)
	for i := range held {
		held[i] = make([]byte, 1<<20)
	}
	runtime.GC()
	src := Self()
	defer src.Close()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var s Sample
	require.NoError(t, src.Read(&s)) // opens what is opened at the first read
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	require.NoError(t, src.Read(&s))
	r := s.Runtime
	near := func(want uint64, got Bytes, what string) {
		n, ok := got.Get()
		require.True(t, ok, what)
		assert.InDelta(t, float64(want), float64(n), 1<<20, what)
	}
	near(m.Sys, r.Total, "Sys")
	near(m.HeapAlloc, r.Objects, "HeapAlloc")
	near(m.HeapInuse-m.HeapAlloc, r.Unused, "HeapInuse - HeapAlloc")
	near(m.HeapIdle-m.HeapReleased, r.Free, "HeapIdle - HeapReleased")
	near(m.HeapReleased, r.Released, "HeapReleased")
	near(m.StackInuse, r.Stacks, "StackInuse")
	near(m.StackSys-m.StackInuse, r.OSStacks, "StackSys - StackInuse")
	near(m.MSpanSys+m.MCacheSys+m.GCSys+m.BuckHashSys+m.OtherSys, r.Metadata, "the rest of Sys")
	near(m.TotalAlloc, r.Allocated, "TotalAlloc")
	assert.Equal(t, Known(uint64(m.NumGC)), r.Cycles)
	assert.Equal(t, r.Total, plus(r.Objects, r.Unused, r.Free, r.Released, r.Stacks, r.OSStacks, r.Metadata))
	assert.Equal(t, Known[int64](-1), r.GCPercent, "off")
	assert.Equal(t, Known[uint64](3<<30), r.MemoryLimit)
	live, _ := r.Live.Get()
	assert.Greater(t, live, uint64(64<<20))
	assert.Equal(t, FromRuntime, r.Origin)
	runtime.KeepAlive(held)
}

func TestSettingsOfTheRuntime(t *testing.T) {
	t.Parallel()
	assert.Equal(t, Known[int64](-1), gcPercent(math.MaxUint64))
	assert.Equal(t, Known[int64](0), gcPercent(0))
	assert.Equal(t, uint64(Unlimited), memoryLimit(math.MaxInt64))
	assert.Equal(t, uint64(1), memoryLimit(1))
	assert.False(t, usesCgo(&debug.BuildInfo{}))
	for value, want := range map[string]bool{"0": false, "1": true} {
		assert.Equal(t, want, usesCgo(&debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "CGO_ENABLED", Value: value}}}))
	}
}

func TestStartTime(t *testing.T) {
	t.Parallel()
	fields := strings.TrimSuffix(strings.Repeat("7 ", 18), " ") + " 424242 9 9"
	for _, name := range []string{"x", "a b", "a) R 1 (b", ")))", "(((", "\n", ") 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22", ""} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(dir+"/stat", []byte("4711 ("+name+") S "+fields+"\n"), 0o600))
		n, err := startTime(dir)
		require.NoError(t, err, "%q", name)
		assert.EqualValues(t, 424242, n, "%q", name)
	}
	for _, bad := range []string{"", "4711", "4711 (x) S 1 2", "no parenthesis", "4711 (x) S " + strings.Repeat("a ", 30)} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(dir+"/stat", []byte(bad), 0o600))
		_, err := startTime(dir)
		require.ErrorContains(t, err, dir, "%q: the error names the file", bad)
	}
	_, err := startTime(t.TempDir())
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestReadSomeIsBounded(t *testing.T) {
	t.Parallel()
	name := t.TempDir() + "/large"
	require.NoError(t, os.WriteFile(name, bytes.Repeat([]byte{'x'}, 5000), 0o600))
	b, err := readSome(name, 100)
	require.NoError(t, err)
	assert.Len(t, b, 100)
	_, err = readSome(t.TempDir(), 100)
	assert.Error(t, err, "a directory")
}
