// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(files)
}

// A target that is restarted ten times a second stays bounded, and that it is so is
// told. What comes of it in the end is followed as any other.
func TestProcessStorm(t *testing.T) {
	bin := programFile(t)
	w := watch(t, Config{Rules: exeRule("api", bin), Interval: 100 * time.Millisecond})
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	most, mostFiles := 0, 0
	started := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); started++ {
		p := startChild(t, bin)
		time.Sleep(60 * time.Millisecond)
		p.kill()
		time.Sleep(40 * time.Millisecond)
		most, mostFiles = max(most, runtime.NumGoroutine()), max(mostFiles, openFiles(t))
	}
	assert.Less(t, most-goroutines, 100)
	assert.Less(t, mostFiles-files, 200)
	st, err := w.Status("api")
	require.NoError(t, err)
	assert.Positive(t, st.Restarts)
	es := w.Events(t.Context(), 0)
	assert.Less(t, len(es), 2*burst)
	lost := false
	for _, e := range es {
		lost = lost || e.Kind == Lost
	}
	assert.True(t, lost, "it is told: %+v", es)
	t.Logf("%d processes, %d restarts seen, %d events, %d deaths told, up to %d goroutines and %d files more", started, st.Restarts, len(es), len(w.dead), most-goroutines, mostFiles-files)
	for len(w.dead) > 0 {
		e := <-w.dead
		if e.Exit.Known {
			assert.Equal(t, 9, e.Exit.Signal)
		}
	}
	p := startChild(t, bin)
	w.until("api", "the one that lives", func(st *Status) bool { return st.Process != nil && st.Process.PID == p.pid() })
	w.sees("api", p.pid())
	p.kill()
	for e := w.death(); e.Process.PID != p.pid(); {
		e = w.death()
	}
	w.stop()
	// Nothing is left behind.
	stacks := make([]byte, 1<<20)
	left := func() string {
		all := string(stacks[:runtime.Stack(stacks, true)])
		for g := range strings.SplitSeq(all, "\n\n") {
			if strings.Contains(g, "watch.(*life)") || strings.Contains(g, "watch.(*Watcher)") || strings.Contains(g, "attach.(*hold)") {
				return g
			}
		}
		return ""
	}
	for end := time.Now().Add(patience); left() != "" && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	assert.Empty(t, left())
	assert.LessOrEqual(t, openFiles(t), files+2)
}
