// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// golden compares got with testdata/name and rewrites it under UPDATE=1.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE") == "1" {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	if !assert.Equal(t, string(want), string(got)) {
		require.NoError(t, os.WriteFile(path+".got", got, 0o644))
	}
}

func summarize(t testing.TB, text []byte) *Summary {
	t.Helper()
	var s Summary
	n, err := s.ReadFrom(bytes.NewReader(text))
	require.NoError(t, err)
	require.EqualValues(t, len(text), n)
	return &s
}

func TestSummaryOfRecordings(t *testing.T) {
	t.Parallel()
	for _, file := range fixtures(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			r := summarize(t, text).Report()
			r.Series = nil // too long to read
			got, err := json.MarshalIndent(r, "", "  ")
			require.NoError(t, err)
			golden(t, strings.TrimSuffix(filepath.Base(file), ".txt")+".json", append(got, '\n'))
		})
	}
}

func TestTextOfRecordings(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"go1.27.3", "go1.12.17-idle", "go1.27.3-off"} {
		text, err := os.ReadFile("testdata/" + name + ".txt")
		require.NoError(t, err)
		s := summarize(t, append(text, whole[:60]+"torn\nforeign\n"...))
		var plainText, colored bytes.Buffer
		require.NoError(t, s.WriteText(&plainText, 80, false))
		require.NoError(t, s.WriteText(&colored, 80, true))
		golden(t, name+".screen", plainText.Bytes())
		for line := range strings.Lines(plainText.String()) {
			assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80, "%q", line)
		}
		bare := colored.String()
		for _, escape := range []string{red, green, yellow, dim, bold, plain} {
			bare = strings.ReplaceAll(bare, escape, "")
		}
		for i, line := range strings.Split(plainText.String(), "\n") {
			assert.Equal(t, strings.TrimRight(line, " "), strings.TrimRight(strings.Split(bare, "\n")[i], " "), "colour adds nothing but escapes")
		}
	}
}

// trace composes the trace of a program, cycle by cycle.
type trace struct {
	lines []string
	c     Cycle
}

func newTrace() *trace {
	return &trace{c: Cycle{
		CPUPercent: 1, SweepTerm: 30 * time.Microsecond, Mark: time.Millisecond, MarkTerm: 20 * time.Microsecond,
		MarkCPU: 500 * time.Microsecond, Stacks: Some[uint64](0), Globals: Some[uint64](0), Procs: 2,
	}}
}

// gc adds a cycle some time after the last, with sizes in MiB.
func (tr *trace) gc(after time.Duration, start, end, live, goal uint64, change ...func(*Cycle)) *trace {
	tr.c.N++
	tr.c.At += after
	c := tr.c
	c.HeapStart, c.HeapEnd, c.HeapLive, c.HeapGoal = start*mib, end*mib, live*mib, goal*mib
	for _, f := range change {
		f(&c)
	}
	tr.lines = append(tr.lines, c.String())
	return tr
}

// scav adds a scavenger's line, with sizes in MiB.
func (tr *trace) scav(work, released uint64, util int) *trace {
	return tr.line(fmt.Sprintf("scav %d KiB work (bg), 0 KiB work (eager), %d KiB now, %d%% util", work*1024, released*1024, util))
}

func (tr *trace) line(s string) *trace {
	tr.lines = append(tr.lines, s)
	return tr
}

// times repeats what step adds.
func (tr *trace) times(n int, step func(i int)) *trace {
	for i := range n {
		step(i)
	}
	return tr
}

func (tr *trace) report(t *testing.T) Report {
	return summarize(t, []byte(strings.Join(tr.lines, "\n")+"\n")).Report()
}

