// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytedance/gopkg/util/gctuner"
	"github.com/raulk/go-watchdog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mosn.io/holmes"

	"github.com/memguard/memguard-go/memguard"
)

// guarded is what became of a guard that hooks the collector with a finalizer,
// and what memguard says beside it.
type guarded struct {
	Calls   int64  // of the guard, in eight collections
	Percent int    // GOGC in the end
	Says    string // the finding of memguard about finalizers; empty if none
	Alive   bool   // memguard has ticked since
}

type resource struct{ buf []byte }

//go:noinline
func leaveBlocked() {
	runtime.SetFinalizer(&resource{buf: make([]byte, 16)}, func(*resource) {
		select {} // the user's finalizer that blocks
	})
}

// finalizerHooked are the guards of others that learn of a collection by a finalizer.
var finalizerHooked = []string{"gctuner", "go-watchdog", "holmes"}

// hook starts a guard for a heap of 200 MiB. It adds to calls whenever the guard
// has done its work, if the guard lets that be seen.
func hook(name string, calls *atomic.Int64) {
	const limit = 200 << 20
	var err error
	switch name {
	case "gctuner":
		gctuner.Tuning(limit)
	case "go-watchdog":
		watchdog.RegisterPostGCNotifee(func() { calls.Add(1) })
		err, _ = watchdog.HeapDriven(limit, 10, watchdog.NewAdaptivePolicy(0.5))
	case "holmes":
		var h *holmes.Holmes
		h, err = holmes.New(append(holmesRules(), holmes.WithDumpPath("."), holmes.WithMemoryLimit(limit),
			holmes.WithProfileReporter(reporter(func(string, string) { calls.Add(1) })))...)
		if err == nil {
			h.EnableGCHeapDump().Start()
			collect(12) // its rules begin after ten
		}
	}
	if err != nil {
		panic(err)
	}
}

// collect runs n collections, with time after each for what they trigger.
func collect(n int) {
	for range n {
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
	}
}

func percent() int {
	p := debug.SetGCPercent(100)
	debug.SetGCPercent(p)
	return p
}

func runGuard(name string, blocked bool) (g guarded) {
	stalls := make(chan string, 1)
	ours := memguard.Start(memguard.Config{
		DryRun: true, // GOGC is the other guard's
		Event: func(e memguard.Event) {
			if e.Kind == memguard.Raised && strings.HasPrefix(string(e.Finding.ID), "finalizer-") {
				select {
				case stalls <- string(e.Finding.ID) + ": " + e.Finding.Summary:
				default:
				}
			}
		},
	})
	defer ours.Close()
	var calls atomic.Int64
	hook(name, &calls)
	if blocked {
		leaveBlocked()
		collect(3) // until it blocks; the guard may have its turn first
	}
	// From here on the heap has 150 MiB and the guard something to do.
	before, start := calls.Load(), percent()
	held := make([][]byte, 150)
	for i := range held {
		held[i] = make([]byte, 1<<20)
	}
	collect(8)
	g.Calls, g.Percent = calls.Load()-before, percent()
	if name == "gctuner" && g.Percent != start {
		g.Calls = 1 // it has no callback: it has changed the percent
	}
	wait := 5 * time.Second // in which a false alarm may come
	if blocked {
		wait = 30 * time.Second // far more than it takes
	}
	select {
	case g.Says = <-stalls:
	case <-time.After(wait):
	}
	ticks, end := ours.Status().Ticks, time.Now().Add(10*time.Second)
	for !g.Alive && time.Now().Before(end) {
		time.Sleep(100 * time.Millisecond)
		g.Alive = ours.Status().Ticks > ticks
	}
	runtime.KeepAlive(held)
	return g
}

// TestBlockedFinalizer: one finalizer of the program that blocks silences every
// guard that is a finalizer; memguard goes on, and says what blocks, and where.
func TestBlockedFinalizer(t *testing.T) {
	t.Parallel()
	well, blocked := make([]guarded, len(finalizerHooked)), make([]guarded, len(finalizerHooked))
	var group sync.WaitGroup
	for i, name := range finalizerHooked {
		group.Go(func() { child(t, "well "+name, &well[i]) })
		group.Go(func() { child(t, "blocked "+name, &blocked[i]) })
	}
	group.Wait()
	line := lineOf(t, "finalizer_test.go", "// the user's finalizer that blocks")
	for i, name := range finalizerHooked {
		assert.Positive(t, well[i].Calls, "%s works while all is well", name)
		assert.Empty(t, well[i].Says, "%s: no alarm while all is well", name)
		assert.True(t, well[i].Alive, name)

		assert.Zero(t, blocked[i].Calls, "%s is silent", name)
		assert.Contains(t, blocked[i].Says, "finalizer-stall: ", name)
		assert.Contains(t, blocked[i].Says, fmt.Sprintf("(finalizer_test.go:%d)", line), name)
		assert.True(t, blocked[i].Alive, name)
		t.Logf("%s: works: called %d times or more, GOGC %d; behind a blocked finalizer: called %d times, GOGC %d; memguard: %s",
			name, well[i].Calls, well[i].Percent, blocked[i].Calls, blocked[i].Percent, blocked[i].Says)
	}
}

// lineOf is the number of the first line of a file that has text.
func lineOf(t *testing.T, file, text string) int {
	source, err := os.ReadFile(file)
	require.NoError(t, err)
	before, _, ok := bytes.Cut(source, []byte(text))
	require.True(t, ok)
	return bytes.Count(before, []byte("\n")) + 1
}
