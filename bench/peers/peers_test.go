// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/bytedance/gopkg/util/gctuner"
	"github.com/raulk/go-watchdog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/memguard/memguard-go/memguard/leak/testdata/corpus/programs"
)

// The test binary runs itself as a child: the variable says what to do.
const jobEnv = "MEMGUARD_PEERS_JOB"

func TestMain(m *testing.M) {
	kind, name, ok := strings.Cut(os.Getenv(jobEnv), " ")
	if !ok {
		os.Exit(m.Run())
	}
	var out any
	switch kind {
	case "goleak":
		out = runGoleak(name)
	case "well", "blocked":
		out = runGuard(name, kind == "blocked")
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		panic(err)
	}
}

func child(t *testing.T, job string, into any) {
	self, err := os.Executable()
	if !assert.NoError(t, err) {
		return
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), jobEnv+"="+job)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if assert.NoError(t, err, job) {
		assert.NoError(t, json.Unmarshal(out, into), job)
	}
}

// found is what three detectors say of one program after its last round.
type found struct {
	Ours    string // level and line, empty if nothing
	Goleak  string // its message
	Runtime int    // goroutines in the goroutineleak profile, -1 without it
}

func runGoleak(name string) (f found) {
	for _, p := range programs.All() {
		if p.Name != name {
			continue
		}
		// As in memguard/leak/testdata/corpus: rounds come in milliseconds here.
		s := leak.Sampler{DumpEvery: 1, ProveEvery: -1, Tracker: leak.Tracker{MinAge: 20 * time.Millisecond}}
		round := p.New()
		for n := range programs.Rounds {
			round(n)
			settle()
			if _, err := s.Sample(); err != nil {
				panic(err)
			}
		}
		if vs := s.Verdicts(); len(vs) > 0 {
			f.Ours = fmt.Sprintf("%s at %s", vs[0].Level, vs[0].Origin().Place())
		}
		f.Runtime = -1
		if leaked, err := leak.TakeLeaked(); err == nil {
			f.Runtime = leaked.Goroutines
		}
		if err := goleak.Find(); err != nil {
			f.Goleak = err.Error()
		}
		runtime.KeepAlive(round)
		return f
	}
	panic("no such program")
}

