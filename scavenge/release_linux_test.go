// SPDX-License-Identifier: Apache-2.0

package scavenge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// partEnv makes the test binary play a part, instead of running tests.
const partEnv = "SCAVENGE_TEST_PART"

func TestMain(m *testing.M) {
	if part, ok := parts[os.Getenv(partEnv)]; ok {
		part()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// told is one line of a part. After each it waits for a line.
type told struct {
	RSS     uint64
	Stacks  uint64
	Steps   int
	Outcome Outcome
	Account Account
	Reason  string
}

func (s told) tell() {
	var pages uint64
	statm, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscanf(string(statm), "%d %d", new(uint64), &pages)
	}
	s.RSS = pages * uint64(os.Getpagesize())
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(s)
	}
	if err == nil {
		_, err = os.Stdin.Read(make([]byte, 1))
	}
	if err != nil && err != io.EOF { // that is the end of the last line
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var parts = map[string]func(){
	// 200 MiB are used, dropped and collected.
	"spike": func() {
		debug.SetGCPercent(-1)
		told{}.tell()
		spike(200 * mb)
		runtime.GC()
		told{}.tell()
		o, err := Release()
		if err != nil {
			panic(err)
		}
		told{Outcome: o}.tell()
	},
	// A Releaser sees a spike that nobody collects, then nothing.
	"spike-releaser": func() {
		var r Releaser
		r.follow(5)
		spike(200 * mb)
		told{}.tell()
		r.follow(60).tell()
	},
	// 10,000 goroutines go deep, return and park.
	"stacks": func() {
		var deep sync.WaitGroup
		park := make(chan struct{})
		for range goroutines {
			deep.Add(1)
			go func() {
				descend(16)
				deep.Done()
				<-park
			}()
		}
		deep.Wait()
		told{Stacks: heap().Stacks}.tell()
		new(Releaser).follow(60).tell()
	},
}

//go:noinline
func descend(kib int) byte {
	var frame [1024]byte
	if kib > 0 {
		frame[kib] = descend(kib - 1)
	}
	return frame[kib]
}

//go:noinline
func spike(bytes int) {
	var blocks [][]byte
	for range bytes >> 16 {
		block := make([]byte, 1<<16)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		blocks = append(blocks, block)
	}
	runtime.KeepAlive(blocks)
}

// follow lets the Releaser loose on the process for that many seconds, which are made
// up, and does what it plans.
func (r *Releaser) follow(seconds int) told {
	var s told
	at := time.Unix(1_000_000, 0).Add(r.now)
	for in := (Reading{}); s.Steps < 10*seconds; s.Steps++ {
		at = at.Add(100 * time.Millisecond)
		in.Time, in.Heap = at, heap()
		p := r.Step(&in)
		in.Outcome = nil
		if p.Grade > Observe {
			s.Reason = p.Reason.String()
		}
		if p.Release {
			o, err := Release()
			if err != nil {
				panic(err)
			}
			in.Outcome = &o
		}
	}
	s.Account, s.Stacks = r.Account(), heap().Stacks
	return s
}

func heap() *Heap {
	var h Heap
	var released uint64
	for name, p := range map[string]*uint64{
		"/memory/classes/total:bytes":         &h.Mapped,
		"/memory/classes/heap/released:bytes": &released,
		"/memory/classes/heap/objects:bytes":  &h.Objects,
		"/memory/classes/heap/free:bytes":     &h.Free,
		"/memory/classes/heap/stacks:bytes":   &h.Stacks,
		"/gc/heap/goal:bytes":                 &h.Goal,
		"/gc/heap/allocs:bytes":               &h.Allocated,
		"/sched/goroutines:goroutines":        &h.Goroutines,
		"/gc/cycles/total:gc-cycles":          &h.Cycles,
		"/gc/heap/live:bytes":                 &h.Live,
		"/gc/scan/stack:bytes":                &h.StackScan,
	} {
		m := []metrics.Sample{{Name: name}}
		metrics.Read(m)
		*p = m[0].Value.Uint64()
	}
	h.Mapped -= released
	return &h
}

// play starts a part; next has it go on to its next line.
func play(t *testing.T, part string, start func(*exec.Cmd) error) (next func() told) {
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), partEnv+"="+part, "GODEBUG=", "GOGC=", "GOMEMLIMIT=")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, start(cmd))
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	dec := json.NewDecoder(out)
	first := true
	return func() (s told) {
		if !first {
			_, err := in.Write([]byte("\n"))
			require.NoError(t, err)
		}
		first = false
		require.NoError(t, dec.Decode(&s))
		return s
	}
}

