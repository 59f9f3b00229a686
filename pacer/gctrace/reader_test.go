// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Independent statements of the other lines, beside cycleLine.
var (
	scavLine = regexp.MustCompile(`^scav (?:(\d+) )?(\d+) KiB work(?: \(bg\), (\d+) KiB work \(eager\))?, (\d+) KiB (?:total|now), (\d+)% util( \(forced\)| \[controller reset\])?$`)
	scvgLine = regexp.MustCompile(`^(forced )?scvg-?\d*: (\d+ MB released|inuse: \d+, idle: \d+, sys: \d+, released: \d+, consumed: \d+ \(MB\))$`)
)

// read returns copies of all records in text, by kind.
type records struct {
	cycles    []Cycle
	scavenges []Scavenge
	notices   []Notice
	errors    []SyntaxError
	all       []any
	skipped   int
	lines     int
}

func read(t testing.TB, in io.Reader) (all records) {
	t.Helper()
	r := NewReader(in)
	for r.Scan() {
		switch rec := r.Record().(type) {
		case *Cycle:
			all.cycles = append(all.cycles, *rec)
			all.all = append(all.all, *rec)
		case *Scavenge:
			all.scavenges = append(all.scavenges, *rec)
			all.all = append(all.all, *rec)
		case *Notice:
			all.notices = append(all.notices, *rec)
			all.all = append(all.all, *rec)
		case *SyntaxError:
			all.errors = append(all.errors, *rec)
			all.all = append(all.all, *rec)
		default:
			require.Failf(t, "unknown record", "%T", rec)
		}
	}
	require.NoError(t, r.Err())
	all.lines, all.skipped = r.Lines(), r.Skipped()
	require.Equal(t, all.lines, all.skipped+len(all.all), "every line is a record or skipped")
	return all
}

func fixtures(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/go1.*.txt")
	require.NoError(t, err)
	require.Greater(t, len(files), 50, "recordings are missing; see testdata/record.sh")
	return files
}

// TestRecordings reads what real releases printed. Every line of the runtime's
// must be a record, equal to what an independent expression finds in it, and
// print as it was read.
func TestRecordings(t *testing.T) {
	t.Parallel()
	for _, file := range fixtures(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			got := read(t, bytes.NewReader(text))
			assert.Empty(t, got.errors)
			assert.Zero(t, got.skipped, "these programs print nothing of their own")

			var cycles, scavenges int
			for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
				switch {
				case strings.HasPrefix(line, "gc "):
					var want Cycle
					require.True(t, viaRegexp([]byte(line), &want), line)
					want.Line = i + 1
					require.Equal(t, want, got.cycles[cycles])
					require.Equal(t, line, got.cycles[cycles].String())
					cycles++
				case strings.HasPrefix(line, "scav ") || strings.Contains(line, "scvg"):
					require.True(t, scavLine.MatchString(line) || scvgLine.MatchString(line), line)
					require.Equal(t, i+1, got.scavenges[scavenges].Line)
					require.Equal(t, line, got.scavenges[scavenges].String())
					scavenges++
				}
			}
			assert.Len(t, got.cycles, cycles)
			assert.Len(t, got.scavenges, scavenges)
			assert.Equal(t, cycles+scavenges+len(got.notices), got.lines)
			assert.NotZero(t, cycles)
		})
	}
}

// TestReleases pins what tells the releases' recordings apart, so that a
// recording made with the wrong toolchain is noticed.
func TestReleases(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		file       string
		roots      bool
		forms      []Form
		generation bool
	}{
		{"go1.9.7", false, []Form{ScvgReleased, ScvgHeap}, false},
		{"go1.10.8", false, []Form{ScvgReleased, ScvgHeap}, false},
		{"go1.11.13", false, []Form{ScvgReleased, ScvgHeap}, false},
		{"go1.12.17", false, []Form{ScvgReleased, ScvgHeap}, false},
		{"go1.13.15", false, []Form{ScvgReleased, ScvgHeap}, false},
		{"go1.14.15", false, []Form{ScavTotal}, false},
		{"go1.15.15", false, []Form{ScavTotal}, true},
		{"go1.16.15", false, []Form{ScavTotal}, true},
		{"go1.17.13", false, []Form{ScavTotal}, true},
		{"go1.18.10", true, []Form{ScavTotal}, true},
		{"go1.20.14", true, []Form{ScavTotal}, false},
		{"go1.21.13", true, []Form{ScavNow}, false},
		{"go1.22.12", true, []Form{ScavNow}, false},
		{"go1.23.12", true, []Form{ScavNow}, false},
		{"go1.24.13", true, []Form{ScavNow}, false},
		{"go1.25.8", true, []Form{ScavNow}, false},
		{"go1.26.8", true, []Form{ScavNow}, false},
		{"go1.27.3", true, []Form{ScavNow}, false},
	} {
		f, err := os.Open("testdata/" + test.file + ".txt")
		require.NoError(t, err)
		defer f.Close()
		got := read(t, f)
		forms := map[Form]bool{}
		forced := false
		for _, s := range got.scavenges {
			forms[s.Form] = true
			forced = forced || s.Forced
			_, ok := s.Generation.Get()
			assert.Equal(t, test.generation, ok, "%s: %v", test.file, &s)
		}
		assert.True(t, forced, "%s: debug.FreeOSMemory was called", test.file)
		assert.Len(t, forms, len(test.forms), test.file)
		for _, form := range test.forms {
			assert.True(t, forms[form], "%s has form %d", test.file, form)
		}
		for _, c := range got.cycles {
			_, ok := c.Stacks.Get()
			assert.Equal(t, test.roots, ok, "%s: %v", test.file, &c)
		}
		off, err := os.Open("testdata/" + test.file + "-off.txt")
		require.NoError(t, err)
		defer off.Close()
		for _, c := range read(t, off).cycles {
			assert.True(t, c.GoalUnbounded(), "%s: %v", test.file, &c)
			assert.True(t, c.Forced, "%s: %v", test.file, &c)
		}
	}
}

