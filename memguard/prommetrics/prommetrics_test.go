// SPDX-License-Identifier: Apache-2.0

package prommetrics

import (
	"errors"
	"math"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
	"github.com/memguard/memguard-go/scavenge"
	"github.com/memguard/memguard-go/scavenge/smaps"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const mebi = 1 << 20

// leaking is a service that leaks, couples a breaker and sheds load.
func leaking() memguard.Status {
	b := func(n uint64) memguard.Bytes { return memguard.Known(n * mebi) }
	s := memguard.Sample{Time: time.Unix(1800000000, 0), PID: 7}
	s.Runtime = memguard.Runtime{
		Origin: memguard.FromRuntime, Total: b(240), Released: b(20), Objects: b(180), Unused: b(10), Free: b(16),
		Stacks: b(4), OSStacks: b(0), Metadata: b(10), Live: b(150),
	}
	s.Process = memguard.Process{Go: true, RSS: b(226), Shared: b(8)}
	s.Cgroup = memguard.Cgroup{
		Path: "/orders", Version: 2, Usage: b(240), Limit: b(256), High: memguard.Known[uint64](memguard.Unlimited),
		Anon: b(218), File: b(20), Shmem: b(0), ActiveFile: b(12), InactiveFile: b(8), Unevictable: b(0), Kernel: b(2),
	}
	s.Blind = []memguard.Blind{{What: "PSI", Why: "not there"}}
	return memguard.Status{
		Sample: s, Ledger: memguard.NewLedger(&s), Left: memguard.Known(42.5), Undroppable: b(220), Must: b(174),
		Findings: []memguard.Finding{{ID: "oom-forecast", Severity: memguard.Critical}, {ID: "gc-storm", Severity: memguard.Info}},
		Ticks:    1234, Events: 12, Kinds: map[memguard.EventKind]uint64{memguard.Raised: 3, memguard.Applied: 9},
		Acts: true, Coupled: true, Breaker: pacer.HalfOpen,
		Decision: pacer.Decision{Spiral: true},
		Baseline: pacer.Setting{GCPercent: -1, MemoryLimit: math.MaxInt64},
		Wanted:   pacer.Setting{GCPercent: 50, MemoryLimit: 200 * mebi},
		Grade:    scavenge.FreeOSMemory,
		Releases: scavenge.Account{Asked: 3, Ended: 2, Paid: 1, Took: 150 * time.Millisecond, Gained: -mebi},
		Changes:  17, Clamps: 4,
		MemoryBreaker: shed.Open, Orders: []memguard.Standing{{Seq: 9, Action: memguard.Action{Name: memguard.ShedLoad, To: 30}}},
		Shed: &shed.Snapshot{
			Limited: true, Braking: true, Braked: 5, Refusing: 30, Room: 60 * mebi, Budget: 50 * mebi, Window: 40 * mebi, Held: 30 * mebi,
			Waiting: 2, Connections: 9, ConnectionsRefused: 8, ConnectionsClosed: 7,
			Routes: []shed.RouteSnapshot{
				{Route: "POST /orders", Cost: mebi, Learned: true, InFlight: 30, Admitted: 1000, Refused: 100},
				{Route: "other", Cost: 65536, InFlight: 1, Admitted: 2},
				{Route: "caf\xe9\n\"", InFlight: 1, Admitted: 1},
			},
		},
	}
}

func of(s memguard.Status, ok bool) *collector {
	return newCollector(func() (memguard.Status, bool) { return s, ok }, func() time.Time { return time.Unix(1800000000, 500e6) })
}

// exposed is what Prometheus gets.
func exposed(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(c))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(t, 200, w.Code, w.Body.String())
	return w.Body.String()
}

func TestExposition(t *testing.T) {
	t.Parallel()
	const path = "testdata/metrics.txt"
	got := exposed(t, of(leaking(), true))
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
	require.NoError(t, reg.Register(of(leaking(), true)))
	families, err := reg.Gather()
	require.NoError(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)
	for _, f := range families {
		assert.Regexp(t, `^[A-Z1].*[.0]$`, f.GetHelp(), "%s", f.GetName())
		assert.NotRegexp(t, "^(go_|process_)", f.GetName())
	}
}

// What is unknown has no series, and is not zero.
func TestUnknownIsAbsent(t *testing.T) {
	t.Parallel()
	series := func(s memguard.Status, ok bool) map[string]bool {
		names := map[string]bool{}
		for line := range strings.Lines(exposed(t, of(s, ok))) {
			if !strings.HasPrefix(line, "#") {
				name, _, _ := strings.Cut(line, " ")
				names[name] = true
			}
		}
		return names
	}
	// Nothing but that the guard lives.
	got := series(memguard.Status{}, false)
	assert.Equal(t, map[string]bool{"memguard_guard_last_tick_timestamp_seconds": true}, got)

	// It has not looked yet.
	got = series(memguard.Status{Ledger: memguard.NewLedger(new(memguard.Sample))}, true)
	assert.Len(t, got, 2+len(kinds))

	// It watches another process, of which the kernel tells the size alone.
	var s memguard.Sample
	s.Process.RSS, s.Process.Shared = memguard.Known[uint64](mebi), memguard.Known[uint64](0)
	got = series(memguard.Status{Sample: s, Ledger: memguard.NewLedger(&s), Ticks: 1}, true)
	assert.True(t, got[`memguard_ledger_bytes{row="anon/other"}`])
	for _, absent := range []string{
		"memguard_time_to_limit_seconds", "memguard_go_unfreeable_bytes", "memguard_cgroup_limit_bytes", "memguard_cgroup_usage_bytes",
		"memguard_cgroup_headroom_bytes", "memguard_setting_changes_total", "memguard_shed_limited", `memguard_ledger_bytes{row="libc"}`,
		`memguard_breaker_state{state="closed"}`,
	} {
		assert.False(t, got[absent], absent)
	}
	assert.True(t, got[`memguard_findings{id="oom-kill",severity="critical"}`], "looked, and it does not stand")

	// A limit that is known not to be there.
	s.Cgroup = memguard.Cgroup{Path: "/", Version: 2, Usage: memguard.Known[uint64](5), Limit: memguard.Known[uint64](memguard.Unlimited)}
	text := exposed(t, of(memguard.Status{Sample: s, Ledger: memguard.NewLedger(&s), Ticks: 1}, true))
	assert.Contains(t, text, "memguard_cgroup_limit_bytes +Inf\n")
	assert.NotContains(t, text, "memguard_cgroup_headroom_bytes ")
}

