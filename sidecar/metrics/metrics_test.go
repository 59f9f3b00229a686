// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/memguard/memguard-go/sidecar/watch"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const mebi = 1 << 20

func mib(n uint64) memguard.Bytes { return memguard.Known(n * mebi) }

// service is one that imports the guard, leaks, and sheds load.
func service() watch.Status {
	s := memguard.Sample{Time: time.Unix(1800000000, 5e8), PID: 7}
	s.Runtime = memguard.Runtime{
		Origin: memguard.FromRuntime, Total: mib(240), Released: mib(20), Objects: mib(180), Unused: mib(10), Free: mib(16),
		Stacks: mib(4), OSStacks: mib(0), Metadata: mib(10), Live: mib(150),
	}
	s.Process = memguard.Process{Go: true, RSS: mib(226), Shared: mib(8)}
	s.Cgroup = memguard.Cgroup{
		Path: "/orders", Version: 2, Usage: mib(240), Limit: mib(256), High: memguard.Known[uint64](memguard.Unlimited),
		Anon: mib(218), File: mib(20), Shmem: mib(0), ActiveFile: mib(12), InactiveFile: mib(8), Unevictable: mib(0), Kernel: mib(2),
	}
	return watch.Status{
		Name: "orders", Rule: "orders", State: "running", Restarts: 3, Eye: "agent",
		Process: &target.Process{
			Identity: target.Identity{PID: 7, Start: 4711, Build: "b"}, Started: time.Unix(1790000000, 0),
			Exe: "/orders", Command: "orders", Go: "go1.26.0",
		},
		Sources: []watch.Source{{Name: "kernel", State: "ok"}, {Name: "agent", State: "ok"}, {Name: "attach", State: "failed", Why: "refused"}, {Name: "pprof", State: "off"}},
		Guard: &agent.Status{
			Time: s.Time, PID: 7, Ticks: 1234, Events: 12, Left: memguard.Known(42.5), Undroppable: mib(220),
			Findings: []memguard.Finding{{ID: "oom-forecast", Severity: memguard.Critical}, {ID: "gc-storm", Severity: memguard.Info}},
			Ledger:   memguard.NewLedger(&s), Blind: []memguard.Blind{{What: "PSI", Why: "not there"}},
			Hand: &agent.Hand{
				Breaker: "half-open", MemoryBreaker: "open", Orders: []agent.Standing{{Seq: 9}, {Seq: 11}}, Spiral: true, Must: mib(174), Changes: 17, Clamps: 4,
				Baseline: agent.Setting{GCPercent: -1, MemoryLimit: math.MaxInt64},
				Wanted:   agent.Setting{GCPercent: 50, MemoryLimit: 200 * mebi},
				Releases: agent.Releases{Ended: 2, Paid: 1},
				Shed: &agent.Shed{Limited: true, Braking: true, Refusing: 30, Held: 30 * mebi, Routes: []agent.Route{
					{Route: "POST /orders", Admitted: 1000, Refused: 100}, {Route: "other", Admitted: 2},
				}},
			},
		},
	}
}

// batch is a program that is not Go's, of which the kernel tells the size alone.
func batch() watch.Status {
	var s memguard.Sample
	s.Time, s.PID = time.Unix(1800000001, 0), 8
	s.Process.RSS, s.Process.Shared = mib(5), mib(1)
	s.Cgroup = memguard.Cgroup{Path: "/", Version: 2, Usage: mib(9), Limit: memguard.Known[uint64](memguard.Unlimited)}
	return watch.Status{
		Name: "batch", Rule: "batch", State: "running", Eye: "kernel", Process: &target.Process{},
		Guard: &agent.Status{Time: s.Time, Ticks: 1, Ledger: memguard.NewLedger(&s), Undroppable: mib(9)},
	}
}

func of(statuses ...watch.Status) *Collector {
	return NewCollector(Config{
		Targets: func() []watch.Status { return statuses },
		Reload:  func() (bool, time.Time) { return false, time.Unix(1700000000, 0) },
		Posts: func() []incident.PostStats {
			return []incident.PostStats{{Host: "hooks.example.com", Posted: 4, Failed: 2, Pending: 1}, {Host: "hooks.example.com", Posted: 1, Dropped: 3}}
		},
	})
}