func TestCycle(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, test := range []struct {
		name, line string
		want       Cycle
	}{
		{"go1.26", "gc 62 @10.250s 2%: 0.055+12+0.10 ms clock, 0.11+0.031/1.5/0+0.20 ms cpu, 40->54->25 MB, 50 MB goal, 3 MB stacks, 1 MB globals, 2 P (forced)", Cycle{
			Line: 1, N: 62, At: 10250 * ms, CPUPercent: 2,
			SweepTerm: 55 * time.Microsecond, Mark: 12 * ms, MarkTerm: 100 * time.Microsecond,
			SweepTermCPU: 110 * time.Microsecond, AssistCPU: 31 * time.Microsecond, MarkCPU: 1500 * time.Microsecond, MarkTermCPU: 200 * time.Microsecond,
			HeapStart: 40 << 20, HeapEnd: 54 << 20, HeapLive: 25 << 20, HeapGoal: 50 << 20,
			Stacks: Some[uint64](3 << 20), Globals: Some[uint64](1 << 20), Procs: 2, Forced: true,
		}},
		{"large numbers", "gc 4294967295 @1234567.891s 100%: 12345678+123456789+0 ms clock, 1.0+2.0/3.0/4.0+5.0 ms cpu, 123456789->0->1099511627775 MB, 17592186044415 MB goal, 4096 P", Cycle{
			Line: 1, N: 4294967295, At: 1234567891 * ms, CPUPercent: 100,
			SweepTerm: 12345678 * ms, Mark: 123456789 * ms,
			SweepTermCPU: 1 * ms, AssistCPU: 2 * ms, MarkCPU: 3 * ms, IdleCPU: 4 * ms, MarkTermCPU: 5 * ms,
			HeapStart: 123456789 << 20, HeapLive: 1099511627775 << 20, HeapGoal: 17592186044415 << 20, Procs: 4096,
		}},
	} {
		got := read(t, strings.NewReader(test.line))
		require.Len(t, got.cycles, 1, "%s: %v", test.name, got.errors)
		assert.Equal(t, test.want, got.cycles[0], test.name)
		assert.Equal(t, test.line, got.cycles[0].String(), test.name)
	}
}

const whole = "gc 12 @1.234s 5%: 0.1+2.0+0.3 ms clock, 0.2+0.1/0.2/0.3+0.4 ms cpu, 4->5->3 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 2 P"

