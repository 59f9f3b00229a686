// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var epoch = time.Unix(1_700_000_000, 0)

// cluster is a snapshot's cluster of one function.
func cluster(fn string, state State, count int) *goroutine {
	return &goroutine{state: state, stack: []Frame{{fn, "/src/a.go", 7}}, count: count}
}

func snapshot(at time.Time, gs ...*goroutine) *Snapshot {
	s := &Snapshot{Time: at, Format: Profile}
	for _, g := range gs {
		if g.count > 0 {
			s.put(g)
		}
	}
	s.done()
	return s
}

// follow feeds a curve, one sample every 15 s, and returns the levels that were
// given.
func follow(tr *Tracker, state State, samples int, at func(i int) int) (levels map[Level]int) {
	levels = map[Level]int{}
	for i := range samples {
		tr.Add(snapshot(epoch.Add(time.Duration(i)*15*time.Second), cluster("main.work", state, at(i))))
		for _, v := range tr.Verdicts() {
			levels[v.Level]++
		}
	}
	return levels
}

func TestTrackerCurves(t *testing.T) {
	t.Parallel()
	noise := func(seed uint64, n int) func() int {
		rng := rand.New(rand.NewPCG(seed, 1))
		return func() int { return rng.IntN(n) }
	}
	jitter := noise(1, 20)
	const hour = 240 // samples
	for _, tt := range []struct {
		name    string
		state   State
		samples int
		at      func(i int) int
		want    Level // the highest, 0 is none
	}{
		{"three a sample", "chan receive", 20, func(i int) int { return 3 * i }, Leaking},
		{"under the noise of a load", "chan receive", 40, func(i int) int { return 5*i + jitter() }, Leaking},
		{"connections", "IO wait", 20, func(i int) int { return 3 * i }, Growing},
		{"timers", "sleep", 20, func(i int) int { return 3 * i }, Growing},
		{"after a burst", "chan receive", hour, func(i int) int { return 5000*((11-min(i, 11))/11) + i }, Growing},
		{"one a minute", "chan receive", hour, func(i int) int { return i / 4 }, Growing},
		{"one in five minutes", "chan receive", 4 * hour, func(i int) int { return i / 20 }, Growing},
		{"too few", "chan receive", hour, func(i int) int { return min(i, 9) }, 0},
		{"level", "chan receive", hour, func(int) int { return 1000 }, 0},
		{"a ramp that ends", "chan receive", hour, func(i int) int { return min(50*i, 200) }, 0},
		{"a step", "chan receive", hour, func(i int) int { return 10 + 500*(i/30%2) }, 0},
		{"a saw", "chan receive", hour, func(i int) int { return 100 * (i % 5) }, 0},
		{"noise", "chan receive", 4 * hour, func(int) int { return jitter() * 10 }, 0},
		{"falls", "chan receive", hour, func(i int) int { return max(1000-5*i, 1) }, 0},
		{"comes and goes", "chan receive", hour, func(i int) int { return 50 * (i % 2) }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			levels := follow(new(Tracker), tt.state, tt.samples, tt.at)
			for l := Growing; l <= Proved; l++ {
				if l == tt.want {
					assert.Positive(t, levels[l], "%v", levels)
				} else if l > tt.want {
					assert.Zero(t, levels[l], "%v", levels)
				}
			}
		})
	}
}

// TestTrackerSlow: what a dump says of waits makes slow growth a leak, or load.
func TestTrackerSlow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		waits time.Duration
		want  Level
	}{{50 * time.Minute, Leaking}, {time.Minute, Growing}} {
		var tr Tracker
		follow(&tr, "chan receive", 240, func(i int) int { return i / 4 })
		require.Len(t, tr.Verdicts(), 1)
		g := cluster("main.work", "chan receive", 60)
		g.waits, g.created = Waits{tt.waits, true}, Frame{"main.main", "/src/a.go", 3}
		tr.Locate(snapshot(epoch.Add(time.Hour), g))
		vs := tr.Verdicts()
		require.Len(t, vs, 1)
		assert.Equal(t, tt.want, vs[0].Level, "%v", vs[0].Signs)
		assert.Equal(t, "a.go:3", vs[0].Origin().Place())
	}
}