// exposed is what Prometheus gets.
func exposed(t testing.TB, c prometheus.Collector) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(c))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(t, 200, w.Code, w.Body.String())
	return w.Body.String()
}

// series are the names and labels in an exposition.
func series(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if i := strings.LastIndex(line, " "); i >= 0 && !strings.HasPrefix(line, "#") {
			all[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return all
}

func action(seq uint64, name memguard.ActionName) watch.Event {
	return watch.Event{Seq: seq, Target: "orders", Kind: "guard", Guard: &memguard.Event{Kind: memguard.Applied, Action: memguard.Action{Name: name}}}
}

// replay is a watcher's Events that has these and no more.
func replay(es ...watch.Event) func(context.Context, uint64) []watch.Event {
	return func(_ context.Context, after uint64) []watch.Event {
		for i, e := range es {
			if e.Seq > after {
				return es[i:min(i+2, len(es))]
			}
		}
		return nil
	}
}

func full(t testing.TB) *Collector {
	c := of(service(), batch(), watch.Status{Name: "nightly", Rule: "nightly", State: "waiting"})
	c.Incident("orders", incident.OOMKill)
	c.Incident("orders", incident.OOMKill)
	c.Incident("orders", incident.GoPanic)
	c.Follow(t.Context(), replay(
		action(1, memguard.SetGCPercent), action(2, memguard.SetGCPercent), action(3, memguard.Capture),
		watch.Event{Seq: 4, Target: "orders", Kind: "appeared"},
		watch.Event{Seq: 7, Target: "orders", Kind: "guard", Guard: &memguard.Event{Kind: memguard.Planned, Action: memguard.Action{Name: memguard.Exit}}},
	))
	return c
}

func TestExposition(t *testing.T) {
	t.Parallel()
	const path = "testdata/metrics.txt"
	got := exposed(t, full(t))
	// What this test's binary was built from is not the subject.
	for line := range strings.Lines(got) {
		if strings.HasPrefix(line, "memguard_build_info{") {
			assert.Regexp(t, `^memguard_build_info\{goversion="go1\.[^"]+",revision="[^"]+",version="[^"]+"\} 1\n$`, line)
			got = strings.Replace(got, line, "memguard_build_info{goversion=\"go1.26.0\",revision=\"0123456789abcdef\",version=\"v0.1.0\"} 1\n", 1)
		}
	}
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	if !assert.Equal(t, string(want), got, "UPDATE=1 rewrites it: the names are API") {
		require.NoError(t, os.WriteFile(path+".got", []byte(got), 0o644))
	}
	for _, d := range descs { // the golden has all that there can be
		name, _, _ := strings.Cut(strings.TrimPrefix(d.String(), `Desc{fqName: "`), `"`)
		assert.Contains(t, got, "\n# TYPE "+name+" ")
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(full(t)))
	families, err := reg.Gather()
	require.NoError(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)
	for _, f := range families {
		assert.Regexp(t, `^[A-Z1].*[.0e]$`, f.GetHelp(), "%s", f.GetName())
		assert.NotRegexp(t, "^(go_|process_)", f.GetName())
	}
}

// What is unknown has no series, and is not zero.
func TestUnknownIsAbsent(t *testing.T) {
	t.Parallel()
	// No process: that much is known of it, and how often it has ended.
	got := series(exposed(t, of(watch.Status{Name: "nightly", State: "waiting"})))
	for name := range got {
		if strings.Contains(name, "nightly") {
			assert.Regexp(t, `^memguard_target_(up|restarts_total|incidents_total)\{`, name)
		}
	}
	assert.Equal(t, "0", got[`memguard_target_up{target="nightly"}`])
	assert.Equal(t, "0", got[`memguard_target_incidents_total{cause="oom-kill",target="nightly"}`], "there before the first")

	// A process that was not looked at yet.
	s := service()
	s.Guard = &agent.Status{Left: memguard.Known(0.0)}
	got = series(exposed(t, of(s)))
	assert.Equal(t, "1", got[`memguard_target_up{target="orders"}`])
	assert.NotContains(t, got, `memguard_target_time_to_limit_seconds{target="orders"}`)
	assert.NotContains(t, got, `memguard_target_findings{id="oom-kill",severity="critical",target="orders"}`)

	// One of which the kernel tells little.
	got = series(exposed(t, of(batch())))
	assert.Equal(t, "5.24288e+06", got[`memguard_target_resident_memory_bytes{target="batch"}`])
	assert.Equal(t, "+Inf", got[`memguard_target_cgroup_limit_bytes{target="batch"}`], "known not to be there")
	assert.Equal(t, "0", got[`memguard_target_findings{id="oom-kill",severity="critical",target="batch"}`], "looked, and it does not stand")
	for name := range got {
		assert.NotRegexp(t, "time_to_limit|headroom|breaker|shed|actions|gc_|memory_limit|libc|start_time", name)
	}
	s = batch()
	s.Guard.Ledger.Cgroup.Unlimited = false
	got = series(exposed(t, of(s)))
	assert.NotContains(t, got, `memguard_target_cgroup_limit_bytes{target="batch"}`)
	s.Guard.Ledger.RSS = memguard.Bytes{}
	got = series(exposed(t, of(s)))
	assert.NotContains(t, got, `memguard_target_resident_memory_bytes{target="batch"}`)

	// A guard without a breaker and a limiter.
	s = service()
	s.Guard.Hand.Breaker, s.Guard.Hand.MemoryBreaker, s.Guard.Hand.Shed = "", "", nil
	for name := range series(exposed(t, of(s))) {
		assert.NotRegexp(t, "^memguard_target_(breaker|memory_breaker|shed)_", name)
	}
	c := NewCollector(Config{Targets: func() []watch.Status { return nil }})
	assert.NotRegexp(t, "memguard_(config|webhook)_", exposed(t, c))
}

// A target says what it likes: the scrape works, no text of its own is in it, and
// what adds up still does.
func TestHostile(t *testing.T) {
	t.Parallel()
	const evil = "evil\xff\"}\n# TYPE"
	s := service()
	s.Eye = evil
	s.Sources = []watch.Source{{Name: evil, State: "ok"}, {Name: "kernel", State: evil}, {Name: "agent", State: "ok"}, {Name: "agent", State: "failed"}}
	s.Process.Command, s.Process.Exe, s.Process.Go, s.Process.Build = evil, evil, evil, evil
	h := s.Guard.Hand
	h.Breaker, h.MemoryBreaker, h.Grade, h.Why = evil, evil, evil, evil
	h.Shed.Routes = append(h.Shed.Routes, agent.Route{Route: evil, Admitted: math.MaxUint64}, agent.Route{Route: evil})
	s.Guard.Findings = []memguard.Finding{
		{ID: evil, Severity: memguard.Critical}, {ID: "oom-kill", Severity: memguard.Info}, {ID: "oom-kill", Severity: memguard.Critical},
		{ID: "oom-forecast", Severity: 99}, {ID: "gc-storm", Severity: -1},
	}
	row := func(name string, n int64) memguard.Row { return memguard.Row{Name: name, Bytes: memguard.Known(n)} }
	s.Guard.Ledger.Rows = []memguard.Row{row("file", 1), row("file", 2), row(evil, 4), row("residual", 8), {Name: "libc"}}
	s.Guard.Ledger.Residual = memguard.Known(int64(16))
	l := s.Guard.Ledger.Cgroup
	l.Rows, l.Residual = nil, memguard.Value[int64]{}
	for pid := range 100_000 {
		l.Rows = append(l.Rows, row("process/"+strconv.Itoa(pid), 1), row(evil+strconv.Itoa(pid), 1))
	}
	c := of(s)
	c.Follow(t.Context(), replay(action(1, evil), action(2, evil+"2")))
	c.Incident("orders", evil)
	text := exposed(t, c)
	assert.NotContains(t, text, "evil")
	got := series(text)
	assert.Less(t, len(got), 200)
	for name, want := range map[string]string{
		`ledger_bytes{row="file",target="orders"}`:                        "3",
		`ledger_bytes{row="other",target="orders"}`:                       "4",
		`ledger_bytes{row="residual",target="orders"}`:                    "24",
		`cgroup_ledger_bytes{row="processes",target="orders"}`:            "100000",
		`cgroup_ledger_bytes{row="other",target="orders"}`:                "100000",
		`actions_total{action="other",target="orders"}`:                   "2",
		`incidents_total{cause="other",target="orders"}`:                  "1",
		`source_state{source="agent",state="ok",target="orders"}`:         "1",
		`findings{id="oom-kill",severity="critical",target="orders"}`:     "1",
		`findings{id="oom-kill",severity="info",target="orders"}`:         "0",
		`findings{id="oom-forecast",severity="critical",target="orders"}`: "0",
		`shed_refused_total{target="orders"}`:                             "100",
		`gc_target_percent{setting="wanted",target="orders"}`:             "50",
	} {
		assert.Equal(t, want, got["memguard_target_"+name], name)
	}
	assert.NotContains(t, got, `memguard_target_source_state{source="kernel",state="ok",target="orders"}`)
	assert.NotContains(t, got, `memguard_target_eye{eye="kernel",target="orders"}`)
	assert.NotContains(t, got, `memguard_target_ledger_bytes{row="libc",target="orders"}`)
}

// Whatever an agent answers, the scrape is whole, bounded, and has no text of it.
func FuzzAgent(f *testing.F) {
	for _, s := range []watch.Status{service(), batch()} {
		b, err := json.Marshal(s.Guard)
		require.NoError(f, err)
		f.Add(b, "agent")
	}
	f.Add([]byte(`{"ticks":1,"ledger":{"rows":[{"name":"file","bytes":1},{"name":"file","bytes":-9223372036854775808}],"cgroup":{}},"hand":{"shed":{}}}`), "\xff")
	values := map[string]bool{"": true}
	for _, d := range memguard.Docs() {
		values[string(d.ID)] = true
	}
	for _, list := range [][]string{eyes, sources, sourceStates, breakerStates, rows, cgroupRows, {"info", "warning", "critical", "baseline", "wanted", other}} {
		for _, v := range list {
			values[v] = true
		}
	}
	for _, c := range causes {
		values[string(c)] = true
	}
	for _, a := range actionNames {
		values[string(a)] = true
	}
	pair := regexp.MustCompile(`[{,](?:id|severity|row|state|source|eye|cause|action|setting)="([^"]*)"`)
	f.Fuzz(func(t *testing.T, answer []byte, eye string) {
		g := new(agent.Status)
		if json.Unmarshal(answer, g) != nil {
			return
		}
		got := series(exposed(t, NewCollector(Config{Targets: func() []watch.Status {
			return []watch.Status{{Name: "orders", State: "running", Eye: eye, Guard: g}}
		}})))
		assert.Less(t, len(got), 250)
		for name := range got {
			for _, m := range pair.FindAllStringSubmatch(name, -1) {
				assert.True(t, values[m[1]], name)
			}
		}
	})
}

// So many targets and no more; a name that cannot be a label, or comes twice, does
// not fail the rest.
func TestTargetsAreBounded(t *testing.T) {
	t.Parallel()
	var all []watch.Status
	for i := range 250 {
		all = append(all, watch.Status{Name: fmt.Sprintf("orders-%03d", i), State: "running"})
	}
	slices.Reverse(all)
	bad := []watch.Status{{Name: ""}, {Name: "\xff"}, {Name: strings.Repeat("x", 301)}, {Name: "orders-000"}}
	c := of(append(bad, all...)...)
	for i := range 1000 { // more than there is room for
		c.Incident(fmt.Sprint("gone-", i), incident.OOMKill)
	}
	c.Incident("\xff", incident.OOMKill)
	got := series(exposed(t, c))
	assert.Equal(t, "154", got["memguard_targets_dropped"])
	names := map[string]bool{}
	for name := range got {
		if _, rest, ok := strings.Cut(name, `target="`); ok {
			names[rest] = true
		}
	}
	assert.Len(t, names, 100)
	assert.Contains(t, got, `memguard_target_up{target="orders-000"}`)
	assert.Contains(t, got, `memguard_target_up{target="orders-099"}`)
	assert.NotContains(t, got, `memguard_target_up{target="orders-100"}`)

	// While there is room, what ended a target that is gone is still told.
	c = NewCollector(Config{Targets: func() []watch.Status { return all[249:] }, MaxTargets: 2})
	c.Incident("orders-007", incident.OOMKill)
	got = series(exposed(t, c))
	assert.Equal(t, "1", got[`memguard_target_incidents_total{cause="oom-kill",target="orders-007"}`])
	assert.NotContains(t, got, `memguard_target_up{target="orders-007"}`)
	c.Incident("orders-008", incident.OOMKill)
	got = series(exposed(t, c))
	assert.NotContains(t, got, `memguard_target_incidents_total{cause="oom-kill",target="orders-007"}`, "the longest not used makes room")
	assert.Contains(t, got, `memguard_target_incidents_total{cause="oom-kill",target="orders-008"}`)
}

func TestFollow(t *testing.T) {
	defer leak.VerifyNone(t) // alone
	c := of(service())
	c.Follow(t.Context(), replay(action(3, memguard.Exit), action(4, memguard.Exit), action(10, memguard.Exit)))
	got := series(exposed(t, c))
	assert.Equal(t, "3", got[`memguard_target_actions_total{action="exit",target="orders"}`])
	assert.Equal(t, "7", got["memguard_events_missed_total"], "1, 2 and 5 to 9")

	// It ends with its context.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Follow(ctx, func(ctx context.Context, _ uint64) []watch.Event { <-ctx.Done(); return nil })
	}()
	cancel()
	<-done
}

// Targets come and go, incidents are written and events happen while several
// scrape.
func TestScrapeWhileTargetsVanish(t *testing.T) {
	t.Parallel()
	var (
		mu   sync.Mutex
		live []watch.Status
		wg   sync.WaitGroup
	)
	c := NewCollector(Config{MaxTargets: 5, Targets: func() []watch.Status {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(live)
	}})
	h, err := Handler(testLogger(t), c)
	require.NoError(t, err)
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			mu.Lock()
			live = live[:0:0]
			for n := range i % 8 {
				s := service()
				s.Name = fmt.Sprint("t", n)
				live = append(live, s)
			}
			mu.Unlock()
			c.Incident(fmt.Sprint("t", i%16), incident.OOMKill)
			c.Follow(t.Context(), replay(action(1, memguard.Capture)))
		}
	})
	var scrapers sync.WaitGroup
	for range scrapesAtOnce {
		scrapers.Go(func() {
			for range 30 {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
				assert.Equal(t, 200, w.Code)
				assert.Contains(t, w.Body.String(), "memguard_targets_dropped")
				assert.Contains(t, w.Body.String(), `promhttp_metric_handler_errors_total{cause="gathering"} 0`)
			}
		})
	}
	scrapers.Wait()
	close(stop)
	wg.Wait()
}

