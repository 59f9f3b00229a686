// SPDX-License-Identifier: Apache-2.0

package pacer

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// actual reads the settings as the runtime has them, by another way than the Applier.
func actual() Setting {
	p := debug.SetGCPercent(100)
	if p != 100 {
		debug.SetGCPercent(p)
	}
	return Setting{p, debug.SetMemoryLimit(-1)}
}

func TestProcessApply(t *testing.T) {
	was := actual()
	defer func() { debug.SetGCPercent(was.GCPercent); debug.SetMemoryLimit(was.MemoryLimit) }()
	debug.SetGCPercent(120)
	debug.SetMemoryLimit(3 << 30)

	a := NewApplier()
	base := Setting{120, 3 << 30}
	assert.Equal(t, base, a.Baseline())
	assert.Equal(t, base, a.Current())

	assert.True(t, a.Apply(Setting{50, 2 << 30}))
	assert.Equal(t, Setting{50, 2 << 30}, actual())
	assert.Equal(t, Setting{50, 2 << 30}, a.Current())
	assert.True(t, a.Apply(Setting{50, 2 << 30}), "again")
	assert.Equal(t, base, a.Baseline())

	a.Close()
	assert.Equal(t, base, actual())
	a.Close()
	assert.Equal(t, base, actual())

	// Out of the runtime's range: what is set is what is read back.
	assert.True(t, a.Apply(Setting{-7, -1}))
	assert.Equal(t, Setting{-1, 0}, actual())
	assert.Equal(t, base, a.Baseline())
	a.Close()
	assert.Equal(t, base, actual())
}

func TestProcessSomebodyElse(t *testing.T) {
	was := actual()
	defer func() { debug.SetGCPercent(was.GCPercent); debug.SetMemoryLimit(was.MemoryLimit) }()
	debug.SetGCPercent(100)
	debug.SetMemoryLimit(NoLimit)

	a := NewApplier()
	a.Apply(Setting{50, 1 << 30})
	debug.SetMemoryLimit(4 << 30)
	assert.False(t, a.Apply(Setting{50, 1 << 30}), "decided without knowing of it")
	assert.Equal(t, Setting{50, 4 << 30}, actual(), "left alone")
	assert.Equal(t, Setting{100, 4 << 30}, a.Baseline(), "the other setting goes back to what it was")
	assert.True(t, a.Apply(Setting{60, 2 << 30}))

	debug.SetGCPercent(-1)
	a.Close()
	assert.Equal(t, Setting{-1, 4 << 30}, actual())
}

// TestProcessSaveAndPutBack has others use the idiom of the debug package around
// some work, while a guard ticks.
func TestProcessSaveAndPutBack(t *testing.T) {
	was := actual()
	defer func() { debug.SetGCPercent(was.GCPercent); debug.SetMemoryLimit(was.MemoryLimit) }()
	base := Setting{100, NoLimit}
	half := Setting{50, 1 << 30} // what the guard wants
	for name, c := range map[string]struct {
		others func(tick func())
		want   Setting // baseline, and what is there after Close
	}{
		"GOGC=off, again and again": {func(tick func()) {
			for range 3 {
				func() {
					defer debug.SetGCPercent(debug.SetGCPercent(-1))
					tick()
				}()
				tick()
			}
		}, base},
		"a memory limit, while ours follows the cgroup": {func(tick func()) {
			for range 3 {
				func() {
					defer debug.SetMemoryLimit(debug.SetMemoryLimit(NoLimit))
					half.MemoryLimit -= 10 * mib
					tick()
				}()
				tick()
			}
		}, base},
		"a memory limit that was read long before": {func(tick func()) {
			old := debug.SetMemoryLimit(-1)
			for range 3 {
				half.MemoryLimit -= 10 * mib
				tick()
			}
			debug.SetMemoryLimit(4 << 30)
			tick()
			debug.SetMemoryLimit(old)
		}, base},
		"one in the other, both settings": {func(tick func()) {
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(4 << 30))
			tick()
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			tick()
			func() {
				defer debug.SetGCPercent(debug.SetGCPercent(300))
				tick()
				defer debug.SetMemoryLimit(debug.SetMemoryLimit(3 << 30))
				tick()
			}()
			tick()
		}, base},
		"one of two is still at it": {func(tick func()) {
			func() {
				debug.SetGCPercent(-1)
				tick()
				defer debug.SetGCPercent(debug.SetGCPercent(300))
				tick()
			}()
		}, Setting{-1, NoLimit}},
		"a wish":          {func(func()) { debug.SetGCPercent(-1); debug.SetMemoryLimit(4 << 30) }, Setting{-1, 4 << 30}},
		"a wish, refined": {func(tick func()) { debug.SetGCPercent(-1); tick(); debug.SetGCPercent(300) }, Setting{300, NoLimit}},
		// What was never replaced nobody can put back.
		"a wish that is what we once set": {func(tick func()) {
			half.GCPercent = 200
			tick()
			half.GCPercent = 50
			tick()
			debug.SetGCPercent(200)
		}, Setting{200, NoLimit}},
		"a wish that is there already": {func(func()) { debug.SetGCPercent(50) }, base},
	} {
		t.Run(name, func(t *testing.T) {
			debug.SetGCPercent(base.GCPercent)
			debug.SetMemoryLimit(base.MemoryLimit)
			half = Setting{50, 1 << 30}
			a := NewApplier()
			tick := func() {
				for a.Baseline(); !a.Apply(half); { // a change of somebody else's first
				}
				assert.Equal(t, half, a.Current())
				is := actual()
				assert.InDelta(t, half.GCPercent, is.GCPercent, 3)
				assert.InDelta(t, half.MemoryLimit, is.MemoryLimit, 3)
			}
			tick()
			c.others(tick)
			assert.Equal(t, c.want, a.Baseline())
			tick()
			assert.Equal(t, c.want, a.Baseline())
			a.Close()
			assert.Equal(t, c.want, actual())
		})
	}
}

