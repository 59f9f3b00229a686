// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Some things are settled when a process starts, so the test binary runs itself
// again as a child that does one job: jobEnv names it.
const jobEnv = "MEMGUARD_TEST_JOB"

var jobs = map[string]func() any{
	// What the runtime says of its settings, and what the environment says of them.
	"settings": func() any {
		var s settings
		newRuntimeReader().read(&s.Runtime)
		environ, err := readSome("/proc/self/environ", 1<<20)
		if err != nil {
			return err.Error()
		}
		s.Environ = parseEnviron(environ)
		return s
	},
	// With GOGC=off nothing has been collected before the first look.
	"collected": func() any {
		src := Self()
		defer src.Close()
		var before, after Sample
		_ = src.Read(&before)
		runtime.GC()
		_ = src.Read(&after)
		return [2]Runtime{before.Runtime, after.Runtime}
	},
	// Another user's view of the process that is named in the second variable.
	"explain": func() any {
		pid, _ := strconv.Atoi(os.Getenv(jobEnv + "_PID"))
		r, err := explainPID(noContext, pid, 0)
		if err != nil {
			return explained{Err: err.Error()}
		}
		return explained{Report: r}
	},
	// Services whose finalizers, or cleanups, wait for one that does not return.
	"finalizer-stall": stalled("finalizer-stall", neverFinalized),
	"cleanup-stall":   stalled("cleanup-stall", neverCleaned),
	// A service of which nearly all that GOMEMLIMIT allows lives.
	"death-spiral": spiralling,
	// A Go process to look at, until its standard input ends.
	"wait": func() any {
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return nil
	},
	// The same, with 64 MiB of live heap behind a memory limit that it set itself.
	"hold": func() any {
		debug.SetMemoryLimit(512 << 20)
		held := make([]byte, 64<<20)
		for i := range held {
			held[i] = byte(i)
		}
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return held[1]
	},
}

type settings struct{ Runtime, Environ Runtime }

type explained struct {
	Err    string
	Report *Report
}

func init() {
	name, child := os.LookupEnv(jobEnv)
	if !child {
		return
	}
	job, ok := jobs[name]
	if !ok { // it must not run the tests, which would start it again
		fmt.Fprintf(os.Stderr, "no job %q\n", name)
		os.Exit(2)
	}
	if err := json.NewEncoder(os.Stdout).Encode(job()); err != nil {
		panic(err)
	}
	os.Exit(0)
}

// child is the test binary at a job, with an environment of exactly env: os/exec
// would tidy it.
func child(t *testing.T, exe, job string, attr *os.ProcAttr, env ...string) (stdout io.Reader, p *os.Process) {
	t.Helper()
	out, w, err := os.Pipe()
	require.NoError(t, err)
	defer w.Close()
	if attr == nil {
		attr = new(os.ProcAttr)
	}
	attr.Env = append(env, jobEnv+"="+job, "GORACE=atexit_sleep_ms=0")
	for len(attr.Files) < 3 {
		attr.Files = append(attr.Files, nil)
	}
	attr.Files[1] = w
	p, err = os.StartProcess(exe, []string{filepath.Base(exe)}, attr)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = p.Kill()
		_, _ = p.Wait()
		out.Close()
	})
	return out, p
}

// answer runs a job to its end.
func answer(t *testing.T, job string, into any, env ...string) {
	t.Helper()
	out, p := child(t, self(t), job, nil, env...)
	require.NoError(t, json.NewDecoder(out).Decode(into), "%s %q", job, env)
	state, err := p.Wait()
	require.NoError(t, err)
	require.True(t, state.Success())
}

func self(t *testing.T) string {
	exe, err := os.Executable()
	require.NoError(t, err)
	return exe
}

// pipe is the reading end of a pipe that stays open for the test.
func pipe(t *testing.T) *os.File {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return r
}

func ready(t *testing.T, out io.Reader) {
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
}

// explainPID looks at another process as the command does, without an Eye.
func explainPID(ctx context.Context, pid int, look time.Duration) (*Report, error) {
	s, err := Open(pid)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Explain(ctx, look)
}
