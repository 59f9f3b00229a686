// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/stderr"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The test binary is memguard, too, when its first argument is exec, and a service
// that memguard runs.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "exec":
		main()
	case len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "play-"):
		playService(os.Args[1:])
	default:
		// Under nohup some are ignored, and a service would inherit that; what is caught
		// it does not.
		for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
			if signal.Ignored(s) {
				signal.Notify(make(chan os.Signal, 1), s)
			}
		}
		os.Exit(m.Run())
	}
}

func playService(args []string) {
	switch args[0] {
	case "play-collections": // four who log, and collections
		n, _ := strconv.Atoi(args[1])
		stop := make(chan struct{})
		var loggers sync.WaitGroup
		for g := range 4 {
			loggers.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
						fmt.Fprintf(os.Stderr, "logger %d line %d\n", g, i)
					}
				}
			})
		}
		for range n {
			runtime.GC()
		}
		close(stop)
		loggers.Wait()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Println(m.NumGC)
	case "play-signals": // names those it gets; ends with the one named last
		c := make(chan os.Signal, 64)
		signal.Notify(c, passedOn()...)
		fmt.Println("ready", os.Getpid(), syscall.Getpgrp())
		for s := range c {
			fmt.Println(int(s.(syscall.Signal)))
			if args[1] == strconv.Itoa(int(s.(syscall.Signal))) {
				return
			}
		}
	case "play-log": // numbered lines as fast as it can, and collections, until SIGTERM
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("ready", os.Getpid())
		for i := 0; ; i++ {
			select {
			case <-c:
				fmt.Println(i)
				return
			default:
				if _, err := fmt.Fprintf(os.Stderr, "line %d %s\n", i, strings.Repeat("x", 100)); err != nil {
					fmt.Println(err)
				}
				if i%500 == 0 {
					runtime.GC()
				}
			}
		}
	case "play-orphans": // children of children that nobody waits for
		for range 20 {
			_ = exec.Command("sh", "-c", "sleep 0.05 & exit 0").Run()
		}
		fmt.Println("ready", os.Getpid())
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "play-crowd": // thousands of goroutines, and an end that prints all of them
		debug.SetTraceback("all")
		var all sync.WaitGroup
		all.Add(5000)
		for range 5000 {
			go crowd(&all, make(chan int))
		}
		all.Wait()
		switch args[1] {
		case "panic":
			panic("the crowd is too large")
		case "fatal":
			new(sync.Mutex).Unlock()
		case "stack":
			debug.SetMaxStack(1 << 20)
			deep(0)
		case "quit":
			_ = syscall.Kill(os.Getpid(), syscall.SIGQUIT)
			time.Sleep(time.Minute)
		}
	case "play-daemon": // leaves a child that writes to its standard error when told
		cmd := exec.Command("sh", "-c", "read x; echo late >&2; echo later >&2")
		cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
		_ = cmd.Start()
		fmt.Fprintln(os.Stderr, "parent")
	}
	os.Exit(0)
}

//go:noinline
func crowd(all *sync.WaitGroup, c chan int) { all.Done(); <-c }

//go:noinline
func deep(n int) int {
	if n < 0 {
		return 0
	}
	var b [1024]byte
	b[n%1024] = 1
	return deep(n+1) + int(b[3])
}

// wrapped is a command line of memguard exec.
func wrapped(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	return exec.Command(self, append([]string{"exec"}, args...)...)
}

// me is the test binary, for commands that it plays.
func me(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	return self
}

// wrapper is a memguard exec that runs.
type wrapper struct {
	*exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr string // file
	pid    int    // of the service
}