// While scrapes hang, more are refused; who reads slowly holds no place.
func TestScrapesAreBounded(t *testing.T) {
	defer leak.VerifyNone(t) // alone
	release := make(chan struct{})
	entered := make(chan struct{}, 100)
	c := NewCollector(Config{Targets: func() []watch.Status {
		entered <- struct{}{}
		<-release
		return nil
	}})
	h, err := Handler(testLogger(t), c)
	require.NoError(t, err)
	get := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		return w.Code
	}
	var wg sync.WaitGroup
	for range scrapesAtOnce {
		wg.Go(func() { assert.Equal(t, 200, get()) })
	}
	for range scrapesAtOnce {
		<-entered
	}
	for range 1000 {
		assert.Equal(t, 503, get())
	}
	close(release)
	wg.Wait()

	// Who does not read.
	read := make(chan struct{})
	for range 2 * scrapesAtOnce {
		w := &stuck{header: http.Header{}, began: make(chan struct{}), read: read}
		wg.Go(func() { h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil)) })
		<-w.began
	}
	assert.Equal(t, 200, get())
	close(read)
	wg.Wait()
}

// stuck is a client that takes nothing.
type stuck struct {
	header      http.Header
	began, read chan struct{}
	once        sync.Once
}

func (w *stuck) Header() http.Header { return w.header }
func (w *stuck) WriteHeader(int)     {}
func (w *stuck) Write(b []byte) (int, error) {
	w.once.Do(func() { close(w.began) })
	<-w.read
	return len(b), nil
}

