// SPDX-License-Identifier: Apache-2.0

package exectrace

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recordings are the traces of testdata/record, by release.
var recordings = []string{
	"go1.21.13", "go1.22.12", "go1.23.12", "go1.24.11", "go1.25.8", "go1.26.8", "go1.27.3",
}

func recorded(t testing.TB, release string) []byte { return gunzip(t, release+".trace.gz") }

func gunzip(t testing.TB, name string) []byte {
	f, err := os.Open(filepath.Join("testdata", name))
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	b, err := io.ReadAll(z)
	require.NoError(t, err)
	return b
}

func report(t testing.TB, trace []byte) *Report {
	r, err := Read(bytes.NewReader(trace), Options{})
	require.NoError(t, err)
	return r
}

var (
	gcLine = regexp.MustCompile(`(?m)^gc (\d+) @[\d.]+s \d+%: ([\d.]+)\+([\d.]+)\+([\d.]+) ms clock, [\d.]+\+([\d.]+)/([\d.]+)/([\d.]+)\+[\d.]+ ms cpu, (\d+)->(\d+)->(\d+) MB, (\d+) MB goal, .*? P( \(forced\))?$`)
	bounds = regexp.MustCompile(`the trace begins after gc (\d+)\n(?s:.*)the trace ends with gc (\d+)\n`)
)

// printed is a duration as gctrace prints it: cut off, not rounded, to two
// digits below 10 ms and to whole milliseconds above (runtime/mgc.go,
// fmtNSAsMS). So it stands for any time in [lo, hi).
type printed struct {
	text   string
	lo, hi time.Duration
}

func parsePrinted(t testing.TB, text string) printed {
	ms, err := strconv.ParseFloat(text, 64)
	require.NoError(t, err)
	lo := time.Duration(ms*1e6 + 0.5)
	unit := time.Millisecond
	if _, frac, ok := strings.Cut(text, "."); ok {
		for range frac {
			unit /= 10
		}
	} else if lo == 0 {
		unit = time.Microsecond // "0" is anything below that
	}
	return printed{text, lo, lo + unit}
}

// agrees reports whether d is within 5 % or 50 µs of a time that p may stand for.
func (p printed) agrees(d time.Duration) bool {
	slack := func(at time.Duration) time.Duration { return max(at/20, 50*time.Microsecond) }
	return d >= p.lo-slack(p.lo) && d <= p.hi+slack(p.hi)
}

// The cycles in a trace are the cycles that the same run printed: their number,
// and for each the three clock times, the heap's sizes and why it ran.
func TestAgreesWithGctrace(t *testing.T) {
	t.Parallel()
	for _, release := range recordings {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(filepath.Join("testdata", release+".gctrace.txt"))
			require.NoError(t, err)
			b := bounds.FindSubmatch(text)
			require.NotNil(t, b)
			after, err := strconv.Atoi(string(b[1]))
			require.NoError(t, err)
			last, err := strconv.Atoi(string(b[2]))
			require.NoError(t, err)

			var lines [][]string
			for _, m := range gcLine.FindAllStringSubmatch(string(text), -1) {
				if n, _ := strconv.Atoi(m[1]); n > after && n <= last {
					lines = append(lines, m)
				}
			}
			require.Len(t, lines, last-after, "a gctrace line did not match")

			r := report(t, recorded(t, release))
			require.Len(t, r.Cycles, len(lines), "cycles")
			var worst time.Duration
			for i, m := range lines {
				c := &r.Cycles[i]
				require.True(t, c.Whole(), "gc %s", m[1])
				for _, f := range []struct {
					name string
					got  Opt[time.Duration]
					want string
				}{
					{"sweep termination", c.SweepTermination, m[2]},
					{"mark", c.Mark, m[3]},
					{"mark termination", c.MarkTermination, m[4]},
				} {
					got, ok := f.got.Value()
					require.True(t, ok)
					want := parsePrinted(t, f.want)
					worst = max(worst, want.lo-got, got-want.hi)
					assert.True(t, want.agrees(got), "gc %s: %s is %s in the trace, %s ms in gctrace", m[1], f.name, got, f.want)
				}
				for _, f := range []struct {
					name string
					got  Opt[uint64]
					want string
				}{
					{"heap at start", c.HeapStart, m[8]}, {"heap at end", c.HeapEnd, m[9]}, {"marked", c.Marked, m[10]},
				} {
					got, ok := f.got.Value()
					require.True(t, ok, f.name)
					want, err := strconv.Atoi(f.want)
					require.NoError(t, err)
					assert.InDelta(t, want, got>>20, 1, "gc %s: %s, MiB", m[1], f.name)
				}
				why := "heap"
				if m[12] != "" {
					why = "forced"
				}
				assert.Equal(t, why, c.Trigger, "gc %s", m[1])
				mt, _ := c.MarkTermination.Value()
				ms, ok := c.MarkStop.Value()
				assert.True(t, ok && ms >= mt, "gc %s: the stop is the longer", m[1])
			}
			t.Logf("%d cycles; farthest from gctrace's clock figures: %s", len(lines), worst)

			// CPU time: a worker holds its P a little longer than it marks, and
			// gctrace cuts whole milliseconds off, so ours is the larger.
			var ours, theirs [3]float64 // ms
			for i, m := range lines {
				w := &r.Cycles[i].Workers
				for k, d := range []time.Duration{w.Assist, w.Dedicated + w.Fractional, w.Idle} {
					ours[k] += float64(d) / 1e6
					ms, err := strconv.ParseFloat(m[5+k], 64)
					require.NoError(t, err)
					theirs[k] += ms
				}
			}
			for k, name := range []string{"assists", "dedicated and fractional workers", "idle workers"} {
				assert.GreaterOrEqual(t, ours[k], 0.95*theirs[k], name)
				assert.LessOrEqual(t, ours[k], 1.5*theirs[k]+1, name)
				t.Logf("CPU of %s: %.1f ms, gctrace %.1f ms", name, ours[k], theirs[k])
			}
		})
	}
}
