// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// Guarded services that run in a memory cgroup. They are in the map before any
// init function looks there.
var _ = func() bool {
	maps.Copy(jobs, map[string]func() any{
		"guarded":        guarded,
		"guarded-leak":   guardedLeak,
		"guarded-spiral": guardedSpiral,
		"guarded-steady": guardedSteady,
	})
	return true
}()

// raced reports whether the test was built with the race detector.
func raced() bool {
	bi, _ := debug.ReadBuildInfo()
	return slices.ContainsFunc(bi.Settings, func(kv debug.BuildSetting) bool { return kv.Key == "-race" && kv.Value == "true" })
}

// selfLook is what a guarded process says of itself.
type selfLook struct {
	Set     pacer.Setting // as the runtime has them
	Status  bool
	Wanted  pacer.Setting
	Ticks   uint64
	Changes uint64
	Lines   []string // settings planned, applied, undone and clamped
	Raised  []string // findings of warning or above
	Lost    []Blind
}

// guarded does what the lines of its standard input say, and tells of itself
// after each.
func guarded() any {
	var g *Guard
	var state atomic.Uint32
	var mapped []byte
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for in.Scan() {
		var verb string
		var n int
		_, _ = fmt.Sscan(in.Text(), &verb, &n)
		switch verb {
		case "act", "dry":
			g = Start(Config{DryRun: verb == "dry", Breaker: func() pacer.State { return pacer.State(state.Load()) }})
		case "state":
			state.Store(uint32(n))
		case "gc":
			debug.SetGCPercent(n)
		case "mmap": // memory that is not Go's
			var err error
			if mapped, err = syscall.Mmap(-1, 0, n<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE); err != nil {
				return err.Error()
			}
			for i := 0; i < len(mapped); i += 4096 {
				mapped[i] = 1
			}
		case "munmap":
			_ = syscall.Munmap(mapped)
		case "procs":
			runtime.GOMAXPROCS(n)
		case "block-finalizer":
			runtime.SetFinalizer(&struct{ p *int }{}, func(any) { select {} })
			runtime.GC()
		case "close":
			_ = g.Close()
		}
		l := selfLook{Set: pacer.NewApplier().Current()}
		if g != nil {
			st := g.Status()
			l.Wanted, l.Ticks, l.Changes = st.Wanted, st.Ticks, st.Changes
			l.Lines = g.hand.lines(Planned, Applied, Undone, Clamped)
			es, _, _ := g.journal.since(0)
			for _, e := range es {
				if e.Kind == Lost {
					l.Lost = append(l.Lost, e.Blind)
				}
				if e.Kind == Raised && e.Finding.Severity >= Warning {
					l.Raised = append(l.Raised, e.Finding.Summary)
				}
			}
		}
		_ = out.Encode(l)
	}
	return "bye"
}

// caged starts a job in a memory cgroup of its own.
func caged(t *testing.T, limit uint64, job string, env ...string) (*sandbox.Sandbox, *exec.Cmd, *bytes.Buffer) {
	t.Helper()
	box, err := sandbox.New(job, limit)
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, box.Close()) })
	cmd := exec.Command(self(t))
	cmd.Env = append(env, jobEnv+"="+job, "GORACE=atexit_sleep_ms=0")
	stderr := new(bytes.Buffer)
	cmd.Stderr = stderr
	return box, cmd, stderr
}

// puppet is a guarded process and its strings.
type puppet struct {
	t   *testing.T
	box *sandbox.Sandbox
	in  io.Writer
	out *json.Decoder
}

func newPuppet(t *testing.T, limit uint64, env ...string) *puppet {
	box, cmd, stderr := caged(t, limit, "guarded", env...)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, box.Start(cmd))
	t.Cleanup(func() {
		in.Close()
		assert.NoError(t, cmd.Wait(), "%s", stderr)
	})
	return &puppet{t, box, in, json.NewDecoder(out)}
}

func (p *puppet) do(line string) (l selfLook) {
	p.t.Helper()
	_, err := fmt.Fprintln(p.in, line)
	require.NoError(p.t, err)
	require.NoError(p.t, p.out.Decode(&l), line)
	return l
}