// startWrapped starts one whose service says "ready PID ..." first.
func startWrapped(t *testing.T, args ...string) *wrapper {
	t.Helper()
	w := &wrapper{Cmd: wrapped(t, args...), stderr: filepath.Join(t.TempDir(), "stderr")}
	f, err := os.OpenFile(w.stderr, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	defer f.Close()
	w.Cmd.Stderr = f
	w.start(t)
	return w
}

func (w *wrapper) start(t *testing.T) {
	t.Helper()
	var err error
	w.in, err = w.StdinPipe()
	require.NoError(t, err)
	r, wr, err := os.Pipe() // of which Wait knows nothing: the service may outlive its wrapper
	require.NoError(t, err)
	w.Stdout, w.out = wr, bufio.NewReader(r)
	require.NoError(t, w.Start())
	wr.Close()
	t.Cleanup(func() {
		_ = w.Process.Kill()
		_ = w.Wait()
		if w.pid != 0 {
			_ = syscall.Kill(w.pid, syscall.SIGKILL)
		}
		r.Close()
	})
	line := w.hear(t)
	f := strings.Fields(line)
	require.GreaterOrEqual(t, len(f), 2, line)
	require.Equal(t, "ready", f[0])
	w.pid, err = strconv.Atoi(f[1])
	require.NoError(t, err)
}

func (w *wrapper) hear(t *testing.T) string {
	t.Helper()
	line, err := w.out.ReadString('\n')
	require.NoError(t, err, line)
	return strings.TrimSpace(line)
}

// children are the processes whose parent it is: pid and state.
func children(parent int) map[int]byte {
	out := map[int]byte{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 1 && f[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			out[pid] = f[0][0]
		}
	}
	return out
}

// keeperOf waits for the keeper and returns its pid, other than those given.
func (w *wrapper) keeperOf(t *testing.T, not ...int) (pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		for p, state := range children(w.Process.Pid) {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p))
			if p != w.pid && state != 'Z' && !slices.Contains(not, p) && bytes.HasSuffix(b, []byte("--keeper\x00")) {
				pid = p
			}
		}
		return pid != 0
	}, 20*time.Second, 5*time.Millisecond)
	return pid
}

func running(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestExecStatus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	notRunnable := filepath.Join(dir, "data")
	require.NoError(t, os.WriteFile(notRunnable, []byte("x"), 0o600))
	garbage := filepath.Join(dir, "garbage")
	require.NoError(t, os.WriteFile(garbage, []byte("\x7fELFx"), 0o700))
	sh := func(script string) []string { return []string{"--", "sh", "-c", script} }
	for _, test := range []struct {
		name   string
		args   []string
		code   int // -1: a signal
		signal syscall.Signal
		stderr string
	}{
		{"fine", sh("exit 0"), 0, 0, ""},
		{"3", sh("exit 3"), 3, 0, ""},
		{"255", sh("exit 255"), 255, 0, ""},
		{"without --", []string{"sh", "-c", "exit 4"}, 4, 0, ""},
		{"its stderr, to the last byte", sh("printf 'a\\nb' >&2; exit 1"), 1, 0, "a\nb"},
		{"SIGTERM", sh("kill -TERM $$"), -1, syscall.SIGTERM, ""},
		{"SIGKILL", sh("kill -KILL $$"), -1, syscall.SIGKILL, ""},
		{"SIGINT", sh("kill -INT $$"), -1, syscall.SIGINT, ""},
		{"SIGQUIT, which Go catches", sh("ulimit -c 0; kill -QUIT $$"), -1, syscall.SIGQUIT, ""},
		{"SIGSEGV", sh("ulimit -c 0; kill -SEGV $$"), -1, syscall.SIGSEGV, ""},
		{"SIGPIPE", sh("kill -PIPE $$"), -1, syscall.SIGPIPE, ""},
		{"no such command", []string{"--", "no-such-command-here"}, exitNotFound, 0, "memguard: exec: exec: \"no-such-command-here\": executable file not found in $PATH\n"},
		{"no such file", []string{"--", "/no/such"}, exitNotFound, 0, "/no/such"},
		{"not executable", []string{"--", notRunnable}, exitNotRunnable, 0, "permission denied"},
		{"garbage", []string{"--", garbage}, exitNotRunnable, 0, "exec format error"},
		{"which command", nil, exitUsage, 0, "which command?"},
		{"state for all to see", []string{"--state", "/", "--", "true"}, exitBlind, 0, "others may look at what the service prints"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.name == "not executable" && os.Getuid() == 0 {
				t.Log("as root: the mode bits alone decide")
			}
			cmd := wrapped(t, test.args...)
			var out bytes.Buffer
			cmd.Stderr = &out
			_ = cmd.Run()
			ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
			assert.Equal(t, test.code, ws.ExitStatus(), out.String())
			assert.Equal(t, test.code == -1, ws.Signaled())
			if ws.Signaled() {
				assert.Equal(t, test.signal, ws.Signal())
				assert.False(t, ws.CoreDump())
			}
			if test.stderr == "" {
				assert.Empty(t, out.String())
			} else {
				assert.Contains(t, out.String(), test.stderr)
			}
		})
	}
}