func TestReleaseLowersRSS(t *testing.T) {
	t.Parallel()
	next := play(t, "spike", (*exec.Cmd).Start)
	before, spiked, released := next(), next(), next()
	assert.Greater(t, spiked.RSS, before.RSS+190*mb, "collected, and still resident")
	assert.Greater(t, int64(spiked.RSS-released.RSS), int64(190*mb)) // the race detector's shadow stays
	o := released.Outcome
	gained, ok := o.Gained()
	assert.True(t, ok)
	assert.InDelta(t, 200*mb, gained, 20*mb)
	assert.Positive(t, o.Took)
	t.Logf("RSS %s -> %s -> %s, took %v", mib(before.RSS), mib(spiked.RSS), mib(released.RSS), o.Took)
}

// The kernel charges less, too.
func TestReleaseLowersCharge(t *testing.T) {
	t.Parallel()
	box, err := sandbox.New("release", 1<<30)
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, box.Close()) })
	g, err := cgroup.OpenDir(box.Dir())
	require.NoError(t, err)
	t.Cleanup(func() { g.Close() })
	charged := func() uint64 {
		n, err := g.Usage()
		require.NoError(t, err)
		return n
	}
	next := play(t, "spike", box.Start)
	next()
	before := charged()
	next()
	spiked := charged()
	next()
	released := charged()
	assert.Greater(t, spiked, before+190*mb)
	assert.Greater(t, int64(spiked-released), int64(190*mb))
	t.Logf("charged %s -> %s -> %s", mib(before), mib(spiked), mib(released))
}

// The whole way: a Releaser sees it, and the memory goes.
func TestReleaserOnSpike(t *testing.T) {
	t.Parallel()
	next := play(t, "spike-releaser", (*exec.Cmd).Start)
	spiked, after := next(), next()
	assert.Greater(t, int64(spiked.RSS-after.RSS), int64(100*mb))
	assert.LessOrEqual(t, after.Account.Asked, uint64(2))
	assert.NotZero(t, after.Account.Paid)
	t.Logf("%+v: %s", after.Account, after.Reason)
}

func TestReleaserOnStacks(t *testing.T) {
	t.Parallel()
	next := play(t, "stacks", (*exec.Cmd).Start)
	deep, after := next(), next()
	require.Greater(t, deep.Stacks, uint64(goroutines*16<<10))
	assert.Less(t, after.Stacks, deep.Stacks/2)
	assert.Greater(t, int64(deep.RSS-after.RSS), int64(50*mb))
	assert.NotZero(t, after.Account.Paid)
	assert.LessOrEqual(t, after.Account.Asked, uint64(perMinute))
	t.Logf("stacks %s -> %s, RSS %s -> %s, %+v: %s", mib(deep.Stacks), mib(after.Stacks), mib(deep.RSS), mib(after.RSS), after.Account, after.Reason)
}

// No setting changes, and a second release does not begin while one is under way.
func TestProcessRelease(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(77))
	o, err := Release()
	require.NoError(t, err)
	assert.True(t, o.Measured)
	assert.Equal(t, TrimNotBuiltIn, o.Trim)
	assert.Equal(t, 77, debug.SetGCPercent(77))

	releasing.Lock()
	defer releasing.Unlock()
	_, err = Release()
	assert.ErrorIs(t, err, ErrReleasing)
}

// C's freed memory stays with glibc, unless it is asked for it.
func TestTrim(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("not with -short: builds a program with cgo")
	}
	cc, err := exec.Command("go", "env", "CC").Output()
	if err == nil {
		_, err = exec.LookPath(strings.TrimSpace(string(cc)))
	}
	if err != nil {
		t.Skip("needs a C compiler: ", err)
	}
	bin := filepath.Join(t.TempDir(), "trim")
	build := exec.Command("go", "build", "-tags", "malloc_trim", "-o", bin, "./testdata/trim")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	text, err := build.CombinedOutput()
	require.NoError(t, err, "%s", text)
	out, err := exec.Command(bin).Output()
	require.NoError(t, err)
	var s struct {
		Freed, Collected, Released uint64
		Trim                       string
	}
	require.NoError(t, json.Unmarshal(out, &s))
	assert.Greater(t, s.Freed, uint64(190*mb))
	assert.Greater(t, s.Collected, uint64(180*mb), "debug.FreeOSMemory does not reach it")
	assert.Less(t, s.Released, uint64(60*mb))
	assert.Equal(t, "memory released", s.Trim)
	t.Logf("RSS %s -> %s -> %s", mib(s.Freed), mib(s.Collected), mib(s.Released))
}