// until looks until what it sees is so.
func (p *puppet) until(what string, so func(l selfLook) bool) (l selfLook) {
	p.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for l = p.do("look"); !so(l); l = p.do("look") {
		if time.Now().After(deadline) {
			require.Fail(p.t, what, "%+v", l)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return l
}

// The guard in a real memory cgroup: the memory limit is what the cgroup leaves,
// follows its limit and what is not Go's, and everything is undone on Close.
func TestGuardedInACgroup(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	p := newPuppet(t, 256*mb, "GOGC=77", "GOMEMLIMIT=700MiB")
	user := pacer.Setting{GCPercent: 77, MemoryLimit: 700 * mb}
	require.Equal(t, user, p.do("look").Set)
	p.do("act")
	between := func(l selfLook, low, high int64) bool {
		return l.Set.MemoryLimit >= low*mb && l.Set.MemoryLimit <= high*mb
	}
	l := p.until("a limit below the cgroup's", func(l selfLook) bool { return between(l, 190, 256) })
	first := l.Set.MemoryLimit
	assert.Equal(t, 100, l.Set.GCPercent, "what the table has for a closed breaker")

	for state, percent := range map[int]int{int(pacer.HalfOpen): 50, int(pacer.Open): 200} {
		p.do(fmt.Sprintf("state %d", state))
		p.until("the breaker's GC percent", func(l selfLook) bool { return l.Set.GCPercent == percent })
	}
	require.NoError(t, p.box.SetLimit(400*mb))
	p.until("it follows a resize upwards", func(l selfLook) bool { return between(l, 310, 400) })
	p.do("mmap 120")
	p.until("it follows what is not Go's", func(l selfLook) bool { return between(l, 190, 290) })
	p.do("munmap")
	p.until("and back", func(l selfLook) bool { return between(l, 310, 400) })
	require.NoError(t, p.box.SetLimit(256*mb))
	l = p.until("it follows a resize downwards", func(l selfLook) bool { return between(l, 190, 256) })
	assert.InDelta(t, first, l.Set.MemoryLimit, 56*mb)
	require.NoError(t, p.box.SetLimit(4096*mb))
	p.until("never above the user's", func(l selfLook) bool { return l.Set.MemoryLimit == user.MemoryLimit })
	assert.LessOrEqual(t, l.Changes, uint64(30), "%q", l.Lines)

	// What disturbs other guards: it ticks on.
	p.do("block-finalizer")
	for procs := range 5 {
		ticks := p.do(fmt.Sprintf("procs %d", 1+procs)).Ticks
		p.until("it ticks", func(l selfLook) bool { return l.Ticks > ticks+3 })
	}

	l = p.do("close")
	assert.Equal(t, user, l.Set)
	assert.Empty(t, l.Lost)
	assert.Contains(t, l.Lines[len(l.Lines)-1], "the guard ends")
	kills, err := p.box.Kills()
	require.NoError(t, err)
	assert.Zero(t, kills)
}

// A dry run in a real cgroup plans the same, and changes nothing. And what somebody
// else sets while a guard acts is what is left behind.
func TestGuardedDryRunInACgroup(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	p := newPuppet(t, 256*mb, "GOGC=77")
	user := pacer.Setting{GCPercent: 77, MemoryLimit: pacer.NoLimit}
	p.do("dry")
	p.do("state 2")
	l := p.until("it plans", func(l selfLook) bool { return l.Wanted.MemoryLimit < 256*mb && l.Wanted.GCPercent == 200 })
	assert.Equal(t, user, l.Set)
	require.NoError(t, p.box.SetLimit(128*mb))
	l = p.until("it follows", func(l selfLook) bool { return l.Wanted.MemoryLimit < 128*mb })
	assert.Equal(t, user, l.Set)
	for _, line := range l.Lines {
		assert.True(t, strings.HasPrefix(line, "planned ") || strings.HasPrefix(line, "clamped "), line)
	}
	assert.Equal(t, user, p.do("close").Set)

	p.do("act")
	p.until("it acts", func(l selfLook) bool { return l.Set.MemoryLimit < 128*mb && l.Set.GCPercent == 200 })
	p.do("gc 64") // the breaker's table goes first, but this is the baseline now
	// Not 200 again: that was there before the service set 64, and who puts it back means what was there then.
	p.until("it acts again", func(l selfLook) bool { return l.Set.GCPercent == 199 })
	l = p.do("close")
	assert.Equal(t, pacer.Setting{GCPercent: 64, MemoryLimit: pacer.NoLimit}, l.Set)
}

// A guarded service whose GOGC is off is no finding, not at its first look either: the
// guard's memory limit is what makes that safe.
func TestGuardedWithTheCollectorOff(t *testing.T) {
	t.Parallel()
	p := newPuppet(t, 256<<20, "GOGC=off")
	p.do("act")
	l := p.until("it acts", func(l selfLook) bool { return l.Ticks > 3 && l.Set.MemoryLimit < 256<<20 })
	assert.Empty(t, l.Raised)
	l = p.do("close")
	assert.Empty(t, l.Raised)
	assert.Equal(t, pacer.Setting{GCPercent: -1, MemoryLimit: pacer.NoLimit}, l.Set)
}

// guardedLeak leaks 50 MiB a second until the kernel ends it.
func guardedLeak() any {
	g := Start(Config{Evidence: &evidence.Store{Dir: os.Getenv(jobEnv + "_DIR")}})
	defer g.Close()
	var kept [][]byte
	for range 10_000 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
		time.Sleep(60 * time.Millisecond) // to the limit in a quarter of a minute, for a machine may be busy
	}
	return len(kept)
}

// What an OOM-killed process leaves: findings and actions in its black box,
// profiles, and a successor that says why.
func TestGuardedIsKilledAndTells(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	box, cmd, stderr := caged(t, 256<<20, "guarded-leak", jobEnv+"_DIR="+dir)
	require.NoError(t, box.Start(cmd))
	var ended *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &ended, "%s", stderr)
	require.Equal(t, syscall.SIGKILL, ended.Sys().(syscall.WaitStatus).Signal(), "%s", stderr)

	boxes, err := evidence.Boxes(dir)
	require.NoError(t, err)
	require.Len(t, boxes, 1)
	r, err := evidence.ReadBox(boxes[0])
	require.NoError(t, err)
	assert.Equal(t, evidence.Died, r.State)
	assert.LessOrEqual(t, r.Torn, 1)
	assert.EqualValues(t, BoxLayout, r.Layout)
	var last Moment
	moments, seen := 0, map[string]bool{}
	for _, rec := range r.Records {
		d, err := DecodeRecord(rec.Time, rec.Kind, rec.Payload)
		require.NoError(t, err)
		if d.Moment != nil {
			last = *d.Moment
			moments++
			continue
		}
		seen[string(d.Event.Kind)+" "+string(d.Event.Finding.ID)+string(d.Event.Action.Name)] = true
	}
	held, _ := last.Undroppable.Get()
	assert.Greater(t, held, uint64(230<<20), "it looked to the end")
	assert.Greater(t, moments, 20)
	for _, want := range []string{"raised oom-forecast", "applied memory-limit", "planned capture"} {
		assert.True(t, seen[want], "%s in %v", want, slices.Sorted(maps.Keys(seen)))
	}
	heaps, err := filepath.Glob(filepath.Join(dir, "*heap.pb.gz"))
	require.NoError(t, err)
	assert.GreaterOrEqual(t, len(heaps), 2)
	assert.Len(t, evidence.Pairs(heaps), 1)
	reports, err := filepath.Glob(filepath.Join(dir, "*report.txt"))
	require.NoError(t, err)
	require.NotEmpty(t, reports)
	var text []byte
	for _, path := range reports {
		one, err := os.ReadFile(path)
		require.NoError(t, err)
		text = append(text, one...)
	}
	assert.Regexp(t, `COLLECTIONS\n +cycle (?s:.*)\n +\d+  20\S+Z +\S+s( +\d+\.\d){3} +\d+%\n`, string(text), "a row in which nothing is unknown")

	next := Start(Config{DryRun: true, Evidence: &evidence.Store{Dir: dir}})
	defer next.Close()
	es := next.Events(t.Context(), 0)
	require.Equal(t, Died, es[0].Kind, "%+v", es[0])
	assert.Contains(t, es[0].Why, fmt.Sprintf("The predecessor, pid %d, died after ", cmd.Process.Pid))
	assert.Contains(t, es[0].Why, "of its limit of 256 MiB: the kernel has probably killed it for lack of memory; what stood then: oom-forecast: ")
	told, err := Predecessors(dir)
	require.NoError(t, err)
	assert.Empty(t, told, "told once; and the box of a process that runs is not a predecessor's")
}

