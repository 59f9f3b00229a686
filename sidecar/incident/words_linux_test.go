// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The test binary runs itself again as a program that dies in the way that this
// variable says.
const deathEnv = "MEMGUARD_TEST_DEATH"

func init() {
	if how := os.Getenv(deathEnv); how != "" {
		die(how)
		os.Exit(111)
	}
}

type order struct{ id int }

var sink [][]byte

//go:noinline
func overflow(n int) int {
	if n < 0 {
		return 0
	}
	var b [1024]byte
	b[n%1024] = 1
	return overflow(n+1) + int(b[3])
}

func die(how string) {
	var none *order
	self := func(s syscall.Signal) {
		_ = syscall.Kill(os.Getpid(), s)
		time.Sleep(time.Minute)
	}
	switch how {
	case "panic":
		panic(errors.New("boom\ngoroutine 7 [running]:\n<b>bold</b>"))
	case "nil":
		fmt.Println(none.id)
	case "repanic":
		defer func() { panic(fmt.Sprint("again ", recover())) }()
		panic("first")
	case "survived": // what net/http prints of a handler's
		fmt.Fprintf(os.Stderr, "http: panic serving 10.0.0.1: boom\n%s", debug.Stack())
		os.Exit(1)
	case "maps":
		m := map[int]int{}
		for range 8 {
			go func() {
				for i := 0; ; i++ {
					m[i%10] = i
				}
			}()
		}
		time.Sleep(time.Minute)
	case "stack":
		debug.SetMaxStack(1 << 20)
		overflow(0)
	case "oom":
		_ = syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: 2 << 30, Max: 2 << 30})
		for {
			sink = append(sink, make([]byte, 64<<20))
		}
	case "unlock":
		fmt.Fprintln(os.Stderr, "panic: of a child, and not ours") // no dump follows
		new(sync.Mutex).Unlock()
	case "quit":
		self(syscall.SIGQUIT)
	case "abort":
		self(syscall.SIGABRT)
	case "term":
		self(syscall.SIGTERM)
	case "kill":
		self(syscall.SIGKILL)
	case "ignored":
		signal.Ignore(syscall.SIGTERM)
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		os.Exit(0)
	case "fine":
		os.Exit(0)
	case "config":
		fmt.Fprintln(os.Stderr, "orders: config: no such file")
		os.Exit(1)
	case "spiral":
		os.Exit(memguard.ExitStatus)
	}
}

