// SPDX-License-Identifier: Apache-2.0

package exectrace

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/trace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// big records a trace of this process under a load of requests that hand work
// around, block and allocate, until it has at least size bytes.
func big(t testing.TB, size int64) (path string) {
	path = filepath.Join(t.TempDir(), "big.trace")
	f, err := os.Create(path)
	require.NoError(t, err)
	n := &writeCounter{w: bufio.NewWriterSize(f, 1<<20)}
	require.NoError(t, trace.Start(n))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			work, done := make(chan int), make(chan []*int)
			go func() {
				var live [64][]*int
				for i := range work {
					live[i%64] = make([]*int, 512+i%2048)
					done <- live[i%64]
				}
				close(done)
			}()
			for i := 0; n.n.Load() < size; i++ {
				work <- i
				<-done
			}
			close(work)
		})
	}
	wg.Wait()
	trace.Stop()
	require.NoError(t, n.w.Flush())
	require.NoError(t, f.Close())
	return path
}

type writeCounter struct {
	w *bufio.Writer
	n atomic.Int64
}

func (c *writeCounter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.w.Write(p)
}

const bigEnv = "EXECTRACE_TEST_READ"

func TestMain(m *testing.M) {
	if path := os.Getenv(bigEnv); path != "" {
		os.Exit(readBig(path))
	}
	os.Exit(m.Run())
}

// readBig reads a trace in this process and prints what it came to, and the
// largest resident set that it took.
func readBig(path string) int {
	f, err := os.Open(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	r, err := Read(f, Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, hwm, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Println(r.Bytes, r.Events, strings.Fields(hwm)[0])
	return 0
}

// What the toolchain of today writes is known here, user annotations are
// passed over, and a trace of this moment tells of this moment.
func TestProcessToday(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, trace.Start(&b))
	for i := range 1000 {
		ctx, task := trace.NewTask(t.Context(), "task "+strconv.Itoa(i))
		trace.WithRegion(ctx, "region", func() { trace.Log(ctx, "category", "message") })
		task.End()
	}
	runtime.GC()
	debug.FreeOSMemory()
	trace.Stop()
	r := report(t, b.Bytes())
	check(t, r)
	assert.Empty(t, r.Unknown)
	assert.GreaterOrEqual(t, r.CycleCount, uint64(2))
	forced := 0
	for i := range r.Cycles {
		if r.Cycles[i].Trigger == "forced" {
			forced++
			assert.Equal(t, "github.com/memguard/memguard-go/pacer/exectrace.TestProcessToday", r.Cycles[i].By)
		}
	}
	assert.Equal(t, 2, forced)
}

// A trace of 100 MB is read in a process that never takes 256 MiB.
func TestProcessBigTraceInLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("records a trace of 100 MB; not with -short")
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("no /proc/self/status to read the peak from: ", err)
	}
	path := big(t, 100<<20)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), bigEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	var size, events, kib int64
	_, err = fmt.Sscan(string(out), &size, &events, &kib)
	require.NoError(t, err)
	t.Logf("%s MB of trace, %d events: peak resident set %d MiB", strconv.FormatFloat(float64(size)/1e6, 'f', 1, 64), events, kib>>10)
	require.GreaterOrEqual(t, size, int64(100<<20))
	require.Less(t, kib, int64(256<<10), "KiB resident")
}

var _ io.Writer = (*writeCounter)(nil)
