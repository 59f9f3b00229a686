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
// the process, garbage collection included. Who goes first changes from turn
// to turn, and one iteration is so many turns that a long trace, which is read
// in one iteration, has a median too.
func BenchmarkRead(b *testing.B) {
	const turns = 10
	run := func(name string, in []byte) {
		b.Run(name, func(b *testing.B) {
			var events uint64
			sides := [2]func(){
				func() {
					rd, err := trace.NewReader(bytes.NewReader(in))
					require.NoError(b, err)
					for err == nil {
						_, err = rd.ReadEvent()
					}
					require.Equal(b, io.EOF, err)
				},
				func() {
					r, err := Read(bytes.NewReader(in), Options{})
					require.NoError(b, err)
					events += r.Events
				},
			}
			var walls, cpus []float64
			var read time.Duration
			b.ReportAllocs()
			b.SetBytes(int64(2 * turns * len(in)))
			for b.Loop() {
				for turn := range turns {
					var wall, cpu [2]time.Duration
					for i := range sides {
						side := i ^ turn&1
						runtime.GC() // so that neither pays for the other's garbage
						t, c := time.Now(), cpuTime(b)
						sides[side]()
						wall[side], cpu[side] = time.Since(t), cpuTime(b)-c
					}
					walls = append(walls, float64(wall[1])/float64(wall[0]))
					cpus = append(cpus, float64(cpu[1])/float64(cpu[0]))
					read += wall[1]
				}
			}
			slices.Sort(walls)
			slices.Sort(cpus)
			b.ReportMetric(walls[len(walls)/2], "x-loop")
			b.ReportMetric(cpus[len(cpus)/2], "x-loop-cpu")
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
