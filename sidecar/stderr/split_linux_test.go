// SPDX-License-Identifier: Apache-2.0

package stderr

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/memguard/memguard-go/pacer/gctrace"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// As Go 1.26 prints them, and 1.25, 1.17; a | is where one write ends.
var printed = map[string]string{
	"go1.26": "gc |12| @|3.015|s |2|%|: |0.015|+|1.2|+|0.003| ms clock, |0.030|+|0.10|/|0.5|/|0|+|0.006| ms cpu, |4|->|5|->|1| MB, |5| MB goal, |0| MB stacks, |1| MB globals, |2| P|\n|",
	"leak":   "gc |12| @|3.015|s |2|%| (checking for goroutine leaks)|: |0.015|+|1.2|+|0.003| ms clock, |0.030|+|0.10|/|0.5|/|0|+|0.006| ms cpu, |4|->|5|->|1| MB, |5| MB goal, |0| MB stacks, |1| MB globals, |2| P| (forced)|\n|",
	"go1.25": "gc |12| @|3.015|s |2|%: |0.015|+|1.2|+|0.003| ms clock, |0.030|+|0.10|/|0.5|/|0|+|0.006| ms cpu, |4|->|5|->|1| MB, |5| MB goal, |0| MB stacks, |1| MB globals, |2| P| (forced)|\n|",
	"go1.17": "gc |12| @|3.015|s |2|%: |0.015|+|1.2|+|0.003| ms clock, |0.030|+|0.10|/|0.5|/|0|+|0.006| ms cpu, |4|->|5|->|1| MB, |5| MB goal, |2| P|\n|",
}

func writes(s string) []string { return strings.Split(strings.TrimSuffix(s, "|"), "|") }

// split returns what is passed on and the lines taken.
func split(keep bool, packets ...string) (passed string, lines []string, s *splitter) {
	var out strings.Builder
	s = &splitter{
		keep:  keep,
		pass:  func(b []byte) { out.Write(b) },
		cycle: func(b []byte) { lines = append(lines, string(b)) },
	}
	for _, p := range packets {
		s.packet([]byte(p))
	}
	s.give()
	return out.String(), lines, s
}

func TestSplit(t *testing.T) {
	t.Parallel()
	for name, text := range printed {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pieces := writes(text)
			line := strings.Join(pieces, "")
			var parser parser
			require.IsType(t, &gctrace.Cycle{}, parser.parse([]byte(line)))

			passed, lines, s := split(false, pieces...)
			assert.Empty(t, passed)
			assert.Equal(t, []string{line}, lines)
			assert.Zero(t, s.torn)

			passed, lines, _ = split(true, pieces...)
			assert.Equal(t, line, passed, "who asked for it gets it")
			assert.Equal(t, []string{line}, lines, "and so do we")

			// A log line between any two pieces, or several between all.
			const log = `{"level":"info","msg":"gc is fine"}` + "\n"
			all := []string{}
			for i := range pieces {
				packets := append(append(append([]string{}, pieces[:i]...), log), pieces[i:]...)
				passed, lines, _ := split(false, packets...)
				assert.Equal(t, log, passed, "at %d", i)
				assert.Equal(t, []string{line}, lines, "at %d", i)
				all = append(all, log, pieces[i])
			}
			passed, lines, _ = split(false, all...)
			assert.Equal(t, strings.Repeat(log, len(pieces)), passed)
			assert.Equal(t, []string{line}, lines)

			// The stream ends in it.
			for i := 1; i < len(pieces); i++ {
				passed, lines, s := split(false, pieces[:i]...)
				assert.Equal(t, strings.Join(pieces[:i], ""), passed)
				assert.Empty(t, lines)
				assert.Equal(t, uint64(map[bool]int{true: 1}[i > 2]), s.torn, "%d pieces", i)
			}
		})
	}
}

func TestSplitWhatIsNotTheRuntimes(t *testing.T) {
	t.Parallel()
	line := strings.ReplaceAll(printed["go1.26"], "|", "")
	for name, packets := range map[string][]string{
		"a whole line in one write is the service's own":   {line},
		"lines of the service that begin like ours":        {"gc ", "is fun\n", "gc ", "7", " things\n", "gc"},
		"numbers and pieces without a line":                {"7", "+", " ms clock, ", "\n"},
		"binary":                                           {"\x00\xff", "gc \x00", "gc ", "\x00"},
		"a NUL after gc":                                   {"gc ", "\x00", "7"},
		"a long write while in doubt":                      {"gc ", strings.Repeat("x", maxHeld+1), "12", " @"},
		"two processes: nobody knows whose the pieces are": {"gc ", "1", " @", "gc ", "2", " @", "0.1", "s "},
	} {
		passed, lines, s := split(false, packets...)
		assert.Equal(t, strings.Join(packets, ""), passed, name)
		assert.Empty(t, lines, name)
		assert.False(t, s.unsure, name)
	}
	passed, _, _ := split(false, "a", "GC forced\n", "b")
	assert.Equal(t, "ab", passed, "gctrace=1 prints it, too")
	passed, _, _ = split(true, "a", "GC forced\n", "b")
	assert.Equal(t, "aGC forced\nb", passed)
}

// Nothing is lost and nothing is made up, whatever comes.
func FuzzSplit(f *testing.F) {
	f.Add([]byte(printed["go1.26"]), false)
	f.Add([]byte(strings.ReplaceAll(printed["leak"], "->|", "->|x|")), true)
	f.Add([]byte("gc |gc |1|gc | @|1|"), false)
	f.Fuzz(func(t *testing.T, b []byte, keep bool) {
		packets := strings.Split(string(b), "|")
		passed, lines, s := split(keep, packets...)
		in, out := strings.Join(packets, ""), passed
		if keep {
			if out != in {
				t.Fatalf("%q became %q", in, out)
			}
			return
		}
		out += strings.Join(lines, "") + strings.Repeat("GC forced\n", strings.Count(in, "GC forced\n"))
		count := func(s string) (n [256]int) {
			for i := range len(s) {
				n[s[i]]++
			}
			return n
		}
		have, want := count(out), count(in)
		for c := range want {
			if have[c] < want[c] {
				t.Fatalf("byte %q: %d of %d", byte(c), have[c], want[c])
			}
		}
		if len(s.line) > 0 || len(s.held) > 0 || len(s.others) > 0 {
			t.Fatal("something is still held")
		}
		var p parser
		for _, l := range lines {
			if p.parse([]byte(l)) == nil {
				t.Fatalf("%q is no line of the runtime's", l)
			}
		}
	})
}

func TestRing(t *testing.T) {
	t.Parallel()
	var r ring
	var all []byte
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		p := make([]byte, rnd.IntN(3000))
		if rnd.IntN(50) == 0 {
			p = make([]byte, TailSize-1+rnd.IntN(3))
		}
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		r.add(p)
		all = append(all, p...)
		if !bytes.Equal(r.bytes(), all[max(0, len(all)-TailSize):]) {
			t.Fatal("not the last of it")
		}
	}
}

// What the splitter does to a stream of log lines in packets of 4 KiB, and of one
// line each.
func BenchmarkSplit(b *testing.B) {
	line := []byte(`time=2026-11-22T03:00:00Z level=INFO msg="order placed" id=12345 user=678 took=1.2ms` + "\n")
	for name, packet := range map[string][]byte{"4KiB": bytes.Repeat(line, 4096/len(line)), "line": line} {
		b.Run(name, func(b *testing.B) {
			n := 0
			s := splitter{pass: func(b []byte) { n += len(b) }}
			b.SetBytes(int64(len(packet)))
			b.ReportAllocs()
			for b.Loop() {
				s.packet(packet)
			}
		})
	}
	b.Run("collection", func(b *testing.B) {
		var pieces [][]byte
		size := 0
		for _, p := range writes(printed["go1.26"]) {
			pieces = append(pieces, []byte(p))
			size += len(p)
		}
		s := splitter{pass: func([]byte) {}, cycle: func([]byte) {}}
		b.SetBytes(int64(size))
		b.ReportAllocs()
		for b.Loop() {
			for _, p := range pieces {
				s.packet(p)
			}
		}
	})
}