func TestHandler(t *testing.T) {
	t.Parallel()
	audit := prometheus.NewCounter(prometheus.CounterOpts{Name: "memguard_audit_event_total", Help: "Audit events."})
	h, err := Handler(testLogger(t), full(t), audit)
	require.NoError(t, err)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{"memguard_audit_event_total 0\n", "go_goroutines ", "process_resident_memory_bytes ", "memguard_target_up{"} {
		assert.Contains(t, w.Body.String(), want)
	}
	_, err = Handler(testLogger(t), audit, audit)
	assert.ErrorContains(t, err, "metrics: duplicate")
}

// Who hangs up in the middle of an answer writes no line for each metric.
func TestHangUp(t *testing.T) {
	t.Parallel()
	var lines lineCount
	h, err := Handler(slog.New(slog.NewTextHandler(&lines, nil)), full(t))
	require.NoError(t, err)
	hungUp, cancel := context.WithCancel(t.Context())
	cancel()
	require.Eventually(t, func() bool {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(hungUp, "GET", "/metrics", nil))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		errs, _ := strconv.Atoi(series(w.Body.String())[`promhttp_metric_handler_errors_total{cause="encoding"}`])
		return errs > 20
	}, time.Minute, time.Millisecond)
	assert.EqualValues(t, 1, lines.Load())
}