// guardedSpiral comes to hold 180 MiB of small objects in a cgroup of 256, and then
// allocates as fast as it can.
func guardedSpiral() any {
	g := Start(Config{OnSpiral: pacer.Exit, Evidence: &evidence.Store{Dir: os.Getenv(jobEnv + "_DIR")}})
	defer g.Close()
	var list *[16]*byte
	for range 180 {
		for range 1 << 20 / 128 {
			next := new([16]*byte)
			next[0] = (*byte)(unsafe.Pointer(list))
			list = next
		}
		time.Sleep(10 * time.Millisecond)
	}
	begin := time.Now()
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			var sink [64][]byte
			for n := 0; time.Since(begin) < 40*time.Second; n++ {
				sink[n%len(sink)] = make([]byte, 512)
			}
		})
	}
	all.Wait()
	runtime.KeepAlive(list)
	return g.Status().Decision
}

// A process whose collector helps no longer ends itself, with evidence, where
// that is configured.
func TestGuardedExitsInASpiral(t *testing.T) {
	t.Parallel()
	if raced() {
		t.Skip("not with -race: its shadow memory is several times the heap, and fills the cgroup")
	}
	dir := t.TempDir()
	box, cmd, stderr := caged(t, 256<<20, "guarded-spiral", jobEnv+"_DIR="+dir)
	var out bytes.Buffer
	cmd.Stdout = &out
	require.NoError(t, box.Start(cmd))
	err := cmd.Wait()
	require.Equal(t, ExitStatus, cmd.ProcessState.ExitCode(), "%v %s %s", err, &out, stderr)
	assert.Regexp(t, `^memguard: exit status 75: gc-death-spiral: .*\n$`, stderr.String())
	heaps, err := filepath.Glob(filepath.Join(dir, "*heap.pb.gz"))
	require.NoError(t, err)
	assert.NotEmpty(t, heaps)
	boxes, err := evidence.Boxes(dir)
	require.NoError(t, err)
	require.Len(t, boxes, 1)
	r, err := evidence.ReadBox(boxes[0])
	require.NoError(t, err)
	assert.Equal(t, evidence.Closed, r.State)

	told, err := Predecessors(dir)
	require.NoError(t, err)
	require.Len(t, told, 1)
	assert.Contains(t, told[0].Why, "with exit status 75: gc-death-spiral")
}

