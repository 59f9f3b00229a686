// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const mib = 1 << 20

func TestCycles(t *testing.T) {
	t.Parallel()
	var c Cycles
	for _, look := range []Collector{
		{3, 90 * mib, 50 * mib, 100 * mib, 1, 10}, // the first look
		{3, 99 * mib, 50 * mib, 100 * mib, 1, 10},
		{4, 60 * mib, 58 * mib, 116 * mib, 1.5, 12},
		{6, 70 * mib, 66 * mib, 1 << 62, 4.5, 14}, // two at a time
		{6, 110 * mib, 66 * mib, 1 << 62, 4.5, 14},
		{7, 68 * mib, 67 * mib, 134 * mib, 4.5, 14}, // a clock too coarse
	} {
		c.Step(&look)
	}
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	done := debug.GCStats{NumGC: 7}
	for i := range 7 {
		done.PauseEnd = append(done.PauseEnd, at.Add(-time.Duration(i)*time.Second))
		done.Pause = append(done.Pause, time.Duration(i+1)*100*time.Microsecond)
	}
	assert.Equal(t, `THE LAST 7 OF 7 COLLECTIONS
    cycle  ended                      stopped MiB before       live       goal   CPU
        1  2026-11-22T02:59:54.000Z     700µs          -          -          -     -
        2  2026-11-22T02:59:55.000Z     600µs          -          -          -     -
        3  2026-11-22T02:59:56.000Z     500µs          -       50.0          -     -
        4  2026-11-22T02:59:57.000Z     400µs       99.0       58.0      100.0   25%
        5  2026-11-22T02:59:58.000Z     300µs          -          -          -     -
        6  2026-11-22T02:59:59.000Z     200µs          -       66.0          -  100%
        7  2026-11-22T03:00:00.000Z     100µs      110.0       67.0       none     -
Before and goal are as of the last look before its end, CPU is the collector's share
of all since the last row that has one, - is not seen, none is GOGC=off without a limit.
`, string(c.table(nil, &done)))

	// What was seen of an earlier cycle in the same place is not this one's.
	done.NumGC += mostCycles
	assert.NotContains(t, string(c.table(nil, &done)), ".0 ")
	assert.Equal(t, "THE LAST 0 OF 0 COLLECTIONS\n", string(new(Cycles).table(nil, &debug.GCStats{})))
}

// The runtime's own figures of collections that really were.
func TestProcessCycles(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // none but those
	figures := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"}}
	var c Cycles
	look := func() uint64 {
		metrics.Read(figures)
		now := Collector{Cycles: figures[0].Value.Uint64(), Objects: figures[1].Value.Uint64(), Live: figures[2].Value.Uint64(), Goal: 1 << 62}
		c.Step(&now)
		return now.Cycles
	}
	runtime.GC()
	first := look()
	for range 3 {
		leak = append(leak, make([]byte, 8<<20))
		look()
		runtime.GC()
		look()
	}
	leak = nil
	require.Equal(t, first+3, look())
	b := c.Append(nil)
	t.Logf("%s", b)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	rows := lines[len(lines)-5 : len(lines)-2]
	for _, row := range rows {
		assert.Regexp(t, regexp.MustCompile(`^ +\d+  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z +[0-9.]+\S*s +\d+\.\d +\d+\.\d +none +-$`), row)
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() { c.Step(&Collector{Cycles: c.last.Cycles + 1}) }))
}