// TestProcessEnvironment has another process find what its environment says.
func TestProcessEnvironment(t *testing.T) {
	if os.Getenv("PACER_CHILD") != "" {
		a := NewApplier()
		found := a.Baseline()
		a.Apply(Setting{77, 1 << 30})
		during := actual()
		a.Close()
		fmt.Println(found, during, actual())
		os.Exit(0)
	}
	for env, want := range map[[2]string]Setting{
		{"GOGC=", "GOMEMLIMIT="}:          {100, NoLimit},
		{"GOGC=off", "GOMEMLIMIT=300MiB"}: {-1, 300 << 20},
		{"GOGC=50", "GOMEMLIMIT=off"}:     {50, NoLimit},
	} {
		exe, err := os.Executable()
		require.NoError(t, err)
		c := exec.Command(exe, "-test.run=^TestProcessEnvironment$")
		c.Env = append(os.Environ(), "PACER_CHILD=1", env[0], env[1])
		out, err := c.CombinedOutput()
		require.NoError(t, err, string(out))
		assert.Equal(t, fmt.Sprintln(want, Setting{77, 1 << 30}, want), string(out))
	}
}

// TestProcessHeapFollows has the real collector keep to what was applied.
func TestProcessHeapFollows(t *testing.T) {
	was := actual()
	defer func() { debug.SetGCPercent(was.GCPercent); debug.SetMemoryLimit(was.MemoryLimit) }()
	debug.SetMemoryLimit(NoLimit)
	debug.SetGCPercent(100)
	live := make([]byte, 64<<20)
	runtime.GC()
	goal := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	a := NewApplier()
	assert.Greater(t, goal(), uint64(128<<20))
	a.Apply(Setting{100, 96 << 20})
	assert.Less(t, goal(), uint64(96<<20))
	a.Apply(Setting{20, NoLimit})
	assert.Less(t, goal(), uint64(96<<20))
	a.Close()
	assert.Greater(t, goal(), uint64(128<<20))
	runtime.KeepAlive(live)
}

// BenchmarkApply tells what a change costs, with a cycle under way most of the
// time: "same" is a tick that changes nothing, "off" switches the collector off
// and on.
func BenchmarkApply(b *testing.B) {
	was := actual()
	defer func() { debug.SetGCPercent(was.GCPercent); debug.SetMemoryLimit(was.MemoryLimit) }()
	for name, to := range map[string][2]Setting{
		"same":  {{50, 1 << 30}, {50, 1 << 30}},
		"both":  {{50, 1 << 30}, {51, 1<<30 + 1}},
		"off":   {{50, 1 << 30}, {-1, 1 << 30}},
		"limit": {{50, 1 << 30}, {50, 1<<30 + 1}},
	} {
		b.Run(name, func(b *testing.B) {
			a := NewApplier()
			defer a.Close()
			stop, done := make(chan struct{}), make(chan struct{})
			live := make([]*[16]*int, 200_000)
			for i := range live {
				live[i] = new([16]*int)
			}
			go func() {
				defer close(done)
				for {
					select {
					case <-stop:
						return
					default:
						runtime.GC()
					}
				}
			}()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				a.Apply(to[i%2])
				i++
			}
			close(stop)
			<-done
			runtime.KeepAlive(live)
		})
	}
}