// settle waits until the number of goroutines stands still, for half a second at
// most.
func settle() {
	last, same := -1, 0
	for range 250 {
		if n := runtime.NumGoroutine(); n == last {
			same++
		} else {
			last, same = n, 0
		}
		if same == 3 {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestGoleak runs the corpus under three detectors. goleak answers another
// question, whether anything is left when a test ends, so it says of healthy
// services that run on what it says of leaks. The runtime's profile is there from
// Go 1.27, or with GOEXPERIMENT=goroutineleakprofile. That this project's answers
// are right is the business of TestCorpus in memguard/leak.
func TestGoleak(t *testing.T) {
	t.Parallel()
	all := programs.All()
	said := make([]found, len(all))
	var group sync.WaitGroup
	slots := make(chan struct{}, 2*runtime.GOMAXPROCS(0)) // they sleep most of the time
	for i, p := range all {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			child(t, "goleak "+p.Name, &said[i])
		})
	}
	group.Wait()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROGRAM\tLEAKS\tTHIS PROJECT\tgoleak\tgoroutineleak PROFILE")
	var counts [2][4]int // healthy and leaking: programs, and how many each detector accuses
	for i, p := range all {
		f, kind := said[i], 0
		if p.Leaks {
			kind = 1
		}
		counts[kind][0]++
		cols := [3]string{"-", "-", "-"}
		for k, says := range []string{f.Ours, f.Goleak, fmt.Sprint(max(f.Runtime, 0))} {
			if says == "" || says == "0" {
				continue
			}
			counts[kind][k+1]++
			cols[k] = [3]string{says, "left behind", says}[k]
		}
		fmt.Fprintf(w, "%s\t%v\t%s\t%s\t%s\n", p.Name, p.Leaks, cols[0], cols[1], cols[2])
	}
	require.NoError(t, w.Flush())
	none := ""
	if said[0].Runtime < 0 {
		none = " (not in this build)"
	}
	for kind, what := range []string{"healthy", "leaking"} {
		fmt.Fprintf(&b, "of %d %s programs accused: by this project %d, goleak %d, the runtime's profile %d%s\n",
			counts[kind][0], what, counts[kind][1], counts[kind][2], counts[kind][3], none)
	}
	t.Logf("\n%s", &b)
	assert.Equal(t, counts[1][0], counts[1][1])
	assert.Zero(t, counts[0][1])
	assert.Positive(t, counts[1][2])
}

// guarded is what became of a guard that hooks the collector with a finalizer.
type guarded struct {
	Calls   int64 // of the guard, in eight collections
	Percent int   // GOGC in the end
	Verdict leak.QueueVerdict
}

type resource struct{ buf []byte }

//go:noinline
func leaveBlocked() {
	runtime.SetFinalizer(&resource{buf: make([]byte, 16)}, func(*resource) {
		select {} // the user's finalizer that blocks
	})
}

func runGuard(name string, blocked bool) (g guarded) {
	queues := leak.NewQueues()
	defer queues.Close()
	queues.Tick()
	var calls atomic.Int64
	switch name {
	case "gctuner":
		gctuner.Tuning(200 << 20)
	case "go-watchdog":
		watchdog.RegisterPostGCNotifee(func() { calls.Add(1) })
		if err, _ := watchdog.HeapDriven(200<<20, 10, watchdog.NewAdaptivePolicy(0.5)); err != nil {
			panic(err)
		}
	}
	if blocked {
		leaveBlocked()
		for range 3 { // until it blocks; the guard may have its turn first
			runtime.GC()
			time.Sleep(20 * time.Millisecond)
		}
	}
	// From here on the heap has 150 MiB and the guard something to do.
	before := calls.Load()
	percent := debug.SetGCPercent(100)
	debug.SetGCPercent(percent)
	held := make([][]byte, 150)
	for i := range held {
		held[i] = make([]byte, 1<<20)
	}
	for range 8 {
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
	}
	g.Calls = calls.Load() - before
	g.Percent = debug.SetGCPercent(100)
	debug.SetGCPercent(g.Percent)
	if name == "gctuner" && g.Percent != percent {
		g.Calls = 1 // it has no callback: it has changed the percent
	}
	for range 4 {
		g.Verdict, _ = queues.Tick()
		time.Sleep(time.Second)
	}
	runtime.KeepAlive(held)
	return g
}

// TestBlockedFinalizer: one finalizer of the program that blocks silences every
// guard that is a finalizer; a guard with a loop says what blocks, and where.
func TestBlockedFinalizer(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("peers_test.go")
	require.NoError(t, err)
	guards := []string{"gctuner", "go-watchdog"}
	var well, blocked [2]guarded
	var group sync.WaitGroup
	for i, name := range guards {
		group.Go(func() { child(t, "well "+name, &well[i]) })
		group.Go(func() { child(t, "blocked "+name, &blocked[i]) })
	}
	group.Wait()
	for i, name := range guards {
		assert.Positive(t, well[i].Calls, "%s works while all is well", name)
		assert.Zero(t, blocked[i].Calls, "%s is silent", name)
		assert.Equal(t, leak.Flowing, well[i].Verdict.State, name)
		v := blocked[i].Verdict
		assert.Equal(t, leak.Stalled, v.State, name)
		require.Positive(t, v.Where.Line, name)
		assert.Contains(t, strings.Split(string(source), "\n")[v.Where.Line-1], "// the user's finalizer that blocks")
		behind, _ := v.Behind.Get()
		t.Logf("%s: works: called %d times or more, GOGC %d; behind a blocked finalizer: called %d times, GOGC %d; memguard: %s %s at %s, %.0f behind",
			name, well[i].Calls, well[i].Percent, blocked[i].Calls, blocked[i].Percent, v.Kind, v.State, v.Where.Place(), behind)
	}
}