// lineCount counts the lines of a log.
type lineCount struct{ atomic.Int64 }

func (n *lineCount) Write(b []byte) (int, error) {
	n.Add(1)
	return len(b), nil
}

// No finding, cause, action or row is left out of our tables.
func TestTablesAreWhole(t *testing.T) {
	t.Parallel()
	text := exposed(t, full(t))
	assert.Equal(t, 2*len(severities)*len(memguard.Docs()), strings.Count(text, "\nmemguard_target_findings{"), "of two targets that were looked at")
	for _, table := range []struct {
		file, constant string
		has            func(value string) bool
	}{
		{"../../memguard/event.go", `ActionName = "(.*?)"`, func(v string) bool {
			return slices.Contains(actionNames[:], memguard.ActionName(v)) || memguard.ActionName(v) == memguard.Log // never taken
		}},
		{"../incident/cause.go", `Cause = "(.*?)"`, func(v string) bool {
			return slices.Contains(causes[:], incident.Cause(v)) || incident.Cause(v) == incident.StillRunning
		}},
		{"../../memguard/ledger.go", `\tRow\w+ += "(.*?)"`, func(v string) bool { return slices.Contains(rows, v) }},
		{"../../memguard/ledger_cgroup.go", `\tRow\w+ += "(.*?)"`, func(v string) bool { return slices.Contains(cgroupRows, v) }},
		{"../watch/life.go", `"(kernel|agent|attach|exit-hold|pprof|gctrace)"[,}]`, func(v string) bool { return slices.Contains(sources, v) }},
	} {
		source, err := os.ReadFile(table.file)
		require.NoError(t, err)
		found := regexp.MustCompile(table.constant).FindAllStringSubmatch(string(source), -1)
		assert.Greater(t, len(found), 5, table.file)
		for _, m := range found {
			assert.True(t, table.has(m[1]), "%s: %s", table.file, m[1])
		}
	}
}

func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{1, 50} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var all []watch.Status
			for i := range n {
				s := service()
				s.Name = fmt.Sprintf("orders-%d", i)
				all = append(all, s)
			}
			h, err := Handler(testLogger(b), of(all...))
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest("GET", "/metrics", nil)
				r.Header.Set("Accept-Encoding", "gzip") // as Prometheus does
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
			b.ReportMetric(float64(len(series(exposed(b, of(all...))))), "series")
		})
	}
}

func testLogger(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }
