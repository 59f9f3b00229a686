// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cycleLine is an independent statement of the format: the fields of
// runtime/mgc.go's print sequence, releases 1.9 to 1.27.
var cycleLine = regexp.MustCompile(`^gc (\d+) @(\d+\.\d+)s (\d+)%( \(checking for goroutine leaks\))?: ` +
	`([\d.]+)\+([\d.]+)\+([\d.]+) ms clock, ([\d.]+)\+([\d.]+)/([\d.]+)/([\d.]+)\+([\d.]+) ms cpu, ` +
	`(\d+)->(\d+)->(\d+) MB, (\d+) MB goal, (?:(\d+) MB stacks, (\d+) MB globals, )?(\d+) P( \(forced\))?$`)

// cycles returns n bytes or more of the gc lines in the recordings.
func cycles(tb testing.TB, n int) []byte {
	tb.Helper()
	files, err := filepath.Glob("testdata/go1.*.txt")
	require.NoError(tb, err)
	var text []byte
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(tb, err)
		for line := range bytes.Lines(b) {
			if bytes.HasPrefix(line, []byte("gc ")) {
				text = append(text, line...)
			}
		}
	}
	require.NotEmpty(tb, text)
	return bytes.Repeat(text, n/len(text)+1)
}

// foreign returns n bytes or more of a service's log, with no trace line in it.
func foreign(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "2026-11-21T20:26:%02d.%03dZ INFO http: request served method=GET path=/api/v1/users/%d status=200 bytes=%d remote=10.0.%d.%d:4%04d\n",
			i%60, i%1000, i, i*7%9000, i%256, i*3%256, i%10000)
	}
	return b.Bytes()
}

func scanAll(tb testing.TB, text []byte) (records int) {
	r := NewReader(bytes.NewReader(text))
	for r.Scan() {
		records++
	}
	if r.Err() != nil {
		tb.Fatal(r.Err())
	}
	return records
}

func BenchmarkCycles(b *testing.B) {
	text := cycles(b, 1<<20)
	r := NewReader(nil)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		*r = Reader{src: bytes.NewReader(text), buf: r.buf}
		for r.Scan() {
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(r.Lines()), "ns/line")
}

// BenchmarkSummary reads the same lines and adds them up.
func BenchmarkSummary(b *testing.B) {
	text := cycles(b, 1<<20)
	r := NewReader(nil)
	var s Summary
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		*r = Reader{src: bytes.NewReader(text), buf: r.buf}
		for r.Scan() {
			s.Add(r.Record())
		}
	}
}

func BenchmarkForeign(b *testing.B) {
	text := foreign(1 << 20)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if n := scanAll(b, text); n != 0 {
			b.Fatalf("%d records in foreign text", n)
		}
	}
}

// BenchmarkRegexp reads the same lines with a compiled regular expression and
// with the Reader, turn by turn, and reports how many times faster the Reader
// is. The expression's side is given its lines for nothing, and converts the
// same fields. Each side counts with its fastest turn, since everything that
// disturbs a turn makes it slower.
func BenchmarkRegexp(b *testing.B) {
	text := cycles(b, 1)
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	r := NewReader(nil)
	expression, reader := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	for b.Loop() {
		start := time.Now()
		var c Cycle
		for _, line := range lines {
			viaRegexp(line, &c)
		}
		middle := time.Now()
		*r = Reader{src: bytes.NewReader(text), buf: r.buf}
		n := 0
		for r.Scan() {
			n++
		}
		reader = min(reader, time.Since(middle))
		expression = min(expression, middle.Sub(start))
		if n != len(lines) {
			b.Fatalf("%d records in %d lines", n, len(lines))
		}
	}
	b.ReportMetric(float64(expression)/float64(reader), "x-faster")
	b.ReportMetric(float64(len(text))/1e6/reader.Seconds(), "reader-MB/s")
	b.ReportMetric(float64(len(text))/1e6/expression.Seconds(), "regexp-MB/s")
}

// viaRegexp is the straightforward way to read a cycle.
func viaRegexp(line []byte, c *Cycle) bool {
	m := cycleLine.FindSubmatch(line)
	if m == nil {
		return false
	}
	n := func(i int) uint64 {
		v, _ := strconv.ParseUint(string(m[i]), 10, 64)
		return v
	}
	d := func(i int, unit time.Duration) time.Duration {
		v, _ := strconv.ParseFloat(string(m[i]), 64)
		return time.Duration(v*float64(unit) + 0.5)
	}
	*c = Cycle{
		N: uint32(n(1)), At: d(2, time.Second), CPUPercent: int(n(3)),
		SweepTerm: d(5, time.Millisecond), Mark: d(6, time.Millisecond), MarkTerm: d(7, time.Millisecond),
		SweepTermCPU: d(8, time.Millisecond), AssistCPU: d(9, time.Millisecond), MarkCPU: d(10, time.Millisecond),
		IdleCPU: d(11, time.Millisecond), MarkTermCPU: d(12, time.Millisecond),
		HeapStart: n(13) << 20, HeapEnd: n(14) << 20, HeapLive: n(15) << 20, HeapGoal: n(16) << 20,
		Procs: int(n(19)), Forced: len(m[20]) > 0,
	}
	if len(m[4]) > 0 {
		c.Note = string(m[4][1:])
	}
	if m[17] != nil {
		c.Stacks, c.Globals = Some(n(17)<<20), Some(n(18)<<20)
	}
	return true
}