// steady is what a healthy guarded service saw.
type steady struct {
	Seconds  float64
	Requests int64
	Changes  uint64
	Kinds    map[EventKind]uint64
	Raised   []Finding
	Settings []string
}

// guardedSteady serves requests over a live heap of 60 MiB, for some seconds after
// it has come to rest.
func guardedSteady() any {
	var mu sync.Mutex
	var out steady
	g := Start(Config{Event: func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == Raised && e.Finding.Severity >= Warning {
			out.Raised = append(out.Raised, e.Finding)
		}
	}})
	defer g.Close()
	cache := make([][]byte, 60<<10)
	for i := range cache {
		cache[i] = make([]byte, 1<<10)
	}
	var served atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := served.Add(1)
		b := make([]byte, 64<<10) // garbage
		cache[n%int64(len(cache))] = make([]byte, 1<<10)
		_, _ = w.Write(b[:4<<10])
	}))
	defer srv.Close()
	var all sync.WaitGroup
	end := make(chan struct{})
	for range 4 {
		all.Go(func() {
			for tick := time.NewTicker(4 * time.Millisecond); ; {
				select {
				case <-end:
					return
				case <-tick.C:
				}
				if resp, err := srv.Client().Get(srv.URL); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
		})
	}
	time.Sleep(3 * time.Second)
	before, begin := g.Status().Changes, time.Now()
	time.Sleep(17 * time.Second)
	out.Seconds, out.Changes = time.Since(begin).Seconds(), g.Status().Changes-before
	close(end)
	all.Wait()
	_, out.Kinds = g.journal.count()
	out.Requests = served.Load()
	out.Settings = g.hand.lines(Applied)
	mu.Lock()
	defer mu.Unlock()
	runtime.KeepAlive(cache)
	return &out
}