// No two routes become one series, whatever their names: Gather would refuse all
// of a scrape. What a regular expression of a router has stays as it is.
func TestRoutesStayApart(t *testing.T) {
	t.Parallel()
	s := leaking()
	s.Shed.Routes = nil
	from := map[string]string{} // which name became it
	names := []string{""}
	for range 4 { // all that can be made of these
		var longer []string
		for _, name := range names {
			for _, part := range []string{"\xff", "\n", `\`, "x", "f"} {
				longer = append(longer, name+part)
			}
		}
		names = longer
		for _, name := range names {
			other, taken := from[route(name)]
			require.False(t, taken, "%q and %q", name, other)
			from[route(name)] = name
		}
	}
	for _, n := range []string{"\xff", `\xff`, `\\xff`} {
		s.Shed.Routes = append(s.Shed.Routes, shed.RouteSnapshot{Route: n, Admitted: 1})
	}
	text := exposed(t, of(s, true))
	assert.Equal(t, 3, strings.Count(text, "\nmemguard_shed_admitted_total{"), text)
	for _, n := range []string{"", "GET /items/{id}", `/items/{id:\d+}`, "/größe"} {
		assert.Equal(t, n, route(n))
	}
}

// Every finding of the table has its series, whichever stand.
func TestFindings(t *testing.T) {
	t.Parallel()
	text := exposed(t, of(leaking(), true))
	assert.Equal(t, len(severities)*len(memguard.Docs()), strings.Count(text, "\nmemguard_findings{"))
	assert.Contains(t, text, `memguard_findings{id="oom-forecast",severity="critical"} 1`)
	assert.Contains(t, text, `memguard_findings{id="oom-forecast",severity="warning"} 0`)
	assert.Contains(t, text, `memguard_findings{id="gc-storm",severity="info"} 1`)
}

// A real guard, and one that has ended.
func TestGuard(t *testing.T) {
	t.Parallel()
	g := memguard.Start(memguard.Config{DryRun: true})
	c := NewCollector(g)
	require.Eventually(t, func() bool { return g.Status().Ticks > 0 }, time.Minute, time.Millisecond)
	text := exposed(t, c)
	assert.Contains(t, text, `memguard_ledger_bytes{row="go/heap/unused"}`)
	assert.Contains(t, text, `memguard_gc_target_percent{setting="baseline"}`)
	assert.Contains(t, text, "memguard_guard_dry_run 1\n")
	require.NoError(t, g.Close())
	text = exposed(t, c)
	assert.Contains(t, text, "memguard_guard_last_tick_timestamp_seconds ")
	assert.NotContains(t, text, "memguard_guard_ticks_total", "what it saw last is not what is now")
}

// A scrape does not wait for a guard that hangs, here because what it reads does.
func TestGuardHangs(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	src, err := memguard.Open(cmd.Process.Pid)
	if err != nil {
		t.Skip("another process cannot be watched here: ", err)
	}
	release, hung := make(chan struct{}), make(chan struct{}, 1)
	src.See(func(*memguard.Runtime) ([]smaps.Range, error) {
		select {
		case hung <- struct{}{}:
		default:
		}
		<-release
		return nil, errors.New("nothing to see")
	})
	g := memguard.Start(memguard.Config{Source: src})
	<-hung
	c := NewCollector(g)
	text := exposed(t, c)
	assert.Contains(t, text, "memguard_guard_last_tick_timestamp_seconds ")
	assert.NotContains(t, text, "memguard_guard_ticks_total")
	close(release)
	require.Eventually(t, func() bool { return strings.Contains(exposed(t, c), `memguard_ledger_bytes{row="file"}`) }, time.Minute, time.Millisecond)
	require.NoError(t, g.Close())
}

// What a scrape costs, without the encoding that all collectors share.
func BenchmarkCollect(b *testing.B) {
	g := memguard.Start(memguard.Config{DryRun: true})
	defer g.Close()
	for g.Status().Ticks == 0 {
		time.Sleep(time.Millisecond)
	}
	c := NewCollector(g)
	ch := make(chan prometheus.Metric, 1000)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		c.Collect(ch)
		n = len(ch)
		for len(ch) > 0 {
			<-ch
		}
	}
	b.ReportMetric(float64(n), "series/op")
}
