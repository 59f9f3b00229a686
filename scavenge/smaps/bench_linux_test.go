// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
)

// threadTime is the CPU time of the calling thread: what others do on a busy machine is not in it.
func threadTime() time.Duration {
	const threadCPUTime = 3 // CLOCK_THREAD_CPUTIME_ID, clock_gettime(2)
	var ts syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadCPUTime, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic(errno)
	}
	return time.Duration(ts.Nano())
}

// versus runs f and g in turns and reports the median CPU time of each and of the ratios of neighbours.
func versus(b *testing.B, what, base string, f, g func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var took [2][]float64
	var ratios []float64
	f()
	g()
	for i := 0; b.Loop(); i++ {
		var now [2]float64
		for k := range 2 {
			k ^= i & 1 // who is first changes
			start := threadTime()
			[]func(){f, g}[k]()
			now[k] = float64(threadTime() - start)
			took[k] = append(took[k], now[k])
		}
		ratios = append(ratios, now[0]/max(now[1], 1))
	}
	median := func(x []float64) float64 {
		slices.Sort(x)
		return x[len(x)/2]
	}
	b.ReportMetric(median(took[0]), what+"-ns")
	b.ReportMetric(median(took[1]), base+"-ns")
	b.ReportMetric(median(ratios), what+"/"+base)
	b.ReportMetric(0, "ns/op") // both together: of no use
}

// bareRead reads a file to its end and does nothing else.
func bareRead(b *testing.B, name string, buf []byte) {
	f, err := os.Open(name)
	require.NoError(b, err)
	defer f.Close()
	for {
		if _, err := f.Read(buf); err == io.EOF {
			return
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSelf compares Read, which is reading, parsing and classifying, of this process with reading
// the same file only: with a buffer that is big enough, as everybody does it, and in the pieces that Read asks for,
// which spares the kernel some work. The less is resident, the less the kernel has to do and the more
// the parser weighs.
func BenchmarkSelf(b *testing.B) {
	for _, process := range []struct {
		name           string
		heap, mappings int // besides the 50 that a test has
	}{
		{"small", 0, 0},
		{"mappings=300", 0, 300},
		{"mappings=300,heap=256MiB", 256 << 20, 300},
	} {
		b.Run(process.name, func(b *testing.B) {
			hold(b, process.heap, process.mappings)
			pid := os.Getpid()
			name := filepath.Join("/proc", strconv.Itoa(pid), "smaps")
			for _, base := range []struct {
				name string
				size int
			}{
				{"read", bufSize},
				{"read-in-pieces", pieceSize},
			} {
				b.Run(base.name, func(b *testing.B) {
					buf := make([]byte, base.size)
					versus(b, "read+parse+classify", base.name, func() {
						p, err := Read("/proc", pid, Hints{Go: true})
						if err != nil || len(p.Mappings) < process.mappings {
							b.Fatal(err, len(p.Mappings))
						}
					}, func() { bareRead(b, name, buf) })
				})
			}
		})
	}
}

// BenchmarkProcfs compares with prometheus/procfs, from the same files. Of smaps it makes nothing but the
// sums of ten fields, and of that only where there is no smaps_rollup, so it gets a tree without one.
func BenchmarkProcfs(b *testing.B) {
	proc := b.TempDir()
	require.NoError(b, os.Mkdir(filepath.Join(proc, "9"), 0o700))
	file := func(name string, text []byte) {
		require.NoError(b, os.WriteFile(filepath.Join(proc, "9", name), text, 0o600))
	}
	file("smaps", recorded(b))
	file("stat", nil)
	peer := func() procfs.ProcSMapsRollup {
		fs, err := procfs.NewFS(proc)
		require.NoError(b, err)
		p, err := fs.Proc(9)
		require.NoError(b, err)
		sums, err := p.ProcSMapsRollup()
		require.NoError(b, err)
		return sums
	}
	b.Run("smaps", func(b *testing.B) {
		versus(b, "procfs", "this", func() { peer() }, func() {
			_, err := Read(proc, 9, Hints{})
			require.NoError(b, err)
		})
	})
	file("smaps_rollup", []byte(rollup))
	b.Run("smaps_rollup", func(b *testing.B) {
		versus(b, "procfs", "this", func() { peer() }, func() {
			_, err := ReadRollup(proc, 9)
			require.NoError(b, err)
		})
	})
}

// hold keeps a heap and other pieces of memory, which do not merge, until the benchmark ends.
func hold(b *testing.B, size, others int) {
	heap := make([]byte, size)
	for i := 0; i < len(heap); i += 4096 {
		heap[i] = 1
	}
	b.Cleanup(func() { runtime.KeepAlive(heap) })
	for i := range others {
		prot := syscall.PROT_READ
		if i%2 == 0 {
			prot |= syscall.PROT_WRITE
		}
		m, err := syscall.Mmap(-1, 0, 256<<10, prot, syscall.MAP_PRIVATE|syscall.MAP_ANON)
		require.NoError(b, err)
		b.Cleanup(func() { _ = syscall.Munmap(m) })
		for k := 0; i%2 == 0 && k < len(m); k += 4096 {
			m[k] = 1
		}
	}
}