// TestFindings runs whole histories and says what must be found in them, and
// nothing else.
func TestFindings(t *testing.T) {
	t.Parallel()
	unbounded := func(c *Cycle) { c.HeapGoal = 8532210231537 * mib }
	pause := func(d time.Duration) func(*Cycle) { return func(c *Cycle) { c.MarkTerm = d } }
	forced := func(c *Cycle) { c.Forced = true }
	busy := func(c *Cycle) { c.Mark, c.MarkCPU = 90*time.Millisecond, 100*time.Millisecond }
	second, minute := time.Second, time.Minute

	for _, test := range []struct {
		name string
		tr   func(tr *trace)
		want []string
	}{
		{"nothing", func(tr *trace) {}, nil},
		{"log alone", func(tr *trace) { tr.line("hello") }, nil},
		{"healthy", func(tr *trace) {
			tr.times(300, func(int) { tr.gc(second, 190, 200, 100, 200).scav(0, 30, 45) })
		}, nil},
		{"warm up, then steady", func(tr *trace) {
			tr.times(10, func(i int) { tr.gc(second, uint64(10*i), uint64(11*i), uint64(6*i), uint64(12*i)) })
			tr.times(100, func(i int) { tr.gc(second, 120, 122, uint64(58+i%5), 120) })
		}, nil},

		{"a storm that passes", func(tr *trace) {
			tr.times(60, func(int) { tr.gc(second/60, 4, 4, 1, 4) }).times(100, func(int) { tr.gc(second, 4, 4, 1, 4) })
		}, []string{"gc-storm warning"}},
		{"49 in a second", func(tr *trace) { tr.times(200, func(int) { tr.gc(second/49, 4, 4, 1, 4) }) }, nil},
		{"60 in a second", func(tr *trace) { tr.times(200, func(int) { tr.gc(second/60, 4, 4, 1, 4) }) }, []string{"gc-storm warning"}},
		{"60 a second for long", func(tr *trace) { tr.times(900, func(int) { tr.gc(second/60, 4, 4, 1, 4) }) }, []string{"gc-storm critical"}},

		{"one long pause in a day", func(tr *trace) {
			tr.times(500, func(int) { tr.gc(second, 4, 4, 1, 4) }).gc(second, 4, 4, 1, 4, pause(40*time.Millisecond))
		}, nil},
		{"500 µs are no long pause", func(tr *trace) { tr.times(100, func(int) { tr.gc(second, 4, 4, 1, 4, pause(500*time.Microsecond)) }) }, nil},
		{"long pauses", func(tr *trace) { tr.times(100, func(int) { tr.gc(second, 4, 4, 1, 4, pause(510*time.Microsecond)) }) }, []string{"gc-pause info"}},
		{"very long pauses", func(tr *trace) { tr.times(100, func(int) { tr.gc(second, 4, 4, 1, 4, pause(20*time.Millisecond)) }) }, []string{"gc-pause warning"}},

		{"a small heap far over its goal", func(tr *trace) { tr.times(9, func(int) { tr.gc(second, 4, 20, 1, 4) }) }, nil},
		{"a large heap over its goal", func(tr *trace) {
			tr.times(9, func(int) { tr.gc(second, 190, 200, 100, 200) }).gc(second, 190, 280, 100, 200)
		}, []string{"gc-overshoot warning"}},
		{"one allocation passes the goal, and the line hides it", func(tr *trace) {
			tr.times(9, func(int) { tr.gc(second, 190, 200, 100, 200) }).gc(second, 904, 904, 100, 904)
		}, []string{"gc-overshoot warning"}},
		{"the same with an unknown GOGC", func(tr *trace) {
			tr.gc(second, 190, 200, 100, 200).gc(second, 904, 904, 100, 904)
		}, nil},

		{"GOGC=off", func(tr *trace) {
			tr.times(3, func(int) { tr.gc(second, 40, 40, 1, 0, unbounded, forced) })
		}, []string{"gc-off-no-limit warning"}},
		{"GOGC=off with a limit", func(tr *trace) { tr.times(3, func(int) { tr.gc(second, 540, 550, 200, 560) }) }, nil},

		{"back to back at the limit", func(tr *trace) {
			tr.times(40, func(int) { tr.gc(second/10, 480, 495, 480, 490, busy) })
		}, []string{"gc-death-spiral critical"}},
		{"back to back, and it frees half", func(tr *trace) {
			tr.times(40, func(int) { tr.gc(second/10, 480, 495, 240, 490, busy) })
		}, nil},
		{"somebody calls runtime.GC in a loop", func(tr *trace) {
			tr.times(40, func(int) { tr.gc(second/10, 480, 495, 480, 900, busy, forced) })
		}, nil},

		{"a spike is not returned", func(tr *trace) {
			tr.times(3, func(int) { tr.gc(second, 500, 510, 400, 800).scav(1, 10, 80) })
			tr.times(5, func(int) { tr.gc(second, 8, 9, 4, 9).scav(0, 10, 1) })
		}, []string{"scavenge-idle warning"}},
		{"a spike is not returned, and nothing was before", func(tr *trace) {
			tr.times(3, func(int) { tr.gc(second, 500, 510, 400, 800).scav(0, 10, 60) })
			tr.times(5, func(int) { tr.gc(second, 8, 9, 4, 9).scav(0, 10, 1) })
		}, []string{"scavenge-idle warning"}},
		{"a spike is returned", func(tr *trace) {
			tr.times(3, func(int) { tr.gc(second, 500, 510, 400, 800).scav(1, 10, 80) })
			tr.gc(second, 8, 9, 4, 9).scav(100, 110, 1).gc(second, 8, 9, 4, 9).scav(385, 495, 40)
			tr.times(5, func(int) { tr.gc(second, 8, 9, 4, 9).scav(0, 495, 60) })
		}, nil},
		{"idle memory below the goal is needed", func(tr *trace) {
			tr.gc(second, 190, 200, 100, 200)
			tr.times(9, func(int) { tr.gc(second, 110, 110, 100, 200, forced).scav(0, 0, 50) })
		}, nil},
		{"two idle lines are no pattern", func(tr *trace) {
			tr.times(3, func(int) { tr.gc(second, 500, 510, 400, 800).scav(1, 10, 80) })
			tr.times(2, func(int) { tr.gc(second, 8, 9, 4, 9).scav(0, 10, 1) })
		}, nil},
		{"what is retained grows with the heap", func(tr *trace) {
			tr.times(8, func(i int) {
				tr.gc(second, uint64(200+20*i), uint64(210+20*i), uint64(100+10*i), uint64(220+20*i)).scav(0, 0, 45)
			})
		}, []string{"scavenge-idle info"}},
		{"Go 1.12 prints what is retained", func(tr *trace) {
			tr.gc(second, 500, 510, 4, 510).gc(second, 8, 9, 4, 9)
			tr.times(3, func(int) { tr.line("scvg3: inuse: 5, idle: 505, sys: 510, released: 0, consumed: 510 (MB)") })
		}, []string{"scavenge-idle warning"}},
		{"a torn line may have been a cycle", func(tr *trace) {
			tr.times(3, func(int) { tr.gc(second, 500, 510, 400, 800).scav(1, 10, 80) })
			tr.times(5, func(int) { tr.gc(second, 8, 9, 4, 9).line("gc 7 @").scav(0, 10, 1) })
		}, nil},

		{"the live heap grows", func(tr *trace) {
			tr.times(60, func(i int) { tr.gc(second, uint64(100+3*i), uint64(102+3*i), uint64(50+2*i), uint64(104+4*i)) })
		}, []string{"heap-growth warning"}},
		{"the live heap grows under noise", func(tr *trace) {
			noise := rand.New(rand.NewPCG(1, 2))
			tr.times(600, func(i int) {
				live := uint64(100+i/2) + noise.Uint64N(20)
				tr.gc(second, 2*live-2, 2*live, live, 2*live)
			})
		}, []string{"heap-growth warning"}},
		{"a saw tooth does not grow", func(tr *trace) {
			tr.times(600, func(i int) { tr.gc(second, 290, 295, uint64(100+i%100), 300) })
		}, nil},
		{"a restart ends the growth", func(tr *trace) {
			tr.times(60, func(i int) { tr.gc(second, uint64(100+3*i), uint64(102+3*i), uint64(50+2*i), uint64(104+4*i)) })
			tr.c.N, tr.c.At = 0, 0
			tr.times(60, func(i int) { tr.gc(second, 100, 102, 50, 104) })
		}, nil},
		{"a periodic cycle every two minutes", func(tr *trace) {
			tr.times(20, func(i int) { tr.line("GC forced").gc(2*minute, 5, 5, 2, 5) })
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tr := newTrace()
			test.tr(tr)
			r := tr.report(t)
			var got []string
			for _, f := range r.Findings {
				got = append(got, f.ID+" "+string(f.Severity))
			}
			assert.Equal(t, test.want, got, "%+v", r.Findings)
			assert.NotEmpty(t, r.Verdict)
		})
	}
}

