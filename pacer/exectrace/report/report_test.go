// SPDX-License-Identifier: Apache-2.0

package report

import (
	stdbytes "bytes"
	"compress/gzip"
	"encoding/json"
	"html"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/pacer/exectrace"
)

// trace returns a recording of ../testdata without its last cut bytes.
func trace(t testing.TB, name string, cut int) *exectrace.Report {
	f, err := os.Open(filepath.Join("..", "testdata", name+".gz"))
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	b, err := io.ReadAll(z)
	require.NoError(t, err)
	r, err := exectrace.Read(stdbytes.NewReader(b[:len(b)-cut]), exectrace.Options{})
	if cut == 0 {
		require.NoError(t, err)
	} else {
		require.Error(t, err)
	}
	require.NotNil(t, r)
	return r
}

func TestTextGolden(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, trace string
		cut         int
		o           TextOptions
	}{
		{"go1.26.8", "go1.26.8.trace", 0, TextOptions{Width: 100}},
		{"go1.22.12-narrow", "go1.22.12.trace", 0, TextOptions{Width: 60}},
		{"go1.21.13-color", "go1.21.13.trace", 0, TextOptions{Width: 100, Color: true}},
		{"go1.25.8-truncated", "go1.25.8.long", 100, TextOptions{Width: 80}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			require.NoError(t, Text(&b, trace(t, c.trace, c.cut), c.o))
			golden(t, c.name+".txt", b.String())
			if c.o.Color {
				return
			}
			for line := range strings.Lines(b.String()) {
				assert.Equal(t, strings.TrimRight(line, " \n")+"\n", line, "no space at the end")
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	if string(want) != got {
		require.NoError(t, os.WriteFile(path+".got", []byte(got), 0o644))
	}
	require.Equal(t, string(want), got)
}

func TestJSON(t *testing.T) {
	t.Parallel()
	var b stdbytes.Buffer
	r := trace(t, "go1.26.8.trace", 0)
	require.NoError(t, JSON(&b, r))
	var v struct {
		Verdict string
		Span    int64            `json:"span_ns"`
		Phases  map[string]int64 `json:"phases_ns"`
		Broken  any
		Cycles  []map[string]any
	}
	require.NoError(t, json.Unmarshal(b.Bytes(), &v))
	assert.Equal(t, r.Verdict, v.Verdict)
	var sum int64
	for _, d := range v.Phases {
		sum += d
	}
	assert.Equal(t, v.Span, sum)
	assert.Nil(t, v.Broken)
	require.Len(t, v.Cycles, len(r.Cycles))
	assert.Contains(t, v.Cycles[0], "mark_termination_ns")

	b.Reset()
	require.NoError(t, JSON(&b, trace(t, "go1.25.8.long", 100)))
	require.NoError(t, json.Unmarshal(b.Bytes(), &v))
	assert.NotNil(t, v.Broken)
}

func TestHTML(t *testing.T) {
	t.Parallel()
	for _, release := range []string{"go1.21.13", "go1.22.12", "go1.27.3"} {
		var b strings.Builder
		r := trace(t, release+".trace", 0)
		require.NoError(t, HTML(&b, r, "service.trace"))
		s := b.String()
		assert.Contains(t, s, "<title>GC: service.trace</title>")
		assert.NotContains(t, s, "%!", "a value without its verb, or the other way round")
		for _, f := range r.Findings {
			assert.Contains(t, s, html.EscapeString(f.Summary))
			assert.Contains(t, s, html.EscapeString(f.Remedy))
		}
		assert.NotRegexp(t, `(?:src|href)=|url\(|@import|https?:`, s, "the page loads nothing")

		m := regexp.MustCompile(`(?s)<script id="data" type="application/json">(.*?)</script>`).FindStringSubmatch(s)
		require.NotNil(t, m)
		var d data
		require.NoError(t, json.Unmarshal([]byte(m[1]), &d))
		assert.Equal(t, int64(r.Span), d.Span)
		assert.Len(t, d.Segments, len(r.Timeline))
		assert.Len(t, d.Points, len(r.Heap.Points))
		assert.Len(t, d.Pauses, len(r.Pauses))
	}
}

// hostile is what anybody may write into a trace: in the names of functions
// and files, and in the reasons of stops.
const hostile = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>\x1b]0;owned\a\x1b[2J\r\n\u202e\"'`{{.}}"

func hostileReport() *exectrace.Report {
	frame := exectrace.Frame{Func: hostile, File: hostile, Line: math.MaxUint64}
	payer := exectrace.Payer{Goroutine: -1, Name: hostile, Stack: []exectrace.Frame{frame, frame}, Count: math.MaxUint64, Wall: math.MaxInt64}
	return &exectrace.Report{
		Format: hostile, Verdict: hostile + ". " + hostile, Span: time.Second, Events: 1, CycleCount: 1,
		Broken:   &exectrace.BrokenError{Reason: hostile},
		Timeline: []exectrace.Segment{{End: time.Second, Time: exectrace.PhaseTimes{time.Second}, Heap: exectrace.Some(uint64(math.MaxUint64))}},
		Phases:   exectrace.PhaseTimes{time.Second},
		Heap: exectrace.Curve{Width: 1, Points: []exectrace.Point{{
			Min: exectrace.Some(uint64(math.MaxUint64)), Max: exectrace.Some(uint64(math.MaxUint64)),
			Last: exectrace.Some(uint64(math.MaxUint64)), Goal: exectrace.Some(uint64(math.MaxUint64)),
		}}},
		Cycles:  []exectrace.Cycle{{N: 1, Trigger: hostile, By: hostile, Goal: exectrace.Some(uint64(1)), HeapEnd: exectrace.Some(uint64(math.MaxUint64))}},
		Pauses:  []exectrace.Pause{{Start: 5, Length: math.MaxInt64, Reason: hostile}},
		Reasons: []exectrace.Reason{{Name: hostile, Count: 1, Total: math.MaxInt64, Max: math.MaxInt64, Cut: 1}},
		Assists: exectrace.Assists{Count: 1, Wall: 1, Goroutines: []exectrace.Payer{payer}, Stacks: []exectrace.Payer{payer}},
		CPU:     exectrace.CPU{Workers: exectrace.Workers{Dedicated: math.MaxInt64}, Available: exectrace.Some(time.Duration(1))},
		Unknown: map[string]uint64{hostile: math.MaxUint64},
		Findings: []exectrace.Finding{{
			ID: "gc-assist", Severity: exectrace.Critical, Summary: hostile, Evidence: []string{hostile}, Remedy: "none",
		}},
	}
}

func TestHostileText(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	require.NoError(t, Text(&b, hostileReport(), TextOptions{Width: 120}))
	for _, c := range b.String() {
		require.True(t, c == '\n' || unicode.IsPrint(c), "%q", c)
	}
	assert.Contains(t, b.String(), `\u001b[2J`, "shown, not obeyed")
}

func TestHostileHTML(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	require.NoError(t, HTML(&b, hostileReport(), hostile))
	s := b.String()
	assert.NotContains(t, s, "<script>document.title")
	assert.NotContains(t, s, "<img")
	assert.Equal(t, 2, strings.Count(s, "</script>"), "only the page's own")
	assert.NotContains(t, s, "ZgotmplZ")
	for _, c := range s {
		require.True(t, c == '\n' || unicode.IsPrint(c), "%q", c)
	}
}

// An empty report, and the smallest one, are shown and do not fail.
func TestNothing(t *testing.T) {
	t.Parallel()
	for _, r := range []*exectrace.Report{{}, {Span: 1}, {Span: 1, Phases: exectrace.PhaseTimes{1}, Timeline: []exectrace.Segment{{End: 1, Time: exectrace.PhaseTimes{1}}}}} {
		var b strings.Builder
		require.NoError(t, Text(&b, r, TextOptions{}))
		require.NoError(t, HTML(&b, r, ""))
		require.NoError(t, JSON(&b, r))
	}
}

// The terminal's columns hold as much time as the timeline.
func TestColumnsKeepTime(t *testing.T) {
	t.Parallel()
	r := trace(t, "go1.26.8.trace", 0)
	for _, n := range []int{1, 7, 100, 5000} {
		var sum exectrace.PhaseTimes
		for _, c := range columns(r, n) {
			for p, d := range c.phases {
				sum[p] += d
			}
		}
		for p, d := range r.Phases {
			assert.InDelta(t, d, sum[p], float64(n+len(r.Timeline))*2, "%s in %d columns", exectrace.Phase(p), n)
		}
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "1.23ms", dur(1234567))
	assert.Equal(t, "123µs", dur(123456))
	assert.Equal(t, "999ns", dur(999))
	assert.Equal(t, "0s", dur(0))
	assert.Equal(t, "4.0 MiB", bytes(4<<20))
	assert.Equal(t, "512 B", bytes(512))
	assert.Equal(t, "<0.1 %", percent(1, 10000))
	assert.Equal(t, "-", percent(1, 0))
	assert.Equal(t, "?", optBytes(exectrace.Opt[uint64]{}))
}