// Every collection is counted, and no line of four loggers is torn by one.
func TestExecCollections(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "state")
	cmd := wrapped(t, "--state", state, "--summary", "--", me(t), "play-collections", "60")
	cmd.Env = append(os.Environ(), "GODEBUG=madvdontneed=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run(), errs.String())
	want, err := strconv.Atoi(strings.TrimSpace(out.String()))
	require.NoError(t, err)
	require.GreaterOrEqual(t, want, 60)

	log, summary, found := strings.Cut(errs.String(), "\n"+lastLine(errs.String(), "logger "))
	require.True(t, found)
	for line := range strings.Lines(log) {
		require.Regexp(t, `^logger \d line \d+$`, strings.TrimSuffix(line, "\n"))
	}
	assert.Contains(t, summary, fmt.Sprintf("cycles       %d in", want))
	assert.Contains(t, summary, "0 not the runtime's")

	lives, err := os.ReadDir(state)
	require.NoError(t, err)
	require.Len(t, lives, 1)
	pid, start, _ := strings.Cut(lives[0].Name(), "-")
	p, _ := strconv.Atoi(pid)
	s, _ := strconv.ParseUint(start, 10, 64)
	stream, err := stderr.OpenExec(state, p, s)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, stream.Run(ctx))
	cycles, n := stream.Cycles(0)
	assert.Equal(t, uint64(want), n)
	assert.Equal(t, uint32(want), cycles[len(cycles)-1].N)
	e, ended := stream.Exit()
	require.True(t, ended)
	assert.Equal(t, stderr.Exit{PID: p, Start: s, Time: e.Time, Counts: stderr.Counts{Bytes: e.Counts.Bytes, Cycles: uint64(want)}}, e)
	tail := string(stream.Tail())
	assert.True(t, strings.HasSuffix(log+"\n"+lastLine(errs.String(), "logger ")+"\n", tail), "the last of what it printed")
	assert.NotEmpty(t, tail)
}

// A dump of thousands of goroutines is many times what is kept of standard error: how
// it began is kept all the same, and the verdict of the incident names it.
func TestExecLongDump(t *testing.T) {
	t.Parallel()
	for how, test := range map[string]struct {
		cause incident.Cause
		says  []string
	}{
		"panic": {incident.GoPanic, []string{"ended with a Go panic", "the crowd is too large", "memguard.playService ("}},
		"fatal": {incident.GoFatal, []string{"fatal error of the Go runtime", "unlock of unlocked mutex", "memguard.playService ("}},
		"stack": {incident.GoFatal, []string{"stack overflow", "goroutine stack exceeds 1048576-byte limit", "memguard.deep ("}},
		"quit":  {incident.Signalled, []string{"SIGQUIT", "a dump of its goroutines"}},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			cmd := wrapped(t, "--state", dir, "--", me(t), "play-crowd", how)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			_ = cmd.Run()
			require.Equal(t, 2, cmd.ProcessState.ExitCode())
			require.Greater(t, errs.Len(), 10*stderr.TailSize, "all of it was passed on")
			lives, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, lives, 1)
			pid, start, _ := strings.Cut(lives[0].Name(), "-")
			p, _ := strconv.Atoi(pid)
			s, _ := strconv.ParseUint(start, 10, 64)
			stream, err := stderr.OpenExec(dir, p, s)
			require.NoError(t, err)
			tail := stream.Tail()
			require.Less(t, len(tail), 2*stderr.TailSize)
			require.Regexp(t, `\n\[memguard: [0-9]{5,8} bytes are missing here\]\n`, string(tail))

			e := &incident.Evidence{Target: "crowd", Ended: time.Now(), Stderr: tail, Process: target.Process{Go: "go1.26", Identity: target.Identity{PID: p, Start: s}}}
			for _, e.Exit = range []incident.Exit{{Known: true, Code: 2, From: "exec"}, {}} {
				r, _ := incident.New(e, incident.Meta{})
				require.Equal(t, test.cause, r.Cause, "%s\n%.2000s", r.Verdict, tail)
				for _, says := range test.says {
					assert.Contains(t, r.Verdict, says)
				}
				require.NotNil(t, r.Goroutines)
				assert.Greater(t, r.Goroutines.Clusters[0].Count, uint64(50), "those that were kept")
				assert.Contains(t, r.Goroutines.Clusters[0].Func, "memguard.crowd")
				_, known := r.Goroutines.Total.Get()
				assert.False(t, known, "there were more")
			}
			assert.Nil(t, incident.ReadWords(tail[len(tail)-stderr.TailSize/2:]), "the last bytes alone do not say it")
		})
	}
}