// TestTrackerCreators: of two go statements with one stack the one that grows is
// named, although the other has more.
func TestTrackerCreators(t *testing.T) {
	t.Parallel()
	var tr Tracker
	dump := func(leaked int) *Snapshot {
		pool, leak := cluster("main.work", "chan receive", 500), cluster("main.work", "chan receive", leaked)
		pool.created, leak.created = Frame{"main.main", "/src/a.go", 3}, Frame{"main.main", "/src/a.go", 4}
		s := snapshot(epoch, pool, leak)
		s.Format = Dump
		return s
	}
	follow(&tr, "chan receive", 20, func(i int) int { return 500 + 3*i })
	tr.Locate(dump(10))
	assert.Equal(t, "a.go:3", tr.Verdicts()[0].Origin().Place(), "one dump cannot tell")
	tr.Locate(dump(20))
	assert.Equal(t, "a.go:4", tr.Verdicts()[0].Origin().Place())
}

// TestTrackerDumps: a dump is wanted for a cluster that is suspect and was in
// none, and a second one if goroutines of several places have the stack.
func TestTrackerDumps(t *testing.T) {
	t.Parallel()
	var tr Tracker
	assert.False(t, tr.unlocated())
	work := func(i int) *goroutine { return cluster("main.work", "chan receive", 3*i) }
	i := 0
	add := func() {
		tr.Add(snapshot(epoch.Add(time.Duration(i)*15*time.Second), work(i)))
		i++
	}
	for !tr.unlocated() {
		require.Empty(t, tr.Verdicts())
		require.Less(t, i, 20)
		add()
	}
	one, other := work(i), cluster("main.work", "chan receive", 3)
	one.created, other.created = Frame{"main.main", "/src/a.go", 3}, Frame{"main.main", "/src/a.go", 4}
	tr.Locate(snapshot(epoch, one, other))
	assert.False(t, tr.unlocated(), "nothing has come since")
	assert.Contains(t, strings.Join(tr.Verdicts()[0].Signs, "\n"), "go statements of 2 places")
	add()
	add()
	add()
	assert.True(t, tr.unlocated())
	other.count = 9
	tr.Locate(snapshot(epoch, one, other))
	assert.False(t, tr.unlocated())
	vs := tr.Verdicts()
	assert.Equal(t, "a.go:4", vs[0].Origin().Place())
	assert.NotContains(t, strings.Join(vs[0].Signs, "\n"), "places")
	assert.InDelta(t, 1, vs[0].Stacks, 0.001)
	for range 5 {
		add()
		tr.Locate(snapshot(epoch))
		assert.False(t, tr.unlocated(), "there is no third")
	}
}

func TestTrackerProof(t *testing.T) {
	t.Parallel()
	proof := func(n int) *Snapshot {
		g := cluster("main.work", "IO wait", n)
		g.proved = n
		return snapshot(epoch, g)
	}
	var tr Tracker
	follow(&tr, "IO wait", 20, func(i int) int { return 3 * i })
	tr.Prove(proof(5))
	assert.Equal(t, Proved, tr.Verdicts()[0].Level)
	tr.Prove(snapshot(epoch))
	assert.Equal(t, Growing, tr.Verdicts()[0].Level, "a proof does not outlive the next")

	tr = Tracker{}
	follow(&tr, "IO wait", 20, func(int) int { return 99 })
	tr.Prove(proof(99))
	assert.Empty(t, tr.Verdicts(), "a few that do not grow may be meant")
	tr = Tracker{}
	follow(&tr, "IO wait", 20, func(int) int { return 100 })
	tr.Prove(proof(100))
	assert.Len(t, tr.Verdicts(), 1)
}

