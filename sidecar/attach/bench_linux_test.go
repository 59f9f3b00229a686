// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// heavy skips what needs gigabytes unless it is asked for.
func heavy(b *testing.B) {
	if os.Getenv("MEMGUARD_HEAVY") == "" {
		b.Skip("MEMGUARD_HEAVY=1 runs the benchmarks that need gigabytes")
	}
}

func benchmark(b *testing.B, parts Parts, args ...string) {
	p := start(b, compile(b, build{release: current, flags: "-ldflags=-s,-w"}), args...)
	t := open(b, p.pid())
	b.ReportAllocs()
	var s *Snapshot
	begin := cpu(b)
	for b.Loop() {
		var err error
		s, err = t.Snapshot(b.Context(), parts)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(cpu(b)-begin)/float64(b.N), "cpu-ns/op") // which other programs disturb less
	b.ReportMetric(float64(s.How.Calls), "syscalls/op")
	b.ReportMetric(float64(s.How.Bytes), "read-bytes/op")
	b.ReportMetric(peak(b, os.Getpid()), "reader-peak-RSS-bytes")
}

// cpu is the time that this process has computed.
func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// peak is the highest resident size of a process (proc_pid_status(5), VmHWM).
func peak(b *testing.B, pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(b, err)
	_, rest, _ := strings.Cut(string(raw), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(b, err)
	return float64(kib << 10)
}

func BenchmarkFigures(b *testing.B)        { benchmark(b, 0) }
func BenchmarkFigures2GiB(b *testing.B)    { heavy(b); benchmark(b, 0, "-heap=2048", "-small") }
func BenchmarkSpans(b *testing.B)          { benchmark(b, Spans) }
func BenchmarkSpans2GiB(b *testing.B)      { heavy(b); benchmark(b, Spans, "-heap=2048", "-small") }
func BenchmarkGoroutines(b *testing.B)     { benchmark(b, Goroutines) }
func BenchmarkGoroutines100k(b *testing.B) { benchmark(b, Goroutines, "-goroutines=100000") }
func BenchmarkGoroutines1M(b *testing.B) {
	heavy(b)
	benchmark(b, Goroutines, "-goroutines=1000000")
}
func BenchmarkStacks100k(b *testing.B) { benchmark(b, Goroutines|Stacks, "-goroutines=100000") }

// BenchmarkAttach is Open, by a table and located globals.
func BenchmarkAttach(b *testing.B) {
	p := start(b, compile(b, build{release: current, flags: "-ldflags=-s,-w"}))
	b.ReportAllocs()
	for b.Loop() {
		t, err := Open(p.pid())
		require.NoError(b, err)
		t.Close()
	}
}

// BenchmarkAgainstInProcess takes turns with the target's own goroutine profile.
func BenchmarkAgainstInProcess(b *testing.B) {
	p := start(b, compile(b, build{release: current, flags: "-ldflags=-s,-w"}), "-goroutines=100000")
	t := open(b, p.pid())
	file := filepath.Join(b.TempDir(), "profile")
	var inside, outside time.Duration
	for b.Loop() {
		begin := time.Now()
		require.Equal(b, "<nil>\n", p.ask(b, "goroutine "+file))
		inside += time.Since(begin)
		begin = time.Now()
		_, err := t.Snapshot(b.Context(), Goroutines)
		require.NoError(b, err)
		outside += time.Since(begin)
	}
	b.ReportMetric(float64(inside)/float64(outside), "in-process/attach")
}

// BenchmarkTargetSlowdown is what it costs a target to be read: a snapshot of everything
// but the heap profile, once a second. Two targets work at the same time, each on a
// processor of its own. One of them is read, in turns, and the ratio of their work in
// the window that begins with the reading is held against the windows before and after:
// what the machine does to both of them, or for longer, falls out. What the reading
// does is over well within the window. An operation is a reading of each, so
//
//	go test -run='^$' -bench=TargetSlowdown -benchtime=600x ./sidecar/attach
//
// takes five minutes; the change is of all its work. A metric's name ends in what it is: the mean of all readings, and
// the ends of its 95 % confidence interval. The reader computes on the same processors:
// work/s has what it takes of them, and work/cpu-s has not.
func BenchmarkTargetSlowdown(b *testing.B) {
	slowdown(b, window.Seconds(), func(t *Target) (end func()) {
		_, err := t.Snapshot(b.Context(), Spans|Goroutines)
		require.NoError(b, err)
		return func() {}
	})
}

// BenchmarkHeldSlowdown is what it costs a target that its exit is held, in the same
// way: it is from the window's beginning to its end, and not before and after.
func BenchmarkHeldSlowdown(b *testing.B) {
	slowdown(b, 1, func(t *Target) (end func()) {
		ctx, cancel := context.WithCancel(b.Context())
		done := wait(b, t, ctx)
		return func() {
			cancel()
			require.ErrorIs(b, (<-done).error, context.Canceled)
		}
	})
}

const window = 50 * time.Millisecond

// slowdown reports how a target's work changes in a window that begins with do and
// ends with what that returns, in percent of so much of it.
func slowdown(b *testing.B, of float64, do func(*Target) (end func())) {
	type worker struct {
		*Target
		pid  int
		done []byte
	}
	var workers [2]worker
	for i := range workers {
		file := filepath.Join(b.TempDir(), "counter")
		require.NoError(b, os.WriteFile(file, make([]byte, 8), 0o600))
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		require.NoError(b, err)
		done, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ, unix.MAP_SHARED)
		require.NoError(b, err)
		f.Close()
		c := exec.Command(compile(b, build{release: current, flags: "-ldflags=-s,-w"}), "-goroutines=1000", "-heap=4")
		c.Env = append(os.Environ(), "GOMAXPROCS=1")
		p := startCommand(b, c)
		require.Equal(b, "<nil>\n", p.ask(b, "work "+file))
		pin(b, p.pid(), i)
		workers[i] = worker{open(b, p.pid()), p.pid(), done}
	}
	// at is what each has done, and computed, until now.
	at := func() (f [2][2]float64) {
		for i, w := range workers {
			f[i] = [2]float64{float64(atomic.LoadUint64((*uint64)(unsafe.Pointer(&w.done[0])))), float64(cpuOf(b, w.pid))}
		}
		return f
	}
	var losses [2][]float64 // in percent: by time, by processor time
	reading := func(read int) {
		var y [3][2]float64
		from := at()
		for i := range y {
			over := time.Now().Add(window)
			end := func() {}
			if i == 1 {
				end = do(workers[read].Target)
			}
			time.Sleep(time.Until(over))
			to := at()
			end()
			work := (to[read][0] - from[read][0]) / (to[1-read][0] - from[1-read][0])
			used := (to[read][1] - from[read][1]) / (to[1-read][1] - from[1-read][1])
			y[i], from = [2]float64{math.Log(work), math.Log(work / used)}, to
		}
		for i := range losses {
			if change := y[1][i] - (y[0][i]+y[2][i])/2; !math.IsNaN(change) && !math.IsInf(change, 0) { // one of them stood still
				losses[i] = append(losses[i], 100*change*of)
			}
		}
	}
	time.Sleep(time.Second) // the heaps grow to where they stay
	for first := 0; b.Loop(); first = 1 - first {
		for _, read := range []int{first, 1 - first} {
			reading(read)
			time.Sleep(2 * window)
		}
	}
	for i, name := range []string{"work/s", "work/cpu-s"} {
		mean, half := interval(losses[i])
		b.ReportMetric(mean, name+"-change-%-mean")
		b.ReportMetric(mean-half, name+"-change-%-from")
		b.ReportMetric(mean+half, name+"-change-%-to")
	}
}

