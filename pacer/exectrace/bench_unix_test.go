// SPDX-License-Identifier: Apache-2.0

//go:build unix

package exectrace

import (
	"bytes"
	"io"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/exp/trace"
)

// BenchmarkRead reads each recording, and a trace of this toolchain, by turns
// with the trace package's own reading loop, which looks at nothing, and with
// Read. "x-loop" is Read's time over the loop's, the median of the turns: 1.43
// would be the loop's speed minus 30 %. "x-loop-cpu" is the same in CPU time of
// the process, garbage collection included.
func BenchmarkRead(b *testing.B) {
	run := func(name string, in []byte) {
		b.Run(name, func(b *testing.B) {
			var wall, cpu []float64
			var read time.Duration
			var events uint64
			b.ReportAllocs()
			b.SetBytes(int64(2 * len(in)))
			for b.Loop() {
				runtime.GC() // so that neither pays for the other's garbage
				t0, c0 := time.Now(), cpuTime(b)
				rd, err := trace.NewReader(bytes.NewReader(in))
				require.NoError(b, err)
				for err == nil {
					_, err = rd.ReadEvent()
				}
				require.Equal(b, io.EOF, err)
				loopWall, loopCPU := time.Since(t0), cpuTime(b)-c0
				runtime.GC()
				t1, c1 := time.Now(), cpuTime(b)
				r, err := Read(bytes.NewReader(in), Options{})
				require.NoError(b, err)
				readWall, readCPU := time.Since(t1), cpuTime(b)-c1
				wall = append(wall, float64(readWall)/float64(loopWall))
				cpu = append(cpu, float64(readCPU)/float64(loopCPU))
				read += readWall
				events += r.Events
			}
			slices.Sort(wall)
			slices.Sort(cpu)
			b.ReportMetric(wall[len(wall)/2], "x-loop")
			b.ReportMetric(cpu[len(cpu)/2], "x-loop-cpu")
			b.ReportMetric(float64(read)/float64(events), "ns/event")
		})
	}
	for _, release := range recordings {
		run(release, recorded(b, release))
	}
	in, err := os.ReadFile(big(b, 4<<20)) // requests rather than collections
	require.NoError(b, err)
	run("4MiB", in)
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
