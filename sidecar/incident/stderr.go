// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/memguard/memguard-go/memguard/leak"
)

// mostStderr bounds what is read of what a process printed.
const mostStderr = 1 << 20

// Words are what the Go runtime printed as it ended the process.
type Words struct {
	Cause  Cause        `json:"cause"`            // go-out-of-memory, go-panic, go-fatal-error or signal
	Signal string       `json:"signal,omitempty"` // of cause signal: "SIGQUIT"
	Text   string       `json:"text"`             // what it said, without "panic: " and the like, on one line
	State  string       `json:"state,omitempty"`  // of the goroutine that was printed first, which is the one to blame
	Stack  []leak.Frame `json:"stack"`            // its own, without the runtime's frames, innermost first
}

// What the runtime begins its last words with (runtime/panic.go, fatalthrow and
// printpanics; signal_unix.go, sighandler; mheap.go, grow).
var (
	lastWords = regexp.MustCompile(`(?m)^(?:panic: |fatal error: |SIG[A-Z0-9]+: [^\n]*\nPC=)`)
	// A dump's header of a goroutine, with "gp=0x... m=0 mp=0x..." in the dump of a crash.
	goroutineHead = regexp.MustCompile(`(?m)^goroutine [0-9]+ [^\n]*\[([^\],\n]*)[^\n]*\]:\r?$`)
	// What stands in the place of what was not kept of a long dump (package stderr).
	missingBytes = regexp.MustCompile(`(?m)^\[memguard: [0-9]+ bytes are missing here\]$`)
)

// ReadWords finds the last words of the Go runtime in what a process printed, nil if
// there are none: the last ones, should a process print those of others. They begin
// a line, so that a panic that was recovered from and logged is none.
func ReadWords(stderr []byte) *Words {
	if n := len(stderr) - mostStderr; n > 0 {
		stderr = stderr[n:]
	}
	starts := lastWords.FindAllIndex(stderr, -1)
	heads := goroutineHead.FindAllSubmatchIndex(stderr, -1)
	if len(starts) == 0 {
		return nil
	}
	start := starts[len(starts)-1][0]
	if len(heads) > 0 { // that which a dump follows, and not what merely looks like it
		for _, s := range starts {
			if s[0] < heads[len(heads)-1][0] {
				start = s[0]
			}
		}
	}
	text, _, _ := bytes.Cut(stderr[start:], []byte("\n\n"))
	if i := bytes.Index(text, []byte("\ngoroutine ")); i >= 0 {
		text = text[:i]
	}
	w := &Words{}
	first, rest, _ := strings.Cut(string(text), "\n")
	switch kind, said, _ := strings.Cut(first, ": "); {
	case kind == "panic":
		rest, _, _ = strings.Cut("\n"+rest, "\n[signal ")
		w.Cause, w.Text = GoPanic, said+rest
	case kind == "fatal error":
		w.Cause, w.Text = GoFatal, said
		if noMemory(said) {
			w.Cause = GoOutOfMemory
		}
		// What it had been doing is in the lines before: "runtime: out of memory: cannot
		// allocate N-byte block", "runtime: goroutine stack exceeds N-byte limit".
		if line, ok := lineBefore(stderr[:start], "runtime: "); ok {
			w.Text += " (" + line + ")"
		}
	default:
		w.Cause, w.Signal, w.Text = Signalled, kind, said
	}
	w.Text = tame(w.Text, 500)
	for _, h := range heads {
		if h[0] > start {
			w.goroutine(stderr, h)
			break
		}
	}
	return w
}

// goroutine reads the goroutine whose header is at h.
func (w *Words) goroutine(stderr []byte, h []int) {
	w.State = tame(string(stderr[h[2]:h[3]]), 100)
	block, _, _ := bytes.Cut(stderr[h[0]:], []byte("\n\n"))
	s, err := leak.Parse(bytes.NewReader(block))
	if err != nil || len(s.Clusters) == 0 {
		return
	}
	w.Stack = frames(s.Clusters[0].Stack)
}

// where is the frame to look at, empty if there is none.
func (w *Words) where() string { return own(w.Stack).String() }

// noMemory tells the runtime's many ways to say that the OS gave it no memory
// (throw in malloc.go, mheap.go, mem_linux.go, mpagealloc_64bit.go).
func noMemory(s string) bool {
	for _, m := range []string{"out of memory", "cannot allocate memory", "failed to reserve page summary memory", "cannot map pages in arena address space"} {
		if strings.Contains(s, m) {
			return true
		}
	}
	return false
}

// lineBefore finds the line with the prefix among the three before the end.
func lineBefore(b []byte, prefix string) (string, bool) {
	for range 3 {
		b = bytes.TrimSuffix(b, []byte("\n"))
		i := bytes.LastIndexByte(b, '\n')
		if line := string(b[i+1:]); strings.HasPrefix(line, prefix) && !strings.HasPrefix(line, "runtime: sp=") {
			return line, true
		}
		if i < 0 {
			break
		}
		b = b[:i+1]
	}
	return "", false
}
