// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cpu is the time that this process has computed.
func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// resident is the memory of this process (proc_pid_status(5), VmRSS).
func resident(b *testing.B) float64 {
	raw, err := os.ReadFile("/proc/self/status")
	require.NoError(b, err)
	_, rest, _ := strings.Cut(string(raw), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(b, err)
	return float64(kib << 10)
}

// benchmarkWatch watches so many services at rest, once a second, for twenty
// seconds an operation:
//
//	go test -run='^$' -bench=Watch -benchtime=1x ./sidecar/watch
//
// core-% is the share of one core that all of it takes, the search for processes
// and the walks of goroutines included.
func benchmarkWatch(b *testing.B, targets int, flags ...string) {
	bin := programFile(b, flags...)
	run := b.TempDir()
	for range targets {
		startChild(b, bin, "XDG_RUNTIME_DIR="+run)
	}
	debug.FreeOSMemory()
	before := resident(b)
	w := watch(b, Config{Rules: exeRule("api", bin)})
	w.until("api", "the first look", func(*Status) bool {
		n := 0
		for _, st := range w.Targets() {
			if st.Guard != nil {
				n++
			}
		}
		return n == targets
	})
	time.Sleep(3 * time.Second) // the first walks
	looks := func() (n float64) {
		for _, st := range w.Targets() {
			if st.Guard != nil {
				n += float64(st.Guard.Ticks)
			}
		}
		return n
	}
	looked := looks()
	begin, cpuBegin := time.Now(), cpu(b)
	for b.Loop() {
		time.Sleep(20 * time.Second)
	}
	share := float64(cpu(b)-cpuBegin) / float64(time.Since(begin))
	if len(flags) == 0 { // else they are the guard's own
		b.ReportMetric((looks()-looked)/time.Since(begin).Seconds()/float64(targets), "looks/s/target")
	}
	b.ReportMetric(100*share, "core-%")
	b.ReportMetric(100*share/float64(targets), "core-%/target")
	b.ReportMetric(resident(b)-before, "added-RSS-bytes")
}

func BenchmarkWatch1(b *testing.B)       { benchmarkWatch(b, 1) }
func BenchmarkWatch50(b *testing.B)      { benchmarkWatch(b, 50) }
func BenchmarkWatchAgent1(b *testing.B)  { benchmarkWatch(b, 1, "-tags=guarded") }
func BenchmarkWatchAgent50(b *testing.B) { benchmarkWatch(b, 50, "-tags=guarded") }

// BenchmarkLook is one look from outside at a service, as near the limit it is taken
// every ten milliseconds at most: core-%-at-10ms is what that costs.
func BenchmarkLook(b *testing.B) {
	bin := programFile(b)
	p := startChild(b, bin)
	p.tell("hold", 64)
	p.tell("goroutines", 1000)
	w := watch(b, Config{Rules: exeRule("api", bin), Interval: time.Minute, Hold: -1})
	w.sees("api", p.pid())
	l, err := w.life("api")
	require.NoError(b, err)
	b.ReportAllocs()
	begin := cpu(b)
	for b.Loop() {
		l.lookOutside(time.Now())
	}
	each := float64(cpu(b)-begin) / float64(b.N)
	b.ReportMetric(each, "cpu-ns/op")
	b.ReportMetric(100*each/float64(lookFastest), "core-%-at-10ms")
}
