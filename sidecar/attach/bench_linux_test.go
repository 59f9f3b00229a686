// SPDX-License-Identifier: Apache-2.0

package attach

import (
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

// BenchmarkTargetSlowdown is what it costs a target to be read once a second, by a
// snapshot of everything but the heap profile. Two targets work at the same time, each
// on a processor of its own, and one of them is read, in turns of two seconds: what
// the machine does to both of them at once falls out of the ratio of their work, and
// what it does to one of them out of the turns. An operation is two turns, so
//
//	go test -run='^$' -bench=TargetSlowdown -benchtime=150x ./sidecar/attach
//
// takes ten minutes. The reader computes on the same processors: work/s has what it
// takes of them, and work/cpu-s has not. ±-% is half of the 95 % confidence interval.
func BenchmarkTargetSlowdown(b *testing.B) {
	const turn = 2 * time.Second
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
		c := exec.Command(compile(b, build{release: current, flags: "-ldflags=-s,-w"}), "-goroutines=1000", "-heap=64")
		c.Env = append(os.Environ(), "GOMAXPROCS=1")
		p := startCommand(b, c)
		require.Equal(b, "<nil>\n", p.ask(b, "work "+file))
		pin(b, p.pid(), i)
		workers[i] = worker{open(b, p.pid()), p.pid(), done}
	}
	figures := func() (work, used [2]float64) {
		for i, w := range workers {
			work[i] = float64(atomic.LoadUint64((*uint64)(unsafe.Pointer(&w.done[0]))))
			used[i] = float64(cpuOf(b, w.pid))
		}
		return work, used
	}
	// of is the logarithm of the ratio of what the two got done in a turn in which one
	// of them was read.
	of := func(read int) (perTime, perCPU float64) {
		work, used := figures()
		for end := time.Now().Add(turn); time.Now().Before(end); time.Sleep(time.Second) {
			_, err := workers[read].Snapshot(b.Context(), Spans|Goroutines)
			require.NoError(b, err)
		}
		work2, used2 := figures()
		perTime = math.Log((work2[0] - work[0]) / (work2[1] - work[1]))
		return perTime, perTime - math.Log((used2[0]-used[0])/(used2[1]-used[1]))
	}
	time.Sleep(turn) // the heaps grow to where they stay
	var perTime, perCPU []float64
	for first := 0; b.Loop(); first = 1 - first {
		var t, c [2]float64
		t[first], c[first] = of(first)
		t[1-first], c[1-first] = of(1 - first)
		perTime, perCPU = append(perTime, (t[0]-t[1])/2), append(perCPU, (c[0]-c[1])/2)
	}
	for name, d := range map[string][]float64{"work/s": perTime, "work/cpu-s": perCPU} {
		mean, half := interval(d)
		b.ReportMetric(100*(math.Exp(mean)-1), name+"-change-%")
		b.ReportMetric(100*half, name+"-±-%")
	}
}

// interval is the mean of values and half the width of its 95 % confidence interval,
// by the normal distribution: of thirty values or more.
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