// TestTrackerBounded: clusters that come and go are forgotten, those past the
// bound are counted, and a clock that stands still adds nothing.
func TestTrackerBounded(t *testing.T) {
	t.Parallel()
	var tr Tracker
	missed := 0
	for i := range 40 {
		var gs []*goroutine
		for k := range 1000 {
			gs = append(gs, cluster(fmt.Sprintf("main.f%d", 1000*i+k), "select", 1))
		}
		tr.Add(snapshot(epoch.Add(time.Duration(i)*time.Second), gs...))
		require.LessOrEqual(t, tr.Len(), maxClusters)
		missed += tr.Missed()
	}
	assert.Positive(t, missed)
	for i := range 40 {
		tr.Add(snapshot(epoch.Add(time.Duration(100+i)*time.Second), cluster("main.g", "select", 1)))
	}
	assert.Equal(t, 1, tr.Len())
	assert.Zero(t, tr.Missed())

	tr = Tracker{}
	for i := range 100 {
		tr.Add(snapshot(epoch, cluster("main.g", "select", 10*i)))
	}
	assert.Empty(t, tr.Verdicts())
}

// TestShapes: the table is whole, and a user's shapes come first. That each is
// found in a real program is the business of TestCorpus, and of TestLibraryShapes
// in bench/peers.
func TestShapes(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, s := range Shapes() {
		assert.False(t, names[s.Name], s.Name)
		names[s.Name] = true
		assert.NotEmpty(t, s.Why, s.Name)
		assert.NotEmpty(t, s.Remedy, s.Name)
		assert.NotEmpty(t, s.Frames, s.Name)
		for _, st := range s.States {
			assert.NotEqual(t, otherWait, st.class()|boolClass(st == "coroutine"), "%s: state %q", s.Name, st)
		}
	}
	own := Tracker{Shapes: []Shape{{Name: "ours", Frames: []string{"main.work"}, Leak: true, Why: "w", Remedy: "r"}}}
	levels := follow(&own, "IO wait", 20, func(i int) int { return 3 * i })
	assert.Positive(t, levels[Leaking], "a shape of the user's makes growth a leak")
	assert.Equal(t, "ours", own.Verdicts()[0].Shape.Name)
}

func boolClass(b bool) class {
	if b {
		return 0x80
	}
	return 0
}

func TestVerdictText(t *testing.T) {
	t.Parallel()
	var tr Tracker
	follow(&tr, "chan receive", 20, func(i int) int { return 3 * i })
	v := tr.Verdicts()[0]
	assert.Equal(t, "57 goroutines wait in main.work (a.go:7) [chan receive], entered at main.work (a.go:7), 33 more in 2m45s.", v.Summary())
	b, err := json.Marshal(v)
	require.NoError(t, err)
	var back Verdict
	require.NoError(t, json.Unmarshal(b, &back))
	assert.Equal(t, v.Cluster.Key, back.Cluster.Key)
	assert.Equal(t, v.Level, back.Level)
	_, known := back.Cluster.Waits.Longest()
	assert.False(t, known, "unknown stays unknown")
}

func TestStacks(t *testing.T) {
	t.Parallel()
	s := snapshot(epoch, cluster("main.a", "chan receive", 30), cluster("main.b", "syscall", 10),
		&goroutine{state: "select", count: 1, stack: make([]Frame, 100)})
	us := s.Stacks(0)
	require.Len(t, us, 3)
	assert.Equal(t, []uint64{30 * 2048, 10 * 2048, 16384}, []uint64{us[0].Bytes, us[1].Bytes, us[2].Bytes})
	assert.Equal(t, []bool{false, true, false}, []bool{us[0].Pinned, us[1].Pinned, us[2].Pinned})
	sum := uint64(0)
	for _, u := range s.Stacks(1 << 20) {
		sum += u.Bytes
	}
	assert.InDelta(t, 1<<20, sum, 3)
	assert.Empty(t, (&Snapshot{}).Stacks(1<<20))
}