// Real programs, their real standard error and exit status.
func TestRealDeaths(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		how       string
		traceback string
		cause     Cause
		says      []string
		where     string // function on the stack
	}{
		{"panic", "", GoPanic, []string{"boom", "<b>bold</b>"}, "incident.die"},
		{"panic", "crash", GoPanic, []string{"boom"}, "incident.die"},
		{"panic", "none", GoPanic, []string{"boom"}, ""},
		{"nil", "", GoPanic, []string{"invalid memory address or nil pointer dereference"}, "incident.die"},
		{"repanic", "", GoPanic, []string{"first", "again first"}, "incident.die"},
		{"survived", "", ExitFailure, []string{"exit status 1"}, ""},
		{"deadlock", "", GoFatal, []string{"all goroutines are asleep - deadlock!"}, "main.main"},
		{"deadlock", "crash", GoFatal, []string{"all goroutines are asleep - deadlock!"}, "main.main"},
		{"maps", "", GoFatal, []string{"concurrent map"}, "incident.die"},
		{"stack", "", GoFatal, []string{"stack overflow", "stack exceeds 1048576-byte limit"}, "incident.overflow"},
		{"oom", "", GoOutOfMemory, []string{"no memory", "out of memory"}, "incident.die"},
		{"unlock", "", GoFatal, []string{"unlock of unlocked mutex"}, "incident.die"},
		{"quit", "", Signalled, []string{"SIGQUIT", "dump of its goroutines"}, "incident.die"},
		{"abort", "", Signalled, []string{"SIGABRT"}, "incident.die"},
		{"term", "", Signalled, []string{"SIGTERM"}, ""},
		{"kill", "", Signalled, []string{"SIGKILL"}, ""},
		{"ignored", "", CleanExit, []string{"as it meant to"}, ""},
		{"fine", "", CleanExit, []string{"exit status 0"}, ""},
		{"config", "", ExitFailure, []string{"exit status 1"}, ""},
		{"spiral", "", GaveUp, []string{"its own guard"}, ""},
	} {
		t.Run(test.how+test.traceback, func(t *testing.T) {
			t.Parallel()
			exe, err := os.Executable()
			require.NoError(t, err)
			if test.how == "deadlock" {
				exe = filepath.Join(t.TempDir(), "deadlock")
				out, err := exec.CommandContext(t.Context(), "go", "build", "-o", exe, "./testdata/deadlock").CombinedOutput()
				require.NoError(t, err, "%s", out)
			}
			var stderr bytes.Buffer
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			cmd := exec.CommandContext(ctx, exe)
			cmd.Stderr = &stderr
			cmd.Env = append(os.Environ(), deathEnv+"="+test.how, "GOTRACEBACK="+or(test.traceback, "single"))
			_ = cmd.Run()
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if strings.Contains(stderr.String(), "ThreadSanitizer") {
				t.Skip("the race detector died of it first")
			}
			e := &Evidence{Target: "child", Ended: time.Now(), Stderr: stderr.Bytes(), Process: target.Process{Go: "go1.26", Identity: target.Identity{PID: cmd.Process.Pid}}}
			e.Exit = Exit{Known: true, Code: status.ExitStatus(), From: "exec"}
			if status.Signaled() {
				e.Exit = Exit{Known: true, Signal: int(status.Signal()), From: "exec"}
			}
			r, _ := New(e, Meta{})
			require.Equal(t, test.cause, r.Cause, "%s\n%s", r.Verdict, stderr.String())
			for _, s := range test.says {
				assert.Contains(t, r.Verdict, s)
			}
			if test.where != "" {
				require.NotNil(t, r.Words)
				assert.Contains(t, fmt.Sprint(r.Words.Stack), test.where, stderr.String())
			}
			if r.Words != nil && r.Words.Cause != Signalled {
				// Nobody saw the status: the words alone are enough.
				e.Exit = Exit{}
				again, _ := New(e, Meta{})
				if test.cause != ExitFailure {
					assert.Equal(t, test.cause, again.Cause)
				}
			}
			text, markdown, page, _ := write(t, r, nil)
			assert.NotContains(t, string(page), "<b>bold")
			checkMarkdown(t, markdown)
			assert.NotContains(t, string(text), "\x1b")
		})
	}
}

func TestReadWords(t *testing.T) {
	t.Parallel()
	dump := "\n\ngoroutine 9 [chan receive, 2 minutes]:\nmain.worker(0x1)\n\t/src/pool.go:30 +0x1\ncreated by main.start in goroutine 1\n\t/src/pool.go:12 +0x2\n"
	for _, test := range []struct{ name, stderr, cause, text string }{
		{"nothing", "", "", ""},
		{"a log", "2026/11/03 panic: no\nthe panic: neither\n", "", ""},
		{"with a log before and after", "starting\npanic: one" + dump + "exit status 2\n", "go-panic", "one"},
		{"of several the one with a dump", "panic: a child's\nfatal error: ours" + dump + "panic: looks like it\n", "go-fatal-error", "ours"},
		{"SIG and no PC", "SIGNED: off\n", "", ""},
		{"cut in the middle", "panic: thi", "go-panic", "thi"},
		{"newosproc", "runtime: failed to create new OS thread (have 5 already; errno=11)\nruntime: may need to increase max user processes (ulimit -u)\nfatal error: newosproc" + dump, "go-fatal-error", "newosproc (runtime: may need to increase max user processes (ulimit -u))"},
		{"arena metadata", "fatal error: out of memory allocating heap arena metadata" + dump, "go-out-of-memory", "out of memory allocating heap arena metadata"},
		{"page summary", "fatal error: failed to reserve page summary memory" + dump, "go-out-of-memory", "failed to reserve page summary memory"},
	} {
		w := ReadWords([]byte(test.stderr))
		if test.cause == "" {
			assert.Nil(t, w, test.name)
			continue
		}
		if assert.NotNil(t, w, test.name) {
			assert.Equal(t, test.cause, string(w.Cause), test.name)
			assert.Equal(t, test.text, w.Text, test.name)
			if strings.Contains(test.stderr, dump) {
				assert.Equal(t, "chan receive", w.State, test.name)
				assert.Equal(t, "main.worker (pool.go:30)", w.where(), test.name)
			}
		}
	}
	// What a process printed before does not hide it, however much it was.
	w := ReadWords(append(bytes.Repeat([]byte("x\n"), mostStderr), "panic: one"+dump...))
	require.NotNil(t, w)
	assert.Equal(t, "one", w.Text)
}
