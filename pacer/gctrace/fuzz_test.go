// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// seed adds every kind of line that is in the recordings once, alone, and some
// lines together.
func seed(f *testing.F) {
	number := regexp.MustCompile(`\d+`)
	kinds := map[string]bool{}
	for _, file := range fixtures(f) {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		for line := range bytes.Lines(text) {
			if kind := string(number.ReplaceAll(line, []byte("#"))); !kinds[kind] {
				kinds[kind] = true
				f.Add(line)
			}
		}
	}
	f.Add([]byte(whole + "\n" + strings.Replace(whole, "gc 12", "gc 13", 1) + " (forced)\n" + "scav 8 KiB work (bg), 0 KiB work (eager), 16 KiB now, 47% util\n"))
	f.Add([]byte("foo" + whole + " (forced)\r\n" + whole[:40] + "hello\nscvg-1: 4 MB released\n"))
}

// FuzzReader holds for any bytes: nothing panics, every line is a record or
// skipped, the pieces that the stream comes in change nothing, and a record
// printed and read again is the same record.
func FuzzReader(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		got := read(t, bytes.NewReader(text))
		want := bytes.Count(text, []byte("\n"))
		if len(text) > 0 && text[len(text)-1] != '\n' {
			want++
		}
		require.Equal(t, want, got.lines)
		require.Equal(t, got, read(t, iotest.OneByteReader(bytes.NewReader(text))))

		line := 0
		for _, rec := range got.all {
			var at int
			switch rec := rec.(type) {
			case Cycle:
				at = rec.Line
				again := read(t, strings.NewReader(rec.String()))
				require.Len(t, again.cycles, 1, "%q", &rec)
				// What the runtime would not print ("007", "0.1000") is
				// printed as it would.
				rec.Line = 1
				round := rec
				roundTimes(&round)
				require.Equal(t, round, again.cycles[0], "%q", &rec)
			case Scavenge:
				at = rec.Line
				rec.Line = 1
				again := read(t, strings.NewReader(rec.String()))
				require.Len(t, again.scavenges, 1, "%q", &rec)
				require.Equal(t, rec, again.scavenges[0], "%q", &rec)
			case Notice:
				at = rec.Line
			case SyntaxError:
				at = rec.Line
				require.True(t, utf8.ValidString(rec.Text))
				require.LessOrEqual(t, len(rec.Text), 3*maxText)
			}
			require.Greater(t, at, line)
			require.LessOrEqual(t, at, got.lines)
			line = at
		}
	})
}

// roundTimes cuts the times of a cycle down to what the runtime prints.
func roundTimes(c *Cycle) {
	for _, d := range []*time.Duration{
		&c.SweepTerm, &c.Mark, &c.MarkTerm, &c.SweepTermCPU, &c.AssistCPU, &c.MarkCPU, &c.IdleCPU, &c.MarkTermCPU,
	} {
		text := string(appendMS(nil, *d)) + " "
		*d, _ = milliseconds([]byte(text+strings.Repeat(" ", lineSlack)), 0)
	}
	c.At = c.At.Truncate(1e6)
}

// FuzzSummary holds for any bytes: the figures stay within what they mean,
// and both renderings work.
func FuzzSummary(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		var s Summary
		n, err := s.ReadFrom(bytes.NewReader(text))
		require.NoError(t, err)
		require.EqualValues(t, len(text), n)

		r := s.Report()
		require.LessOrEqual(t, r.Forced, r.Cycles)
		require.LessOrEqual(t, r.Cycles+r.Scavenges+r.SyntaxErrors+r.SkippedLines, r.Lines)
		require.LessOrEqual(t, r.Runs, r.Cycles)
		require.Equal(t, r.Cycles == 0, r.Heap == nil)
		require.Equal(t, r.Scavenges == 0, r.Scavenger == nil)
		require.LessOrEqual(t, len(r.Series), maxPoints)
		if p := r.MarkTermination; p != nil {
			require.True(t, 0 <= p.P50 && p.P50 <= p.P90 && p.P90 <= p.P99 && p.P99 <= p.Max, "%+v", p)
			require.LessOrEqual(t, p.Over500us, uint64(r.Cycles))
		}
		if most, ok := r.MostInOneSecond.Get(); ok {
			require.True(t, 1 <= most && most <= r.Cycles)
		}
		for _, f := range r.Findings {
			require.NotEmpty(t, f.Summary)
			require.NotEmpty(t, f.Remedy)
			require.NotEmpty(t, f.Evidence)
		}
		encoded, err := json.Marshal(&s)
		require.NoError(t, err)
		require.True(t, json.Valid(encoded))

		var out bytes.Buffer
		require.NoError(t, s.WriteText(&out, 72, false))
		require.True(t, utf8.Valid(out.Bytes()))
		for line := range strings.Lines(out.String()) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 72, "%q", line)
		}
	})
}
