// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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

// BenchmarkTargetSlowdown is what a target that allocates on all its Ps gets done
// in a second of its processor time, with a snapshot in it and without, in turns.
func BenchmarkTargetSlowdown(b *testing.B) {
	p := start(b, compile(b, build{release: current, flags: "-ldflags=-s,-w"}), "-goroutines=1000")
	t := open(b, p.pid())
	p.ask(b, "churn")
	var done, spent [2]float64
	for b.Loop() {
		for with := range 2 {
			work, used := float64(p.truth(b).MemStats.TotalAlloc), targetCPU(b, p.pid())
			if with == 1 {
				_, err := t.Snapshot(b.Context(), Spans|Goroutines)
				require.NoError(b, err)
			}
			time.Sleep(time.Second)
			done[with] += float64(p.truth(b).MemStats.TotalAlloc) - work
			spent[with] += targetCPU(b, p.pid()) - used
		}
	}
	b.ReportMetric(done[1]/spent[1]/(done[0]/spent[0]), "work-per-cpu-with/without")
	b.ReportMetric(done[1]/done[0], "work-with/without")
}

// targetCPU is the time in clock ticks that a process has computed
// (proc_pid_stat(5), fields 14 and 15).
func targetCPU(b *testing.B, pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(b, err)
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+2:]))
	var sum float64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseFloat(f, 64)
		require.NoError(b, err)
		sum += n
	}
	return sum
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