// TestAround puts text where a later release, a log collector or another
// writer may put it.
func TestAround(t *testing.T) {
	t.Parallel()
	const scav = "scav 8 KiB work (bg), 0 KiB work (eager), 16 KiB now, 47% util"
	for _, test := range []struct {
		name, line   string
		kind         string // what it is: c, s, n, an error or skipped
		note, suffix string
		forced       bool
	}{
		{"whole", whole, "c", "", "", false},
		{"forced", whole + " (forced)", "c", "", "", true},
		{"carriage return", whole + " (forced)\r", "c", "", "", true},
		{"spaces at the end", whole + "  ", "c", "", "", false},
		{"leak check", strings.Replace(whole, "5%:", "5% (checking for goroutine leaks):", 1), "c", LeakCheck, "", false},
		{"new note", strings.Replace(whole, "5%:", "5% [phase 2 of 3]:", 1), "c", "[phase 2 of 3]", "", false},
		{"new column", whole + ", 7 X", "c", "", ", 7 X", false},
		{"new word behind forced", whole + " (forced) (twice)", "c", "", " (twice)", true},
		{"glued to the end", whole + "2026/11/21 hello", "error", "", "", false},
		{"too much behind", whole + " " + strings.Repeat("x", 200), "error", "", "", false},
		{"too much note", strings.Replace(whole, "5%:", "5% "+strings.Repeat("x", 200)+":", 1), "error", "", "", false},
		{"empty note", strings.Replace(whole, "5%:", "5% :", 1), "error", "", "", false},

		{"kubectl", "2026-11-21T20:26:16.123456789Z " + whole, "c", "", "", false},
		{"cri", "2026-11-21T20:26:16.123456789Z stderr F " + whole, "c", "", "", false},
		{"journald", "Nov 21 20:26:16 host svc[123]: " + whole + " (forced)", "c", "", "", true},
		{"compose", "svc-1  | " + whole, "c", "", "", false},
		{"service named gc", "gc | " + whole, "c", "", "", false},
		{"left open", "progress 5%" + whole, "c", "", "", false},
		{"journald scav", "Nov 21 20:26:16 host svc[123]: " + scav, "s", "", "", false},
		{"journald scvg", "Nov 21 20:26:16 host svc[123]: scvg3: 106 MB released", "s", "", "", false},
		{"journald scvg forced", "Nov 21 host svc[1]: forced scvg: inuse: 1, idle: 2, sys: 3, released: 1, consumed: 2 (MB)", "s", "", "", true},
		{"two processes", "gc 5 @1.0s 5%: 0.1+2.0+0.3 ms clock, 0.2+0.1/0.2/0.3+0.4 ms cpu, 4->5->3 MB, 4 MB goal, " + whole, "error", "", "", false},
		{"two processes, one number", "gc " + whole, "error", "", "", false},
		{"a fragment in front", "x 3 MB, 4 MB goal, " + whole, "error", "", "", false},

		{"torn in the number", "gc 1220:26:16 hello", "error", "", "", false},
		{"torn behind the number", "gc 12", "error", "", "", false},
		{"torn in the middle", whole[:70] + "2026/11/21 hello", "error", "", "", false},
		{"torn behind a prefix", "Nov 21 20:26:16 host svc[1]: " + whole[:70], "error", "", "", false},
		{"tail", whole[70:], "skipped", "", "", false},
		{"torn scav", "scav 8 KiB wo", "error", "", "", false},
		{"torn scvg", "scvg3: inuse: 1, idle: 2", "error", "", "", false},
		{"torn forced scvg", "forced scvg: inuse", "error", "", "", false},

		{"scav", scav, "s", "", "", false},
		{"scav forced", scav + " (forced)", "s", "", "", true},
		{"scav new column", scav + ", 5% new", "s", "", ", 5% new", false},
		{"scav of no release", "scav 3 8 KiB work (bg), 0 KiB work (eager), 16 KiB now, 47% util", "error", "", "", false},
		{"scav glued", scav + "hello", "error", "", "", false},
		{"notice", "GC forced", "n", "", "", false},
		{"scan", "scan: class 48B 1+80+0=81 objs, 2+0=2 spans", "n", "", "", false},
		{"pacer", "pacer: 33% CPU (25 exp.) for 54784+2120+156938 B work", "n", "", "", false},

		{"empty", "", "skipped", "", "", false},
		{"log", "2026/11/21 20:26:16 hello", "skipped", "", "", false},
		{"mail", "gc team <gc 7 @example.com>", "skipped", "", "", false},
		{"at", "user @ 5 @5", "skipped", "", "", false},
		{"pacer of another", "pacer: slow down", "skipped", "", "", false},
		{"pacer alone", "pacer: ", "skipped", "", "", false},
		{"checkfinalizers", "checkfinalizers: queue: 1 finalizers + 2 cleanups", "skipped", "", "", false},
		{"schedtrace", "SCHED 0ms: gomaxprocs=2 idleprocs=1 threads=5", "skipped", "", "", false},
		{"inittrace", "init internal/bytealg @0.008 ms, 0 ms clock, 0 bytes, 0 allocs", "skipped", "", "", false},
		{"gc word", "gc sweep finished", "skipped", "", "", false},
		{"util", "disk 97% util", "skipped", "", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			// The lines around it must not be lost.
			got := read(t, strings.NewReader(whole+"\n"+test.line+"\n"+whole+"\n"))
			require.Equal(t, 3, got.lines)
			if test.kind == "skipped" {
				require.Equal(t, 1, got.skipped, "%+v", got.all)
				return
			}
			require.Zero(t, got.skipped)
			switch rec := got.all[1].(type) {
			case Cycle:
				assert.Equal(t, "c", test.kind)
				assert.Equal(t, test.forced, rec.Forced)
				assert.Equal(t, test.note, rec.Note)
				assert.Equal(t, test.suffix, rec.Suffix)
				rec.Line, rec.Forced, rec.Note, rec.Suffix = 1, false, "", ""
				assert.Equal(t, got.cycles[0], rec)
			case Scavenge:
				assert.Equal(t, "s", test.kind)
				assert.Equal(t, test.forced, rec.Forced)
				assert.Equal(t, test.suffix, rec.Suffix)
			case Notice:
				assert.Equal(t, "n", test.kind)
			case SyntaxError:
				assert.Equal(t, "error", test.kind, "%+v", rec)
				assert.Equal(t, 2, rec.Line)
				assert.True(t, strings.HasPrefix(test.line, rec.Text))
			}
		})
	}
}

