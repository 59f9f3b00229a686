// SPDX-License-Identifier: Apache-2.0

package stderr

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// stacks are those of so many goroutines, as the runtime prints them.
func stacks(from, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\ngoroutine %d [chan receive, 2 minutes]:\nmain.worker(0xc000012345)\n\t/src/pool.go:30 +0x1d\ncreated by main.start in goroutine 1\n\t/src/pool.go:12 +0x25\n", from+i)
	}
	return b.String()
}

const (
	running = "\ngoroutine 1 [running]:\nmain.die(...)\n\t/src/main.go:7\n"
	crash   = "\ngoroutine 12345678 gp=0xc000123456 m=12 mp=0xc000580008 [chan receive, 10 minutes, locked to thread]:\nmain.die(...)\n\t/src/main.go:7\n"
)

// kept feeds a stream in pieces of one size, and returns what is kept of it.
func kept(stream string, piece int) string {
	var r ring
	var d dump
	for b := []byte(stream); len(b) > 0; {
		n := min(piece, len(b))
		r.add(b[:n])
		d.add(b[:n])
		b = b[n:]
	}
	return string(d.before(r.bytes()))
}

var gapLine = regexp.MustCompile(`\n\[memguard: ([0-9]+) bytes are missing here\]\n\n`)

// begins is what stands before the gap, and what is missing in it; empty without one.
func begins(text string) (head string, missing int) {
	m := gapLine.FindStringSubmatchIndex(text)
	if m == nil {
		return "", 0
	}
	missing, _ = strconv.Atoi(text[m[2]:m[3]])
	return text[:m[0]], missing
}

func TestDump(t *testing.T) {
	t.Parallel()
	logs := func(kib int) string {
		return strings.Repeat("2026/11/22 01:02:03 "+strings.Repeat("x", 43)+"\n", kib<<4)
	}
	long := stacks(2, 2000) // 300 KiB
	for name, test := range map[string]struct{ stream, begins string }{
		"a panic":            {logs(10) + "panic: boom\n" + running + long, "panic: boom\n\ngoroutine 1 [running]:\nmain.die"},
		"after 1 MiB":        {logs(1024) + "panic: boom\n" + running + long, "panic: boom\n"},
		"exit status 2":      {"panic: boom\n" + running + long + "exit status 2\n", "panic: boom\n"},
		"a fatal error":      {logs(10) + "fatal error: all goroutines are asleep - deadlock!\n" + running + long, "fatal error: all"},
		"crash":              {"fatal error: x\n\nruntime stack:\nruntime.throw({0x1, 0x2})\n\t/go/src/runtime/panic.go:1 +0x1\n" + crash + long, "fatal error: x\n\nruntime stack:"},
		"out of memory":      {"runtime: elsewhere\nlog\nruntime: out of memory: cannot allocate 67108864-byte block (1 in use)\nfatal error: out of memory\n" + running + long, "runtime: out of memory: cannot allocate 67108864-byte block (1 in use)\nfatal error: out of memory\n\ngoroutine 1"},
		"stack overflow":     {"runtime: goroutine stack exceeds 1000000000-byte limit\nruntime: sp=0x1 stack=[0x2, 0x3]\nfatal error: stack overflow\n" + running + long, "runtime: goroutine stack exceeds 1000000000-byte limit\nruntime: sp"},
		"after a child's":    {"panic: a child's, long ago\n" + logs(20) + "runtime: out of memory\nfatal error: out of memory\n" + running + long, "runtime: out of memory\nfatal error"},
		"SIGQUIT":            {"SIGQUIT: quit\nPC=0x46f2a1 m=0 sigcode=0\n" + crash + long, "SIGQUIT: quit\nPC="},
		"no first line":      {"all stacks:\ngoroutine 1 [running]:\nmain.dump()\n\t/a.go:1\n" + long, "goroutine 1 [running]:\nmain.dump"},
		"the last of two":    {"panic: one\n" + running + long + logs(10) + "panic: two\n" + running + long, "panic: two\n"},
		"two close together": {"panic: one\n" + running + "panic: two\n" + running + long, "panic: two\n"},
		"logs in between":    {"panic: boom\n" + running + stacks(2, 300) + logs(3) + stacks(302, 300) + logs(3) + long, "panic: boom\n"},
		"looks like one":     {"panic: boom\n" + running + long + "panic: of a child, without a dump\n" + logs(10), "panic: boom\n"},
		"a long text":        {"panic: " + strings.Repeat("y", 20<<10) + "\n" + running + long, "panic: " + strings.Repeat("y", headSize-100)},
		"a text of lines":    {"panic: " + strings.Repeat("y\n\t", 10<<10) + "\n" + running + long, "panic: y\n\ty\n"},
		"short":              {logs(100) + "panic: boom\n" + running + stacks(2, 10), ""},
		"over":               {"panic: boom\n" + running + long + logs(TailSize>>10), ""},
		"its like in a log":  {"2026 panic: no\n\tpanic: neither\nSIGNED: off\nSIGquit: no\ngoroutine pool\nruntime: fine\n" + logs(100), ""},
		"first line alone":   {"panic: of a child\n" + logs(100) + "\ngoroutine 9 [running]:\nmain.f()\n" + long, "goroutine 9 [running]:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := kept(test.stream, 4096)
			for _, piece := range []int{1, 7, 1 << 30} {
				assert.True(t, got == kept(test.stream, piece), "in pieces of %d", piece)
			}
			head, missing := begins(got)
			assert.True(t, strings.HasPrefix(head, test.begins), "%.200q", head)
			if test.begins == "" {
				assert.Empty(t, head)
				assert.True(t, got == test.stream[len(test.stream)-TailSize:])
				return
			}
			end := got[len(head)+len(gapLine.FindString(got)):]
			assert.True(t, strings.HasSuffix(test.stream, end))
			at := strings.LastIndex(test.stream, head)
			assert.Equal(t, len(test.stream)-at, len(head)+missing+len(end), "nothing is lost that is not told")
			assert.Greater(t, len(head), headSize/2-foreign)
		})
	}
}

// Between the beginning and the last bytes there may be nothing, or less than the line
// would take that says so.
func TestDumpGap(t *testing.T) {
	t.Parallel()
	for _, start := range []string{
		"panic: boom\n" + running,
		"panic: boom" + strings.Repeat("!", headSize) + "\n" + running, // no line ends in what is kept
	} {
		for _, more := range []int{0, 1, 10, gapSize, headSize - 1, headSize, headSize + 1, headSize + 10, headSize + gapSize, headSize + 1000} {
			rest := stacks(2, 2000)[:TailSize+more-len(start)]
			got := kept("log\n"+start+rest, 4096)
			assert.LessOrEqual(t, len(got), TailSize+more, "it is no longer than what was printed since")
			assert.True(t, strings.HasPrefix(got, "panic: boom"), more)
			if head, missing := begins(got); more <= headSize {
				assert.True(t, start+rest == got, "%d more", more)
			} else {
				assert.Positive(t, missing, "%d more: %.100q", more, head)
			}
		}
	}
}

// Whatever is printed: it does not matter in what pieces it comes, what is kept is
// bounded, all of it was printed, and what is missing is counted.
func FuzzDump(f *testing.F) {
	f.Add([]byte("log\n"), []byte("panic: boom\n"+running), uint16(2000), []byte("exit status 2\n"), uint16(100))
	f.Add([]byte("runtime: out of memory\nfatal error: x\n"+crash), []byte("\tx"), uint16(65535), []byte("SIGQUIT: quit\n"), uint16(1))
	f.Add([]byte("panic: "), []byte("goroutine 1 [x]:\n"), uint16(9000), []byte("\n\n\n"), uint16(4096))
	f.Add([]byte(stacks(1, 5)), []byte("panic: one\n"+crash), uint16(30000), []byte("panic: two"+running), uint16(63))
	f.Fuzz(func(t *testing.T, a, b []byte, times uint16, c []byte, piece uint16) {
		if len(a)+len(b)+len(c) > 4096 {
			return
		}
		n := min(int(times), (200<<10)/(len(b)+1)+1)
		stream := string(a) + strings.Repeat(string(b), n) + string(c)
		var whole, parts dump
		var r ring
		whole.add([]byte(stream))
		r.add([]byte(stream))
		for rest := []byte(stream); len(rest) > 0; {
			k := min(max(1, int(piece)), len(rest))
			parts.add(rest[:k])
			rest = rest[k:]
		}
		got := whole.before(r.bytes())
		if !bytes.Equal(got, parts.before(r.bytes())) {
			t.Fatalf("in pieces of %d it is another", piece)
		}
		if whole.total != uint64(len(stream)) || cap(whole.last.text)+cap(whole.next.text) > 4*headSize {
			t.Fatalf("%d of %d bytes, %d held", whole.total, len(stream), cap(whole.last.text)+cap(whole.next.text))
		}
		tail := stream[max(0, len(stream)-TailSize):]
		if string(got) == tail {
			return
		}
		from := int(whole.last.from)
		if len(got) > len(stream)-from || len(got) > headSize+gapSize+TailSize {
			t.Fatalf("%d bytes of a dump of %d", len(got), len(stream)-from)
		}
		if string(got) == stream[from:] {
			return
		}
		for _, m := range gapLine.FindAllSubmatchIndex(got, -1) { // the stream may have such a line, too
			missing, _ := strconv.Atoi(string(got[m[2]:m[3]]))
			head, end := string(got[:m[0]]), string(got[m[1]:])
			if strings.HasPrefix(stream[from:], head) && strings.HasSuffix(tail, end) && len(head)+missing+len(end) == len(stream)-from {
				return
			}
		}
		t.Fatalf("not of the stream: %.100q", got)
	})
}
