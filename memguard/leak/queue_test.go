// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tickOf feeds readings one second apart, as Queues does: a look is answered in
// the same tick.
type queueSim struct {
	q     Queue
	r     QueueReading
	run   func(tick int) *Running // what a look finds
	looks int
}

func (s *queueSim) tick(i int) QueueVerdict {
	s.r.Time, s.r.Running = epoch.Add(time.Duration(i)*time.Second), nil
	v, look := s.q.Step(&s.r)
	if look {
		s.looks++
		run := *s.run(i)
		run.Time = s.r.Time
		s.r.Running = &run
		v, _ = s.q.Step(&s.r)
	}
	return v
}

func TestQueueSteps(t *testing.T) {
	t.Parallel()
	same := func(state State) func(int) *Running {
		return func(int) *Running { return &Running{Count: 1, Print: 7, Args: true, State: state} }
	}
	for _, tt := range []struct {
		name string
		read func(i int, r *QueueReading)
		run  func(i int) *Running
		want string // a letter for each tick: . flowing, s slow, X stalled
	}{
		{"nothing queued", func(i int, r *QueueReading) { r.Queued, r.Executed = 500, 500 }, nil, "........"},
		{"busy and flowing", func(i int, r *QueueReading) {
			r.Queued, r.Executed = uint64(1000*i+50), uint64(1000*i)
		}, same("chan receive"), "............"},
		{"stalled", func(i int, r *QueueReading) {
			if r.Queued, r.Executed = 500, 500; i > 0 {
				r.Queued = 700
			}
		}, same("chan receive"), "...XXXXXXXXXXXX"},
		{"stalled with more behind it", func(i int, r *QueueReading) {
			r.Queued, r.Executed = 500+uint64(i)*100, 500
		}, same("sync.Mutex.Lock"), "...XXXXXXXX"},
		{"asleep", func(i int, r *QueueReading) { r.Queued, r.Executed = 10, 0 }, same("sleep"), ".....ssssssXXX"},
		{"blocks of slow ones, another each time", func(i int, r *QueueReading) {
			r.Queued, r.Executed = 1000, uint64(i/10*101)
		}, func(i int) *Running {
			return &Running{Count: 1, Print: uint64(i), Args: true, State: "chan receive"}
		}, ".....sssssssssssss"},
		{"one that takes five seconds, and then another", func(i int, r *QueueReading) {
			r.Queued, r.Executed = 100, 0
		}, func(i int) *Running {
			return &Running{Count: 1, Print: uint64(i / 5), Args: true, State: "select"}
		}, "..XXXssssssssssssss"}, // called stalled once, and then known to be slow
		{"drains", func(i int, r *QueueReading) {
			if r.Queued, r.Executed = 500, 0; i > 5 {
				r.Executed = 500
			}
		}, same("select"), "..XXXX......"},
		{"only the sentinel tells", func(i int, r *QueueReading) {
			r.Counted, r.Probed, r.Cycles = false, true, uint64(i)
		}, same("select"), "....XXXXX"},
		{"the sentinel runs", func(i int, r *QueueReading) {
			r.Counted, r.Probed, r.Cycles, r.Probes = false, true, uint64(i), uint64(i)
		}, same("select"), "........"},
		{"behind, but nothing is run", func(i int, r *QueueReading) { r.Queued, r.Executed = 10, 0 },
			func(int) *Running { return &Running{} }, "..............."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := queueSim{q: Queue{Kind: Finalizers}, r: QueueReading{Counted: true}, run: tt.run}
			var got strings.Builder
			for i := range len(tt.want) {
				tt.read(i, &s.r)
				v := s.tick(i)
				got.WriteString(map[QueueState]string{Flowing: ".", Slow: "s", Stalled: "X"}[v.State])
			}
			assert.Equal(t, tt.want, got.String())
			assert.LessOrEqual(t, s.looks, 2+len(tt.want)/2, "looks are spaced")
		})
	}
}

// TestQueueRate: a slow queue says how fast it is, in whole blocks.
func TestQueueRate(t *testing.T) {
	t.Parallel()
	s := queueSim{q: Queue{Kind: Finalizers}, r: QueueReading{Counted: true, Queued: 5000}, run: func(int) *Running { return &Running{} }}
	var v QueueVerdict
	for i := range 30 {
		s.r.Executed = uint64(i / 3 * 101)
		v = s.tick(i)
	}
	assert.Equal(t, Slow, v.State)
	rate, ok := v.PerSecond.Get()
	assert.True(t, ok)
	assert.InDelta(t, 101.0/3, rate, 4)
	behind, ok := v.Behind.Get()
	assert.True(t, ok)
	assert.EqualValues(t, 5000-909, behind)
}

func TestQueueLooksAreRare(t *testing.T) {
	t.Parallel()
	s := queueSim{q: Queue{Kind: Finalizers}, r: QueueReading{Counted: true, Queued: 1}, run: func(int) *Running {
		return &Running{Count: 1, Print: 1, State: "select"}
	}}
	for i := range 3600 {
		s.tick(i)
	}
	assert.Less(t, s.looks, 150, "one in half a minute once it is known")
}

// TestQueueInDump finds what recorded processes were finalizing.
func TestQueueInDump(t *testing.T) {
	t.Parallel()
	for _, v := range releases(t) {
		run := InSnapshot(parseFile(t, "testdata/dumps/"+v+".debug0.pb.gz"), Finalizers)
		assert.Equal(t, 1, run.Count, v)
		assert.Equal(t, "main.finalize", run.Func.Func, v)
		assert.Equal(t, "main.go:48", run.Where.Place(), v)
		assert.EqualValues(t, "chan receive", run.State, v)
		assert.Zero(t, InSnapshot(parseFile(t, "testdata/dumps/"+v+".debug0.pb.gz"), Cleanups).Count)

		text, err := os.ReadFile("testdata/dumps/" + v + ".debug2.txt")
		require.NoError(t, err)
		run = InDump(text, Finalizers)
		if v < "go1.25" {
			assert.Zero(t, run.Count, "%s hides it", v)
			continue
		}
		assert.Equal(t, "main.go:48", run.Where.Place(), v)
		other := InDump([]byte(strings.ReplaceAll(string(text), "main.finalize(", "main.finalize(0xc000123456, ")), Finalizers)
		assert.NotEqual(t, run.Print, other.Print, "%s: the arguments count", v)
		assert.Equal(t, run.Print, InDump(text, Finalizers).Print)
	}
}

// Jobs run in a process of their own, since a finalizer that blocks is for ever.
// Each prints what Queues says at each tick, a second apart.
const jobEnv = "MEMGUARD_LEAK_TEST_JOB"

type resource struct {
	_ *resource // a pointer keeps it out of the tiny allocator's blocks
	n int
}

var never chan int

//go:noinline
func release(n int, f func(*resource)) {
	for i := range n {
		runtime.SetFinalizer(&resource{n: i}, f)
	}
}

var jobs = map[string]func(){
	"finalizer stalls": func() {
		release(300, func(r *resource) { <-never }) // here it blocks
	},
	"cleanup stalls": func() {
		for range 300 {
			r := &resource{}
			runtime.AddCleanup(r, func(int) { <-never }, 1) // here it blocks
		}
	},
	"finalizers sleep": func() { release(1000, func(r *resource) { time.Sleep(30 * time.Millisecond) }) },
	"finalizers wait": func() {
		turns := make(chan int)
		go func() {
			for range time.NewTicker(300 * time.Millisecond).C {
				turns <- 1
			}
		}()
		release(300, func(r *resource) {
			<-turns
			r.n++
		})
	},
	"all is well": func() {
		go func() {
			for range time.NewTicker(20 * time.Millisecond).C {
				release(300, func(r *resource) { r.n++ })
				runtime.GC()
			}
		}()
	},
}

func TestMain(m *testing.M) {
	job, ok := jobs[os.Getenv(jobEnv)]
	if !ok {
		os.Exit(m.Run())
	}
	if os.Getenv(jobEnv+"_VERIFY") != "" {
		job()
		runtime.GC()
		r := recorder{failures: []string{}}
		VerifyNone(&r, Patience(300*time.Millisecond))
		if err := json.NewEncoder(os.Stdout).Encode(r.failures); err != nil {
			panic(err)
		}
		return
	}
	q := NewQueues()
	defer q.Close()
	q.Tick()
	job()
	runtime.GC()
	out := json.NewEncoder(os.Stdout)
	for range 8 {
		time.Sleep(time.Second)
		f, c, err := q.Tick()
		if err != nil {
			panic(err)
		}
		if err := out.Encode([2]QueueVerdict{f, c}); err != nil {
			panic(err)
		}
	}
}

// TestQueues runs each job: what stalls is told at the third tick after, with the
// line; what is slow is not called stalled; what is well is nothing.
func TestQueues(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes eight ticks of a second")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	source, err := os.ReadFile("queue_test.go")
	require.NoError(t, err)
	said := map[string]*[8][2]QueueVerdict{}
	var group sync.WaitGroup
	for job := range jobs { // all at once: they sleep most of the time
		at := new([8][2]QueueVerdict)
		said[job] = at
		group.Go(func() {
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), jobEnv+"="+job)
			out, err := cmd.Output()
			assert.NoError(t, err, job)
			dec := json.NewDecoder(bytes.NewReader(out))
			for i := range at {
				assert.NoError(t, dec.Decode(&at[i]), job)
			}
		})
	}
	group.Wait()
	// states are the answers to all ticks, of finalizers (0) or cleanups (1).
	states := func(job string, queue int) (out []QueueState) {
		for _, v := range said[job] {
			out = append(out, v[queue].State)
		}
		return out
	}
	for queue, job := range []string{"finalizer stalls", "cleanup stalls"} {
		require.Contains(t, states(job, queue)[:3], Stalled, job)
		v := said[job][7][queue]
		assert.Equal(t, Stalled, v.State, job)
		behind, ok := v.Behind.Get()
		assert.True(t, ok, job)
		assert.Positive(t, behind, job)
		line := strings.Split(string(source), "\n")[v.Where.Line-1]
		assert.Contains(t, line, "// here it blocks", job)
		assert.EqualValues(t, "chan receive (nil chan)", v.Doing, job)
		assert.NotContains(t, states(job, 1-queue), Stalled, "%s: the other queue is another", job)
	}
	for _, job := range []string{"finalizers sleep", "finalizers wait"} {
		assert.NotContains(t, states(job, 0), Stalled, job)
		assert.Equal(t, Slow, said[job][7][0].State, "%s: %v", job, said[job][7])
	}
	for queue := range 2 {
		assert.NotContains(t, states("all is well", queue), Stalled)
		assert.NotContains(t, states("all is well", queue), Slow)
	}
}

// TestProcessTick: a tick with nothing wrong allocates nothing.
func TestProcessTick(t *testing.T) {
	q := NewQueues()
	defer q.Close()
	for range 3 {
		q.Tick()
	}
	runtime.GC()
	assert.Zero(t, testing.AllocsPerRun(100, func() { q.Tick() }))
}

// TestLookFails: what goes wrong in a look is an error of the tick, and the next
// is well again.
func TestLookFails(t *testing.T) {
	t.Parallel()
	q := NewQueues()
	defer q.Close()
	q.reader.looking = true
	q.reader.looked <- contained(func() looked { panic("a defect") })
	_, _, err := q.Tick()
	assert.EqualError(t, err, "leak: look: panic: a defect")
	_, _, err = q.Tick()
	assert.NoError(t, err)
	assert.False(t, q.reader.looking)
}

// TestProcessSentinel: there is one, it runs again after each collection, and
// Close ends it.
func TestProcessSentinel(t *testing.T) {
	r := newQueueReader()
	ran := func(more uint64) bool {
		want := r.probe.runs.Load() + more
		for range 200 {
			if runtime.GC(); r.probe.runs.Load() >= want {
				return true
			}
			time.Sleep(time.Millisecond)
		}
		return false
	}
	assert.True(t, ran(5))
	r.probe.closed.Store(true)
	ran(2)
	before := r.probe.runs.Load()
	for range 5 {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	assert.Equal(t, before, r.probe.runs.Load())
}

func BenchmarkTick(b *testing.B) {
	q := NewQueues()
	defer q.Close()
	b.ReportAllocs()
	for b.Loop() {
		q.Tick()
	}
}

// BenchmarkDump reads a dump of as many goroutines as a Sampler does at most, and
// reports how long the world was stopped for it.
func BenchmarkDump(b *testing.B) {
	stop := make(chan struct{})
	for i := range DefaultDumpLimit {
		go zero(i%100, 7, stop)
	}
	defer close(stop)
	time.Sleep(50 * time.Millisecond)
	var s Sampler
	s.stopped()
	for b.Loop() {
		if _, err := TakeDump(DefaultDumpLimit); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(s.stopped().Seconds()*1e3/float64(b.N), "stopped-ms/dump")
}

// zero and one call each other by the bits of n: there are as many stacks.
func zero(n, bits int, stop chan struct{}) {
	if bits == 0 {
		<-stop
		return
	}
	between(n, bits, stop)
}

func one(n, bits int, stop chan struct{}) {
	if bits == 0 {
		<-stop
		return
	}
	between(n, bits, stop)
}

func between(n, bits int, stop chan struct{}) {
	if n&1 == 0 {
		zero(n>>1, bits-1, stop)
	} else {
		one(n>>1, bits-1, stop)
	}
}

// BenchmarkSample samples 100000 goroutines in 100 places: the time for the
// caller, how long the world was stopped by each sample (the upper ends of the
// histogram's buckets), when the next is due, and what the tracker holds.
func BenchmarkSample(b *testing.B) {
	const goroutines = 100_000
	stop := make(chan struct{})
	for i := range goroutines {
		go zero(i%100, 7, stop)
	}
	defer close(stop)
	time.Sleep(100 * time.Millisecond)
	s := Sampler{DumpLimit: -1, ProveEvery: -1}
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	b.ReportAllocs()
	var stopped, took time.Duration
	for b.Loop() {
		cost, err := s.Sample()
		if err != nil {
			b.Fatal(err)
		}
		stopped, took = stopped+cost.Stopped, took+cost.Took
	}
	n := float64(b.N)
	b.ReportMetric(stopped.Seconds()*1e3/n, "stopped-ms/sample")
	b.ReportMetric(took.Seconds()*1e3/n, "ms/sample")
	b.ReportMetric(time.Until(s.Next()).Seconds(), "spacing-s")
	runtime.GC()
	metrics.Read(heap)
	before := heap[0].Value.Uint64()
	clusters := s.Tracker.Len()
	s.Tracker = Tracker{}
	runtime.GC()
	metrics.Read(heap)
	b.ReportMetric(float64(before)-float64(heap[0].Value.Uint64()), "tracker-B")
	b.ReportMetric(float64(clusters), "clusters")
}
