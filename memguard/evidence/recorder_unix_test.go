// SPDX-License-Identifier: Apache-2.0

//go:build unix

package evidence

import (
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkRecorder does the same work with the recorder on and off, in turns that
// change places, and prints the ratio of the median CPU times: what it costs, at worst,
// a program that does nothing but allocate and wake its goroutines.
func BenchmarkRecorder(b *testing.B) {
	store := &Store{Dir: b.TempDir()}
	record := func() *Recorder {
		r, err := StartRecorder(RecorderConfig{Store: store})
		require.NoError(b, err)
		return r
	}
	var on, off []time.Duration
	work() // the heap and the threads are there
	for turn := 0; b.Loop(); turn++ {
		for _, recording := range []bool{turn%2 == 0, turn%2 != 0} {
			if !recording {
				off = append(off, work())
				continue
			}
			r := record()
			on = append(on, work())
			r.Close()
		}
	}
	b.ReportMetric(float64(median(on))/float64(median(off)), "cpu-on/off")

	r := record()
	defer r.Close()
	work()
	begin := time.Now()
	path, err := r.Save("bench")
	require.NoError(b, err)
	b.ReportMetric(float64(time.Since(begin).Microseconds()), "us/save")
	st, err := os.Stat(path)
	require.NoError(b, err)
	b.ReportMetric(float64(st.Size()), "bytes/save")
}

// work returns the CPU time that it took of all threads.
func work() time.Duration {
	begin := cpu()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			ping, pong := make(chan []byte), make(chan []byte)
			go func() {
				for b := range ping {
					pong <- slices.Clone(b)
				}
				close(pong)
			}()
			for range 5000 {
				ping <- make([]byte, 4096)
				<-pong
			}
			close(ping)
		})
	}
	group.Wait()
	return cpu() - begin
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