// lastLine is the last line that begins like this.
func lastLine(text, prefix string) string {
	i := strings.LastIndex(text, "\n"+prefix) + 1
	line, _, _ := strings.Cut(text[i:], "\n")
	return line
}

func TestTraced(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		in, want []string
		theirs   bool
	}{
		{[]string{"A=1"}, []string{"A=1", "GODEBUG=gctrace=1"}, false},
		{[]string{"GODEBUG="}, []string{"GODEBUG=gctrace=1"}, false},
		{[]string{"GODEBUG=http2client=0,", "B=2"}, []string{"GODEBUG=http2client=0,gctrace=1", "B=2"}, false},
		{[]string{"GODEBUG=gctrace=2,x=1"}, []string{"GODEBUG=gctrace=2,x=1"}, true},
		{[]string{"GODEBUG=x=1,gctrace=0"}, []string{"GODEBUG=x=1,gctrace=0"}, true},
		{[]string{"GODEBUG=gctracex=1"}, []string{"GODEBUG=gctracex=1,gctrace=1"}, false},
	} {
		got, theirs := traced(test.in)
		assert.Equal(t, test.want, got)
		assert.Equal(t, test.theirs, theirs, test.in)
	}
}

// Who asked for the lines has them, and the summary counts them as well.
func TestExecTheirTrace(t *testing.T) {
	t.Parallel()
	cmd := wrapped(t, "--summary", "--", me(t), "play-collections", "10")
	cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run())
	assert.Contains(t, errs.String(), "gc ")
	assert.Contains(t, errs.String(), "cycles       "+strings.TrimSpace(out.String())+" in")
}

func TestExecSignals(t *testing.T) {
	t.Parallel()
	w := startWrapped(t, "--", me(t), "play-signals", "15")
	pgrp, err := syscall.Getpgid(w.pid)
	require.NoError(t, err)
	assert.Equal(t, w.pid, pgrp, "a group of its own: what is sent to ours reaches it once")
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGALRM, syscall.SIGCONT, syscall.SIGTSTP, 40, 64} {
		require.NoError(t, w.Process.Signal(s))
		assert.Equal(t, strconv.Itoa(int(s)), w.hear(t))
	}
	require.NoError(t, w.Process.Signal(syscall.SIGTERM))
	assert.Equal(t, "15", w.hear(t))
	assert.NoError(t, w.Wait(), "it decided to leave with 0")
	_, err = w.out.ReadString('\n')
	assert.ErrorIs(t, err, io.EOF, "each signal once")
}

// A stopped service is not ours to stop with: somebody will continue it.
func TestExecStop(t *testing.T) {
	t.Parallel()
	w := startWrapped(t, "--", me(t), "play-signals", "15")
	require.NoError(t, syscall.Kill(w.pid, syscall.SIGSTOP))
	require.Eventually(t, func() bool { return children(w.Process.Pid)[w.pid] == 'T' }, 20*time.Second, time.Millisecond)
	require.NoError(t, syscall.Kill(w.pid, syscall.SIGCONT))
	assert.Equal(t, "18", w.hear(t))
	require.NoError(t, w.Process.Signal(syscall.SIGTERM))
	assert.Equal(t, "15", w.hear(t))
	assert.NoError(t, w.Wait())
}