// interval is the mean of values, and half the width of its 95 % confidence interval.
func interval(values []float64) (mean, half float64) {
	n := float64(len(values))
	for _, v := range values {
		mean += v / n
	}
	var sum float64
	for _, v := range values {
		sum += (v - mean) * (v - mean)
	}
	return mean, 1.96 * math.Sqrt(sum/(n-1)/n)
}

// pin keeps the threads of a process on one processor.
func pin(b *testing.B, pid, processor int) {
	var set unix.CPUSet
	set.Set(processor % runtime.NumCPU())
	for range 3 { // a thread that was made meanwhile
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		require.NoError(b, err)
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			require.NoError(b, err)
			require.NoError(b, unix.SchedSetaffinity(tid, &set))
		}
	}
}

// cpuOf is the time that a process has computed (clock_getcpuclockid(3): its clock's
// number is made of its own, with CPUCLOCK_SCHED).
func cpuOf(b *testing.B, pid int) time.Duration {
	var t unix.Timespec
	require.NoError(b, unix.ClockGettime(int32(^pid<<3|2), &t))
	return time.Duration(t.Nano())
}

// TestReaderMemory reads a million goroutines from a process of its own, which
// is this test again.
func TestReaderMemory(t *testing.T) {
	if pid := os.Getenv("MEMGUARD_READ_PID"); pid != "" {
		n, err := strconv.Atoi(pid)
		require.NoError(t, err)
		_, err = open(t, n).Snapshot(t.Context(), Spans|Goroutines)
		require.NoError(t, err)
		raw, err := os.ReadFile("/proc/self/status")
		require.NoError(t, err)
		_, rest, _ := strings.Cut(string(raw), "VmHWM:")
		fmt.Println("peak-kib", strings.Fields(rest)[0])
		return
	}
	if os.Getenv("MEMGUARD_HEAVY") == "" {
		t.Skip("MEMGUARD_HEAVY=1 reads a million goroutines, which needs 3 GiB")
	}
	p := start(t, compile(t, build{release: current, flags: "-ldflags=-s,-w"}), "-goroutines=1000000")
	c := exec.Command(os.Args[0], "-test.run=^TestReaderMemory$")
	c.Env = append(os.Environ(), fmt.Sprintf("MEMGUARD_READ_PID=%d", p.pid()))
	out, err := c.Output()
	require.NoError(t, err, "%s", out)
	_, rest, ok := strings.Cut(string(out), "peak-kib ")
	require.True(t, ok, "%s", out)
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(t, err)
	t.Logf("the reader's peak RSS is %d KiB", kib)
	require.Less(t, kib, 32<<10)
}