// TestProcessStacks compares the estimate with what real goroutines take: a
// hundred that are 200 calls deep among ten thousand that are not.
func TestProcessStacks(t *testing.T) {
	stop := make(chan struct{})
	var ready sync.WaitGroup
	ready.Add(10100)
	grown := func(f func(), n int) float64 {
		before, _ := StackMetrics()
		for range n {
			go f()
		}
		for range 1000 {
			if runtime.NumGoroutine() > n {
				break
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
		after, _ := StackMetrics()
		return float64(after) - float64(before)
	}
	flat := grown(func() { ready.Done(); <-stop }, 10000)
	deep := grown(func() { sink(200, ready.Done, stop) }, 100)
	ready.Wait()
	s, err := Take()
	require.NoError(t, err)
	total, _ := StackMetrics()
	us := s.Stacks(total)
	close(stop)
	for _, u := range us {
		switch u.Cluster.Count {
		case 10000:
			assert.InEpsilon(t, flat, u.Bytes, 0.5)
		case 100:
			assert.Greater(t, float64(u.Bytes), deep/4)
			assert.Less(t, float64(u.Bytes), deep*4)
		}
	}
	require.GreaterOrEqual(t, len(us), 2)
	require.Equal(t, 10000, us[0].Cluster.Count)
}

// TestProcessStackStart: goroutines that are parked deep are the largest cluster,
// and raise the size that the stacks of others begin with.
func TestProcessStackStart(t *testing.T) {
	stop := make(chan struct{})
	var ready, gone sync.WaitGroup
	for range 200 {
		ready.Add(1)
		gone.Go(func() { sink(200, ready.Done, stop) })
	}
	ready.Wait()
	runtime.GC()
	runtime.GC()
	total, start := StackMetrics()
	s, err := Take()
	close(stop)
	gone.Wait()
	require.NoError(t, err)
	assert.GreaterOrEqual(t, start, uint64(8<<10))
	us := s.Stacks(total)
	assert.Equal(t, 200, us[0].Cluster.Count)
	assert.Greater(t, us[0].Bytes, total/2)
}

//go:noinline
func sink(depth int, ready func(), stop chan struct{}) byte {
	var frame [64]byte
	if depth == 0 {
		ready()
		<-stop
		return 0
	}
	frame[depth%64] = sink(depth-1, ready, stop)
	return frame[(depth+1)%64]
}

func TestCompareAndMerge(t *testing.T) {
	t.Parallel()
	before := snapshot(epoch, cluster("main.same", "select", 5), cluster("main.grows", "chan send", 5), cluster("main.falls", "IO wait", 50), cluster("main.gone", "sleep", 2))
	after := snapshot(epoch, cluster("main.same", "select", 5), cluster("main.grows", "chan send", 25), cluster("main.falls", "IO wait", 40), cluster("main.busy", "running", 20), cluster("main.new", "chan receive", 20))
	d := Compare(before, after)
	names := func(cs []Change) (out []string) {
		for _, c := range cs {
			out = append(out, fmt.Sprintf("%s%+d", c.Cluster.Entry().Func, c.Grown()))
		}
		return out
	}
	assert.Equal(t, []string{"main.new+20", "main.busy+20"}, names(d.Appeared), "blocked before busy")
	assert.Equal(t, []string{"main.grows+20"}, names(d.Grew))
	assert.Equal(t, []string{"main.same+0"}, names(d.Stayed))
	assert.Equal(t, []string{"main.falls-10", "main.gone-2"}, names(d.Shrank))

	m := Merge(before, after, after)
	assert.Equal(t, 3, m.Of)
	assert.Equal(t, before.Goroutines+2*after.Goroutines, m.Goroutines)
	assert.Equal(t, 3, m.Clusters[0].Of, "what is in all instances comes first")
	assert.Equal(t, "main.falls", m.Clusters[0].Entry().Func)
	assert.Equal(t, 4, Merge(m, before).Of, "what was merged can be merged")
	assert.Equal(t, 5, before.Find(before.Clusters[1].Key).Count, "the parts stay as they were")
}

// TestJSON: snapshots go through JSON, and can be compared afterwards.
func TestJSON(t *testing.T) {
	t.Parallel()
	for _, file := range recordings(t) {
		s := parseFile(t, file)
		b, err := json.Marshal(s)
		require.NoError(t, err)
		var back Snapshot
		require.NoError(t, json.Unmarshal(b, &back))
		assert.Equal(t, list(s), list(&back), file)
		d := Compare(s, &back)
		assert.Len(t, d.Stayed, len(s.Clusters), file)
		assert.Equal(t, 2*s.Goroutines, Merge(&back, s).Goroutines, file)
	}
	var k Key
	assert.Error(t, k.UnmarshalText([]byte("12")))
	assert.Error(t, k.UnmarshalText([]byte("zz345678901234567890123456789012")))
	var l Level
	assert.Error(t, l.UnmarshalText([]byte("")))
}

// TestText: what a person is shown of two recordings and of a hostile one.
func TestText(t *testing.T) {
	t.Parallel()
	before := parseFile(t, "testdata/dumps/go1.26.8.debug0.pb.gz")
	after := parseFile(t, "testdata/dumps/go1.26.8.debug2.txt")
	for name, write := range map[string]func(w *os.File) error{
		"tree-100.txt":   func(w *os.File) error { return after.WriteText(w, 100, false) },
		"tree-color.txt": func(w *os.File) error { return after.WriteText(w, 60, true) },
		"diff-100.txt":   func(w *os.File) error { return Compare(snapshot(epoch), after).WriteText(w, 100, false) },
		"merged-80.txt":  func(w *os.File) error { return Merge(before, after, before).WriteText(w, 80, false) },
	} {
		file := filepath.Join(t.TempDir(), "out")
		w, err := os.Create(file)
		require.NoError(t, err)
		require.NoError(t, write(w))
		require.NoError(t, w.Close())
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		golden(t, "testdata/text/"+name, string(b))
	}
}

// TestSampler follows real goroutines of this process. It changes nothing, but
// has to know what else runs.
func TestProcessSampler(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	s := Sampler{DumpEvery: 1, Every: time.Hour, Tracker: Tracker{MinAge: 1}}
	for range 14 {
		for range 3 {
			go func() { <-stop }() // the leak
		}
		time.Sleep(2 * time.Millisecond)
		cost, err := s.Sample()
		require.NoError(t, err)
		assert.Positive(t, cost.Took)
	}
	vs := s.Verdicts()
	require.NotEmpty(t, vs)
	assert.Equal(t, "tracker_test.go", filepath.Base(vs[0].Origin().File))
	assert.Equal(t, "github.com/memguard/memguard-go/memguard/leak.TestProcessSampler", vs[0].Origin().Func)
	assert.GreaterOrEqual(t, time.Until(s.Next()), 59*time.Minute)
	assert.False(t, s.dumped.IsZero(), "a suspect is a reason for a dump")
	s.DumpLimit = -1
	assert.False(t, s.wantsDump(vs, time.Now().Add(time.Hour)))
	s.DumpLimit = runtime.NumGoroutine() + 100
	assert.True(t, s.wantsDump(vs, time.Now().Add(time.Hour)))
	assert.False(t, s.wantsDump(nil, time.Now().Add(time.Hour)), "nobody is suspect")
	assert.False(t, s.wantsProof(nil, time.Now().Add(time.Hour)))
	assert.True(t, s.wantsProof(vs, time.Now().Add(time.Hour)))
	assert.False(t, s.wantsProof(vs, s.proved.Add(time.Minute)), "a proof is a collection")
}