func TestExecInherits(t *testing.T) {
	t.Parallel()
	// The same files are open as without us, and standard input and output lead to the
	// same places.
	dir := t.TempDir()
	script := []string{"sh", "-c", `cat >/dev/null; cd /proc/$$/fd; readlink 0 1; ls -1; grep SigIgn /proc/self/status`}
	var open [2]string
	for i, cmd := range []*exec.Cmd{exec.Command(script[0], script[1:]...), wrapped(t, append([]string{"--"}, script...)...)} {
		in, err := os.Create(filepath.Join(dir, "in"))
		require.NoError(t, err)
		defer in.Close()
		out, err := os.Create(filepath.Join(dir, "out"))
		require.NoError(t, err)
		defer out.Close()
		cmd.Stdin, cmd.Stdout = in, out
		require.NoError(t, cmd.Run())
		b, err := os.ReadFile(out.Name())
		require.NoError(t, err)
		open[i] = string(b)
	}
	assert.Equal(t, open[0], open[1])
	assert.True(t, strings.HasPrefix(open[1], filepath.Join(dir, "in")+"\n"+filepath.Join(dir, "out")+"\n0\n1\n"), open[1])

	// What nohup ignores stays ignored.
	want, err := exec.Command("sh", "-c", `trap "" HUP INT; exec grep SigIgn /proc/self/status`).Output()
	require.NoError(t, err)
	got, err := exec.Command("sh", "-c", `trap "" HUP INT; exec "$0" exec -- grep SigIgn /proc/self/status`, me(t)).Output()
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got))
}

// Killed with SIGKILL, the wrapper leaves a service that goes on, and whose standard
// error goes where it went before.
func TestExecKilled(t *testing.T) {
	t.Parallel()
	w := startWrapped(t, "--", me(t), "play-log")
	keeper := w.keeperOf(t)
	size := func() int64 {
		st, err := os.Stat(w.stderr)
		require.NoError(t, err)
		return st.Size()
	}
	require.Eventually(t, func() bool { return size() > 1<<20 }, 30*time.Second, time.Millisecond)
	require.NoError(t, w.Process.Kill())
	_ = w.Wait()
	at := size()
	require.Eventually(t, func() bool { return size() > at+8<<20 }, 60*time.Second, time.Millisecond, "more than any pipe holds")
	require.True(t, running(w.pid))
	require.NoError(t, syscall.Kill(w.pid, syscall.SIGTERM))
	lines, err := strconv.Atoi(w.hear(t))
	require.NoError(t, err, "no write failed")
	require.Eventually(t, func() bool { return !running(keeper) || state(keeper) == 'Z' }, 20*time.Second, time.Millisecond, "the keeper goes with the service")

	b, err := os.ReadFile(w.stderr)
	require.NoError(t, err)
	last, gaps, odd, missing := -1, 0, 0, 0
	for line := range strings.Lines(string(b)) {
		var n int
		if _, err := fmt.Sscanf(line, "line %d x", &n); err != nil || len(line) < 100 {
			odd++
			continue
		}
		if n != last+1 {
			gaps++
			missing += n - last - 1
		}
		last = n
	}
	assert.Equal(t, lines-1, last, "the last line has come")
	t.Logf("%d lines; at the kill %d were lost and %d torn", lines, missing, odd)
	assert.LessOrEqual(t, gaps, 2, "what the wrapper had taken and not passed on, and nothing else")
	assert.LessOrEqual(t, odd, 50, "pieces of one line of the collector's at most, and a torn one")
}

func state(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return f[0][0]
}

// The keeper can be killed as well: there will be another.
func TestExecKeeperKilled(t *testing.T) {
	t.Parallel()
	w := startWrapped(t, "--", me(t), "play-log")
	first := w.keeperOf(t)
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	second := w.keeperOf(t, first)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1} {
		require.NoError(t, syscall.Kill(second, s)) // as who stops a whole cgroup does
	}
	require.NoError(t, w.Process.Signal(syscall.SIGTERM))
	lines := w.hear(t)
	require.NoError(t, w.Wait())
	require.Eventually(t, func() bool { return !running(second) || state(second) == 'Z' }, 20*time.Second, time.Millisecond)
	b, err := os.ReadFile(w.stderr)
	require.NoError(t, err)
	assert.Equal(t, lines, strconv.Itoa(bytes.Count(b, []byte("\n"))), "nothing was lost")
}

