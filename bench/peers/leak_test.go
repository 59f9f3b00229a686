// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"mosn.io/holmes"

	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/memguard/memguard-go/memguard/leak/testdata/corpus/programs"
)

// found is what three detectors say of one program after its last round.
type found struct {
	Ours    string // level and line, empty if nothing
	Goleak  string // its message
	Runtime int    // goroutines in the goroutineleak profile, -1 without it
}

func program(name string) programs.Program {
	for _, p := range programs.All() {
		if p.Name == name {
			return p
		}
	}
	panic("no such program")
}

func runGoleak(name string) (f found) {
	// As in memguard/leak/testdata/corpus: rounds come in milliseconds here.
	s := leak.Sampler{ProveEvery: -1, Tracker: leak.Tracker{MinAge: 20 * time.Millisecond}}
	ours := goleak.IgnoreCurrent() // libraries in this binary start goroutines as they are loaded
	round := program(name).New()
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
	if err := goleak.Find(ours); err != nil {
		f.Goleak = err.Error()
	}
	runtime.KeepAlive(round)
	return f
}

// runHolmes says how often holmes dumped the goroutines of a program, by the rule
// of its README. It looks once in a second, so that is how often a round comes.
func runHolmes(name string) int64 {
	var dumps atomic.Int64
	h, err := holmes.New(append(holmesRules(),
		holmes.WithGoroutineDump(10, 25, 2000, 10*1000, time.Minute),
		holmes.WithDumpPath("."),
		holmes.WithProfileReporter(reporter(func(kind, _ string) {
			if kind == "goroutine" {
				dumps.Add(1)
			}
		})))...)
	if err != nil {
		panic(err)
	}
	h.EnableGoroutineDump().Start()
	round := program(name).New()
	for n := range programs.Rounds {
		round(n)
		time.Sleep(time.Second)
	}
	runtime.KeepAlive(round)
	return dumps.Load()
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

// TestLeakTools runs the corpus under four detectors. goleak answers another
// question, whether anything is left when a test ends, so it says of healthy
// services that run on what it says of leaks. holmes answers by a dump of all
// goroutines when there are more than before. The runtime's profile is there from
// Go 1.27, or with GOEXPERIMENT=goroutineleakprofile. That this project's answers
// are right is the business of TestCorpus in memguard/leak.
func TestLeakTools(t *testing.T) {
	t.Parallel()
	all := programs.All()
	said, dumps := make([]found, len(all)), make([]int64, len(all))
	var group sync.WaitGroup
	slots := make(chan struct{}, 2*runtime.GOMAXPROCS(0)) // they sleep most of the time
	for i, p := range all {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			child(t, "goleak "+p.Name, &said[i])
		})
		if !testing.Short() {
			group.Go(func() { child(t, "holmes "+p.Name, &dumps[i]) }) // all at once: they only sleep
		}
	}
	group.Wait()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROGRAM\tLEAKS\tTHIS PROJECT\tgoleak\tgoroutineleak PROFILE\tholmes")
	var counts [2][5]int // healthy and leaking: programs, and how many each detector accuses
	for i, p := range all {
		f, kind := said[i], 0
		if p.Leaks {
			kind = 1
		}
		counts[kind][0]++
		columns := [4]string{f.Ours, f.Goleak, fmt.Sprint(max(f.Runtime, 0)), fmt.Sprint(dumps[i])}
		for k, says := range columns {
			if says == "" || says == "0" {
				columns[k] = "-"
				continue
			}
			if k == 0 && !p.Leaks && p.Grows && strings.HasPrefix(says, leak.Growing.String()) {
				continue // it does grow
			}
			counts[kind][k+1]++
		}
		if f.Goleak != "" {
			columns[1] = "left behind" // its message has all of their stacks
		}
		if dumps[i] > 0 {
			columns[3] = "dumped"
		}
		fmt.Fprintf(w, "%s\t%v\t%s\n", p.Name, p.Leaks, strings.Join(columns[:], "\t"))
	}
	require.NoError(t, w.Flush())
	profile, dumper := "", ""
	if said[0].Runtime < 0 {
		profile = " (not in this build)"
	}
	if testing.Short() {
		dumper = " (not asked in short mode: it takes a quarter of a minute)"
	}
	for kind, what := range []string{"healthy", "leaking"} {
		n := counts[kind]
		fmt.Fprintf(&b, "of %d %s programs accused: by this project %d, goleak %d, the runtime's profile %d%s, holmes %d%s\n",
			n[0], what, n[1], n[2], n[3], profile, n[4], dumper)
	}
	t.Logf("\n%s", &b)
	assert.Equal(t, counts[1][0], counts[1][1])
	assert.Zero(t, counts[0][1])
	assert.Positive(t, counts[1][2])
	if !testing.Short() {
		assert.Positive(t, counts[1][4])
	}
}
