// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// child is the environment variable that makes the test binary a traced
// program.
const child = "GCTRACE_TEST_CHILD"

var sink []byte

// TestMain is the traced program in the child, before any test runs.
func TestMain(m *testing.M) {
	switch os.Getenv(child) {
	case "":
		os.Exit(m.Run())
	case "load":
		for range 4000 {
			sink = make([]byte, 16<<10)
		}
		runtime.GC()
		debug.FreeOSMemory()
	case "log":
		logAndCollect()
	}
}

// logAndCollect has two goroutines log to the stream that the runtime prints on.
func logAndCollect() {
	var done sync.WaitGroup
	stop := make(chan struct{})
	for g := range 2 {
		done.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					fmt.Fprintf(os.Stderr, "2026/11/21 20:26:16 worker %d: request %d of 12 MB took 3 ms\n", g, i)
					if i%16 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
			}
		})
	}
	for range 200 {
		runtime.GC()
	}
	close(stop)
	done.Wait()
}

// traced runs the test binary as a child and returns what it and its runtime
// print on standard error, through a pipe that is drained all the time.
func traced(t *testing.T, role, godebug string) []byte {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), child+"="+role, "GODEBUG="+godebug, "GOGC=100", "GOMEMLIMIT=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Run(), "%s", &stderr)
	return stderr.Bytes()
}

// TestDrift reads what the toolchain that built this test prints today. A
// release that changes a line breaks it.
func TestDrift(t *testing.T) {
	t.Parallel()
	for _, godebug := range []string{"gctrace=1,scavtrace=1", "gctrace=2,scavtrace=1,gcpacertrace=1"} {
		t.Run(godebug, func(t *testing.T) {
			t.Parallel()
			text := traced(t, "load", godebug)
			got := read(t, bytes.NewReader(text))
			assert.Empty(t, got.errors)
			for i, line := range strings.Split(string(text), "\n") {
				for _, prefix := range []string{"gc ", "scav ", "scan: ", "pacer: "} {
					if strings.HasPrefix(line, prefix) {
						assert.True(t, hasLine(got, i+1), "line %d is passed over: %q", i+1, line)
					}
				}
			}
			require.NotEmpty(t, got.cycles)
			forced := 0
			for i, c := range got.cycles {
				assert.EqualValues(t, i+1, c.N)
				assert.Empty(t, c.Suffix)
				assert.Empty(t, c.Note)
				assert.Equal(t, strings.Split(string(text), "\n")[c.Line-1], c.String())
				if c.Forced {
					forced++
				}
			}
			assert.Equal(t, 2, forced, "runtime.GC and debug.FreeOSMemory")
			require.NotEmpty(t, got.scavenges)
			last := got.scavenges[len(got.scavenges)-1]
			assert.True(t, last.Forced, "%v", &last)
			assert.Empty(t, last.Suffix)
			if strings.Contains(godebug, "pacer") {
				kinds := map[NoticeKind]int{}
				for _, n := range got.notices {
					kinds[n.Kind]++
				}
				assert.NotZero(t, kinds[PacerTrace])
				assert.NotZero(t, kinds[ScanStats])
			}
		})
	}
}

func hasLine(got records, line int) bool {
	for _, n := range got.notices {
		if n.Line == line {
			return true
		}
	}
	for _, c := range got.cycles {
		if c.Line == line {
			return true
		}
	}
	for _, s := range got.scavenges {
		if s.Line == line {
			return true
		}
	}
	return false
}

// TestTorn reads a stream in which a program's own log tears the trace. All
// cycles that are read must be ones that ran, in order and with their numbers
// unharmed; nothing of the log may be taken for one.
func TestTorn(t *testing.T) {
	t.Parallel()
	text := traced(t, "log", "gctrace=1")
	got := read(t, bytes.NewReader(text))
	t.Logf("%d lines: %d cycles read, %d torn", got.lines, len(got.cycles), len(got.errors))
	require.NotEmpty(t, got.cycles)
	var last Cycle
	for _, c := range got.cycles {
		assert.Greater(t, c.N, last.N)
		assert.GreaterOrEqual(t, c.At, last.At)
		assert.LessOrEqual(t, c.N, uint32(1000))
		assert.Equal(t, runtime.GOMAXPROCS(0), c.Procs)
		assert.Less(t, c.HeapEnd, uint64(1<<30))
		assert.Less(t, c.SweepTerm+c.Mark+c.MarkTerm, time.Minute)
		assert.LessOrEqual(t, c.CPUPercent, 100)
		last = c
	}
	assert.Less(t, len(got.cycles)+len(got.errors), 2*1000)

	// The same numbers stand in one piece in the stream.
	for _, c := range got.cycles {
		line := strings.TrimSuffix(c.String(), " (forced)")
		assert.True(t, bytes.Contains(text, []byte(line)), line)
	}
	// A whole line is never passed over.
	intact := regexp.MustCompile(`(?m)^gc \d+ @[\d.]+s \d+%: .* P \(forced\)$`)
	assert.GreaterOrEqual(t, len(got.cycles), len(intact.FindAll(text, -1)))
}