func TestFigures(t *testing.T) {
	t.Parallel()
	tr := newTrace()
	tr.times(99, func(i int) {
		tr.gc(100*time.Millisecond, 10, 11, 5, 12, func(c *Cycle) { c.MarkTerm = time.Duration(i+1) * 10 * time.Microsecond })
	})
	tr.c.N += 2 // two lines were lost
	tr.line("GC forced").gc(100*time.Millisecond, 10, 11, 6, 12).scav(3, 4, 50)
	tr.c.N, tr.c.At = 0, 0
	tr.gc(0, 10, 11, 7, 12, func(c *Cycle) { c.Note = LeakCheck; c.Forced = true; c.Suffix = ", 1 X" })
	r := tr.line("hello").line(whole[:30]).report(t)

	assert.Equal(t, 101, r.Cycles)
	assert.Equal(t, 1, r.Forced)
	assert.Equal(t, 1, r.Periodic)
	assert.Equal(t, 1, r.LeakChecks)
	assert.Equal(t, 2, r.Runs)
	assert.EqualValues(t, 2, r.MissingCycles)
	assert.Equal(t, 1, r.SkippedLines)
	assert.Equal(t, 1, r.SyntaxErrors)
	assert.Equal(t, []SyntaxError{{Line: 105, Text: strings.TrimRight(whole[:30], " ")}}, r.FirstSyntaxErrors)
	assert.Equal(t, 1, r.UnknownTextLines)
	assert.Equal(t, 105, r.Lines)

	observed, _ := r.Observed.Get()
	assert.InDelta(t, 9.9, observed, 1e-9)
	rate, _ := r.CyclesPerSecond.Get()
	assert.InDelta(t, (98+1+2)/9.9, rate, 1e-9)
	most, _ := r.MostInOneSecond.Get()
	assert.Equal(t, 10, most)
	assert.Equal(t, uint64(49), r.MarkTermination.Over500us)
	assert.InDelta(t, 490e-6, r.MarkTermination.P50, 1e-12)
	assert.InDelta(t, 890e-6, r.MarkTermination.P90, 1e-12)
	assert.InDelta(t, 980e-6, r.MarkTermination.P99, 1e-12)
	assert.InDelta(t, 990e-6, r.MarkTermination.Max, 1e-12)
	cpu, _ := r.GCCPU.Get()
	assert.InDelta(t, 0.5e-3/(0.1*2), cpu, 1e-9, "half a millisecond of two CPUs' 100 ms")
	assert.EqualValues(t, 7*mib, r.Heap.Live)
	assert.EqualValues(t, 3*mib, r.Scavenger.Returned)
}