// Settings do not flap in a healthy service.
func TestGuardedSteadily(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("not with -short: takes 20 s")
	}
	limit := uint64(256 << 20)
	if raced() {
		limit *= 4 // its shadow memory is several times the heap
	}
	box, cmd, stderr := caged(t, limit, "guarded-steady")
	var out bytes.Buffer
	cmd.Stdout = &out
	require.NoError(t, box.Start(cmd))
	require.NoError(t, cmd.Wait(), "%s", stderr)
	var s steady
	require.NoError(t, json.Unmarshal(out.Bytes(), &s))
	perMinute := float64(s.Changes) / s.Seconds * 60
	t.Logf("%d requests in %.0f s: %.1f changes of settings a minute; events %v; %q", s.Requests, s.Seconds, perMinute, s.Kinds, s.Settings)
	assert.Greater(t, s.Requests, int64(1000))
	assert.LessOrEqual(t, perMinute, 20.0)
	assert.Empty(t, s.Raised)
}

// acts makes the stage's source that of this process: the runtime's own figures,
// and the cgroup that the test writes.
func (s *stage) acts() *Source {
	src := s.source()
	src.runtime, src.environ = newRuntimeReader(), Runtime{}
	return src
}

// A cgroup that cannot be read for a while: the guard ticks on, says what it lost,
// leaves the settings, and follows again when it can.
func TestProcessGuardOutlivesItsCgroup(t *testing.T) {
	user := pacer.NewApplier().Current()
	synctest.Test(t, func(t *testing.T) {
		stage := newStage(t)
		g := Start(Config{Source: stage.acts()})
		after := func(seconds int) pacer.Setting {
			time.Sleep(time.Duration(seconds)*time.Second + time.Millisecond)
			synctest.Wait()
			return pacer.NewApplier().Current()
		}
		first := after(5)
		require.Less(t, first.MemoryLimit, int64(1<<30))
		for name, text := range map[string]string{"memory.current": "what\n", "memory.max": "what\n", "memory.stat": "what\n", "statm": "what\n"} {
			was, err := os.ReadFile(filepath.Join(stage.dir, name))
			require.NoError(t, err)
			ticks, lost := g.Status().Ticks, g.Status().Kinds[Lost]
			stage.write(name, text)
			assert.InDelta(t, first.MemoryLimit, after(5).MemoryLimit, 100<<20, name)
			st := g.Status()
			assert.Greater(t, st.Ticks, ticks+4, name)
			assert.Greater(t, st.Kinds[Lost], lost, name)
			assert.Less(t, st.Kinds[Lost], lost+5, "%s: told once", name)
			stage.write(name, string(was))
		}
		stage.write("memory.max", "2147483648\n")
		assert.Greater(t, after(10).MemoryLimit, first.MemoryLimit+(700<<20), "it follows again")
		stage.write("memory.max", "max\n")
		assert.Equal(t, user.MemoryLimit, after(10).MemoryLimit, "no limit, no memory limit of ours")
		require.NoError(t, g.Close())
	})
	assert.Equal(t, user, pacer.NewApplier().Current())
}

// A defect of a detector does not keep the guard from acting, and is told once a
// minute.
func TestProcessGuardActsBesideADefect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := newStage(t)
		g, c := counted(Config{Source: stage.acts()})
		defer g.Close()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		first := pacer.NewApplier().Current().MemoryLimit
		c.panic.Store(1)
		stage.write("memory.max", "2147483648\n")
		time.Sleep(119 * time.Second)
		synctest.Wait()
		assert.Greater(t, pacer.NewApplier().Current().MemoryLimit, first+(700<<20))
		lost := 0
		es, _, _ := g.journal.since(0)
		for _, e := range es {
			if e.Blind.What == "tick" {
				lost++
			}
		}
		assert.Equal(t, 2, lost)
	})
}

// smallDisk mounts one of that size.
func smallDisk(t *testing.T, size string) string {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("no file system may be mounted here: ", err)
	}
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// No room for evidence: that is said, and all else goes on. Removed evidence, too.
func TestProcessGuardOnAFullDisk(t *testing.T) {
	for size, lost := range map[string]string{"256k": "black box", "1200k": "profiles"} {
		dir := smallDisk(t, size)
		g := Start(Config{Evidence: &evidence.Store{Dir: dir}})
		ticked(t, g)
		if lost == "profiles" { // the box has its space; now fill the rest
			f, err := os.Create(filepath.Join(dir, "fill"))
			require.NoError(t, err)
			for err == nil {
				_, err = f.Write(make([]byte, 4096))
			}
			require.ErrorIs(t, err, syscall.ENOSPC)
			f.Close()
		}
		_, err := g.Do(Order{Action: Capture, Reason: "a test"})
		require.NoError(t, err)
		found := ""
		for after := uint64(0); found == ""; {
			es := g.Events(t.Context(), after)
			require.NotEmpty(t, es)
			for _, e := range es {
				if e.Kind == Lost && e.Blind.What == lost {
					found = e.Blind.Why
				}
				after = e.Seq
			}
		}
		assert.Regexp(t, "no space left|nearly full", found, size)
		ticks := g.Status().Ticks
		require.Eventually(t, func() bool { return g.Status().Ticks > ticks }, time.Minute, time.Millisecond, "it goes on")
		require.NoError(t, g.Close())
	}

	dir := t.TempDir()
	g := Start(Config{Evidence: &evidence.Store{Dir: dir}})
	ticked(t, g)
	boxes, err := evidence.Boxes(dir)
	require.NoError(t, err)
	require.Len(t, boxes, 1)
	require.NoError(t, os.Truncate(boxes[0], 4096)) // the kernel would send SIGBUS
	for after := uint64(0); ; {
		es := g.Events(t.Context(), after)
		require.NotEmpty(t, es)
		after = es[len(es)-1].Seq
		if slices.ContainsFunc(es, func(e Event) bool { return e.Blind.What == "black box" }) {
			break
		}
	}
	ticks := g.Status().Ticks
	require.Eventually(t, func() bool { return g.Status().Ticks > ticks }, time.Minute, time.Millisecond)
	require.NoError(t, g.Close())
}

// actingStill is a guard that does not run by itself and acts on this process under a
// limit.
func actingStill(tb testing.TB, stage *stage) *Guard {
	src := stage.acts()
	tb.Cleanup(func() { src.Close() })
	g := still(src)
	g.hand.breaker, g.hand.governor.Table = func() pacer.State { return pacer.Closed }, pacer.DefaultTable()
	g.hand.memory = shed.NewBreaker(shed.BreakerConfig{})
	g.hand.compact = func() {}
	tb.Cleanup(g.hand.undo)
	return g
}

// The tick of a guard that acts allocates nothing while nothing changes.
func TestProcessActingTickAllocatesNothing(t *testing.T) {
	g := actingStill(t, newStage(t))
	tick := func() {
		g.source.readAt, g.source.runtime.classesAt = time.Now(), time.Now() // between the seconds
		_, _ = g.tick()
	}
	for range 20 {
		g.source.readAt = time.Time{}
		_, err := g.tick()
		require.NoError(t, err)
		time.Sleep(time.Millisecond)
	}
	require.True(t, g.hand.known)
	require.Less(t, pacer.NewApplier().Current().MemoryLimit, int64(1<<30), "it acts")
	assert.Zero(t, testing.AllocsPerRun(1000, tick))
	assert.Less(t, g.hand.changes, uint64(5))
}

// BenchmarkGuardTickActing is a tick of a guard that acts: all of BenchmarkGuardTick,
// the governor, the releaser, the breaker and the settings. Its cgroup's files are
// on a disk, which is a little quicker than the kernel's own.
func BenchmarkGuardTickActing(b *testing.B) {
	for _, name := range []string{"acting", "watching"} {
		b.Run(name, func(b *testing.B) {
			g := actingStill(b, newStage(b))
			if name == "watching" {
				g.hand.undo()
				g.hand = nil
			}
			_, _ = g.tick()
			took := newMedian()
			b.ReportAllocs()
			for b.Loop() {
				took.time(func() { _, _ = g.tick() })
			}
			b.ReportMetric(took.ns(), "median-ns")
		})
	}
}