// TestWrongNumbers changes one number of a whole line at a time into
// something that is not one.
func TestWrongNumbers(t *testing.T) {
	t.Parallel()
	numbers := regexp.MustCompile(`[0-9.]+`).FindAllStringIndex(whole, -1)
	require.Len(t, numbers, 18)
	for _, number := range numbers {
		for _, wrong := range []string{"", "x", "-1", "1e3", ".", ".5", "5.", "1.2.3", "1..2", "1,2", "99999999999999999999", "999999999999999999999999", "1.0000000001", "\xb1"} {
			line := whole[:number[0]] + wrong + whole[number[1]:]
			got := read(t, strings.NewReader(line+"\n"))
			assert.Empty(t, got.cycles, "%q in %q", wrong, line)
		}
	}
}

func TestLongLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine)
	for _, test := range []struct {
		name, line string
		errors     int
		cycles     int
	}{
		{"foreign, as long as may be", long, 0, 0},
		{"foreign, too long", long + "x", 0, 0},
		{"very long", strings.Repeat(long, 50), 0, 0},
		{"ours at the end, as long as may be", long[len(whole):] + whole, 0, 1},
		{"ours at the end, too long", long[len(whole)-1:] + whole, 0, 0},
		{"ours at the start", whole + long, 1, 0},
	} {
		for _, end := range []string{"\n" + whole + "\n", "\n" + whole} {
			got := read(t, strings.NewReader(whole+"\n"+test.line+end))
			assert.Len(t, got.errors, test.errors, test.name)
			assert.Len(t, got.cycles, test.cycles+2, test.name)
			assert.Equal(t, 3, got.lines, test.name)
			for _, e := range got.errors {
				assert.Len(t, e.Text, maxText)
			}
		}
	}
}

// TestChunks reads a stream in pieces of every kind: the records must not
// depend on them.
func TestChunks(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/go1.26.8.txt")
	require.NoError(t, err)
	text = append(text, strings.Repeat("y", maxLine+1)...)
	text = append(text, "\nfoo\n"+whole...)
	want := read(t, bytes.NewReader(text))
	for name, in := range map[string]io.Reader{
		"one byte":  iotest.OneByteReader(bytes.NewReader(text)),
		"half":      iotest.HalfReader(bytes.NewReader(text)),
		"data, EOF": iotest.DataErrReader(bytes.NewReader(text)),
	} {
		assert.Equal(t, want, read(t, in), name)
	}
}

// TestFollows checks that a record comes out as soon as its line is complete.
func TestFollows(t *testing.T) {
	t.Parallel()
	in, out := io.Pipe()
	go func() {
		io.WriteString(out, whole[:50])
		io.WriteString(out, whole[50:]+"\n") // and never an end
	}()
	r := NewReader(in)
	require.True(t, r.Scan())
	require.IsType(t, &Cycle{}, r.Record())
}

func TestReadErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("pipe is broken")
	r := NewReader(io.MultiReader(strings.NewReader(whole+"\n"+whole), iotest.ErrReader(broken)))
	require.True(t, r.Scan())
	require.True(t, r.Scan(), "what came before the error counts")
	require.False(t, r.Scan())
	require.ErrorIs(t, r.Err(), broken)
	require.False(t, r.Scan())
	require.Nil(t, r.Record())

	r = NewReader(stuck{})
	require.False(t, r.Scan())
	require.ErrorIs(t, r.Err(), io.ErrNoProgress)
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func TestProcessAllocations(t *testing.T) {
	text, err := os.ReadFile("testdata/go1.27.3.txt")
	require.NoError(t, err)
	text = append(text, strings.Replace(whole, "5%:", "5% (future):", 1)+" (new)\nforeign\n"...)
	text = bytes.Repeat(text, 50)
	r := NewReader(nil)
	var in bytes.Reader
	perRun := testing.AllocsPerRun(20, func() {
		in.Reset(text)
		*r = Reader{src: &in, buf: r.buf, note: r.note, tail: r.tail}
		for r.Scan() {
		}
	})
	assert.Zero(t, perRun, "allocations for %d lines", r.Lines())
}