// TestUnknown checks that what the lines do not show is null or absent.
func TestUnknown(t *testing.T) {
	t.Parallel()
	decode := func(text string) map[string]any {
		encoded, err := json.Marshal(summarize(t, []byte(text)))
		require.NoError(t, err)
		var m map[string]any
		require.NoError(t, json.Unmarshal(encoded, &m))
		for _, key := range []string{"cycles", "forced", "scavenges", "skipped_lines", "syntax_errors", "findings"} {
			assert.Contains(t, m, key)
			assert.NotNil(t, m[key], key)
		}
		return m
	}
	m := decode("hello\n")
	for _, key := range []string{"observed_seconds", "cycles_per_second", "gc_cpu_ratio", "gc_cpu_since_start_ratio", "overshoots"} {
		assert.Contains(t, m, key)
		assert.Nil(t, m[key], key)
	}
	for _, key := range []string{"scavenger", "heap", "mark_termination"} {
		assert.NotContains(t, m, key)
	}
	m = decode(whole + "\n")
	assert.Nil(t, m["gc_cpu_ratio"], "one cycle has no interval")
	assert.EqualValues(t, 0.05, m["gc_cpu_since_start_ratio"])
	assert.Nil(t, m["inferred_gogc_percent"])
	assert.Nil(t, m["hidden_overshoots"])
	assert.NotContains(t, m, "scavenger")
	m = decode("scav 8 KiB work (bg), 0 KiB work (eager), 16 KiB now, 47% util\n")
	assert.Nil(t, m["scavenger"].(map[string]any)["idle_min_bytes"], "the live heap is unknown")
	m = decode("scvg3: inuse: 1, idle: 2, sys: 3, released: 1, consumed: 2 (MB)\n")
	assert.Nil(t, m["scavenger"].(map[string]any)["utilization_ratio"])
	assert.EqualValues(t, 2*mib, m["scavenger"].(map[string]any)["retained_min_bytes"])
}