// A child that outlives the service goes on to write where the service wrote.
func TestExecDaemon(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "stderr")
	f, err := os.Create(out)
	require.NoError(t, err)
	defer f.Close()
	in, tell, err := os.Pipe()
	require.NoError(t, err)
	defer in.Close()
	cmd := wrapped(t, "--", me(t), "play-daemon")
	cmd.Stdin, cmd.Stderr = in, f
	require.NoError(t, cmd.Run())
	b, err := os.ReadFile(out)
	require.NoError(t, err)
	assert.Equal(t, "parent\n", string(b), "exec leaves with the service")
	_, err = tell.WriteString("go\n")
	require.NoError(t, err)
	require.NoError(t, tell.Close())
	require.Eventually(t, func() bool {
		b, err = os.ReadFile(out)
		return err == nil && string(b) == "parent\nlate\nlater\n"
	}, 30*time.Second, 10*time.Millisecond, "%s", b)
}

// As process 1 it reaps, and its end is the end of all.
func TestExecPID1(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a pid namespace needs root")
	}
	cmd := wrapped(t, "--", me(t), "play-orphans")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Setpgid: true}
	w := &wrapper{Cmd: cmd}
	w.start(t)
	w.pid = 0                           // of another namespace: not ours to signal
	require.Eventually(t, func() bool { // only the service is left: no zombie, and there never was a keeper
		c := children(cmd.Process.Pid)
		for _, state := range c {
			if state == 'Z' {
				return false
			}
		}
		return len(c) == 1
	}, 30*time.Second, 10*time.Millisecond)
	var service int
	for pid := range children(cmd.Process.Pid) {
		service = pid
	}
	require.NoError(t, syscall.Kill(service, syscall.SIGKILL))
	_ = cmd.Wait()
	assert.Equal(t, 128+9, cmd.ProcessState.ExitCode(), "process 1 cannot be killed by itself")
}

// With a terminal the service has it: Ctrl-C is its own, Ctrl-Z stops both, and fg
// goes on.
func TestExecTerminal(t *testing.T) {
	t.Parallel()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	defer master.Close()
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	defer slave.Close()
	r, out, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	self := me(t)
	pid, err := syscall.ForkExec(self, []string{self, "exec", "--", self, "play-signals", "15"}, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{slave.Fd(), out.Fd(), 2},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0},
	})
	require.NoError(t, err)
	out.Close()
	defer syscall.Kill(pid, syscall.SIGKILL)
	lines := bufio.NewReader(r)
	hear := func() string {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		return strings.TrimSpace(line)
	}
	var service, pgrp int
	_, err = fmt.Sscanf(hear(), "ready %d %d", &service, &pgrp)
	require.NoError(t, err)
	defer syscall.Kill(service, syscall.SIGKILL)
	has := func(who int) func() bool { return func() bool { return foreground(int(master.Fd())) == who } }
	require.Eventually(t, has(pgrp), 10*time.Second, time.Millisecond, "the service has the terminal")

	_, err = master.Write([]byte{3}) // Ctrl-C
	require.NoError(t, err)
	assert.Equal(t, "2", hear())
	require.NoError(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 10, Col: 20}))
	assert.Equal(t, "28", hear())

	// It catches SIGTSTP, so that it is SIGTTIN's and SIGSTOP's turn to stop it.
	require.NoError(t, syscall.Kill(service, syscall.SIGTTIN))
	var ws syscall.WaitStatus
	_, err = syscall.Wait4(pid, &ws, syscall.WUNTRACED, nil)
	require.NoError(t, err)
	require.True(t, ws.Stopped(), "the shell that runs us sees us stop")
	assert.Equal(t, byte('T'), state(service))
	assert.True(t, has(pid)(), "and has the terminal back through us")
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT)) // fg
	assert.Equal(t, "18", hear())
	require.Eventually(t, has(pgrp), 10*time.Second, time.Millisecond)

	_, err = master.Write([]byte{3})
	require.NoError(t, err)
	assert.Equal(t, "2", hear())
	require.NoError(t, syscall.Kill(pid, syscall.SIGTERM))
	assert.Equal(t, "15", hear())
	_, err = syscall.Wait4(pid, &ws, 0, nil)
	require.NoError(t, err)
	assert.Equal(t, 0, ws.ExitStatus())
	_, err = lines.ReadString('\n')
	assert.ErrorIs(t, err, io.EOF, "each signal once")
}