// TestHistogram compares with sorted values of every shape that is printed.
func TestHistogram(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		var h histogram
		var all []time.Duration
		for range 1 + random.IntN(2000) {
			d := time.Duration(random.ExpFloat64() * float64(random.Int64N(int64(2*time.Second))))
			printed := append(appendMS(nil, d), strings.Repeat(" ", lineSlack)...)
			d, _ = milliseconds(printed, 0)
			h.add(d)
			all = append(all, d)
		}
		slices.Sort(all)
		for _, permille := range []uint64{1, 500, 900, 990, 999, 1000} {
			rank := (len(all)*int(permille) + 999) / 1000
			want := all[rank-1]
			got := h.quantile(permille)
			if want < time.Second {
				assert.Equal(t, want, got)
			} else {
				assert.InEpsilon(t, want, got, 1.0/16)
				assert.LessOrEqual(t, got, want)
			}
		}
	}
	assert.Less(t, bucket(1<<63-1), len(histogram{}.buckets))
	var h histogram
	assert.Zero(t, h.quantile(990))
}

func TestPointMerge(t *testing.T) {
	t.Parallel()
	p := Point{From: 1, To: 2, Cycles: 2, Start: 5, End: 6, Live: 4, Floor: 3}
	p.merge(Point{From: 3, To: 4, Cycles: 1, Start: 4, End: 7, Live: 2, Floor: 2, Goal: Some[uint64](8)})
	assert.Equal(t, Point{From: 1, To: 4, Cycles: 3, Start: 5, End: 7, Live: 2, Floor: 2, Goal: Some[uint64](8)}, p)
	p.merge(Point{From: 5, To: 5, Cycles: 1, Start: 1, End: 1, Live: 9, Floor: 9})
	assert.Equal(t, Point{From: 1, To: 5, Cycles: 4, Start: 5, End: 7, Live: 9, Floor: 2, Goal: Some[uint64](8)}, p)
}

// TestBounded feeds a long stream and looks at what is kept.
func TestBounded(t *testing.T) {
	t.Parallel()
	var s Summary
	c := newTrace().c
	for i := range 100_000 {
		c.N, c.At, c.HeapLive = uint32(i+1), time.Duration(i)*10*time.Millisecond, uint64(i)*kib
		s.Add(&c)
		s.Add(&SyntaxError{Line: i})
	}
	r := s.Report()
	assert.LessOrEqual(t, len(r.Series), maxPoints)
	assert.GreaterOrEqual(t, len(r.Series), maxPoints/2)
	assert.Len(t, r.FirstSyntaxErrors, maxFirstErrors)
	assert.Equal(t, 100_000, r.SyntaxErrors)
	cycles := 0
	for i, p := range r.Series {
		cycles += p.Cycles
		if i > 0 {
			assert.Greater(t, p.From, r.Series[i-1].To)
		}
	}
	assert.Equal(t, 100_000, cycles, "no cycle is lost")
	growth, _ := r.Heap.Growth.Get()
	assert.InEpsilon(t, 100*kib, growth, 0.01)
}

// TestTornRecording reads a recording in which a program's own log tears some
// cycles. TestTorn makes such a stream anew.
func TestTornRecording(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/torn.txt")
	require.NoError(t, err)
	got := read(t, bytes.NewReader(text))
	intact := regexp.MustCompile(`(?m)^gc \d+ @[\d.]+s \d+%: [^\n]* P$`).FindAllString(string(text), -1)
	require.Len(t, got.cycles, len(intact))
	for i, line := range intact {
		assert.Equal(t, line, got.cycles[i].String())
	}
	assert.NotEmpty(t, got.errors)
	for _, e := range got.errors {
		assert.NotRegexp(t, ` P$`, e.Text)
	}
	r := summarize(t, text).Report()
	last := got.cycles[len(got.cycles)-1].N
	assert.EqualValues(t, last, uint64(r.Cycles)+r.MissingCycles+uint64(got.cycles[0].N-1), "every cycle is read or known to be missing")
	assert.Equal(t, 1, r.Runs)
}
