// SPDX-License-Identifier: Apache-2.0

package page

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/memguard/memguard-go/sidecar/page"
)

const mib = 1 << 20

type object = map[string]any

// fixture is a sidecar that says what a test wants said: what takes hours, or a
// hostile process, to bring about in a real one. TestFixtureIsWhatASidecarSays
// holds its words against the real types.
type fixture struct {
	*httptest.Server
	mu        sync.Mutex
	targets   []object
	timelines map[string]object
	incidents []object
	reports   map[string]object
	overrides []object
	events    []object
	more      chan struct{}
	token     string // that is asked for; empty: none
	gone      bool   // it answers nothing
	requests  []string
}

// newFixture serves the page with an API that is empty as yet.
func newFixture(t *testing.T) *fixture {
	f := &fixture{timelines: map[string]object{}, reports: map[string]object{}, more: make(chan struct{})}
	const api = "/apis/memguard.dev/v1alpha1/namespaces/default"
	mux := http.NewServeMux()
	mux.Handle("/", page.Handler("default"))
	get := func(path string, answer func(r *http.Request) any) {
		mux.HandleFunc("GET "+api+path, func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI())
			v := answer(r)
			b, err := json.Marshal(v)
			if err != nil {
				panic(err)
			}
			w.Header().Set("Content-Type", "application/json")
			if v == nil {
				w.WriteHeader(http.StatusNotFound)
				b = []byte(`{"kind":"Status","status":"Failure","code":404,"message":"there is no target of that name: see .../runtimes"}`)
			}
			w.Write(b)
		})
	}
	get("/runtimes", func(*http.Request) any { return object{"kind": "RuntimeList", "items": f.targets} })
	get("/runtimes/{name}", func(r *http.Request) any {
		for _, o := range f.targets {
			if o["name"] == r.PathValue("name") {
				return o
			}
		}
		return nil
	})
	get("/runtimes/{name}/timeline", func(r *http.Request) any {
		line, ok := f.timelines[r.PathValue("name")]
		if !ok {
			return nil
		}
		since, _ := time.Parse(time.RFC3339Nano, r.FormValue("since"))
		points := []object{}
		for _, p := range line["points"].([]object) {
			if p["time"].(time.Time).After(since) {
				points = append(points, p)
			}
		}
		return object{"rows": line["rows"], "points": points}
	})
	get("/runtimes/{name}/overrides", func(*http.Request) any { return object{"kind": "OverrideList", "items": f.overrides} })
	get("/incidents", func(*http.Request) any { return object{"kind": "IncidentList", "items": f.incidents} })
	get("/incidents/{id}", func(r *http.Request) any {
		if o, ok := f.reports[r.PathValue("id")]; ok {
			return o
		}
		return nil
	})
	mux.HandleFunc("GET "+api+"/events", f.stream)
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		gone, token := f.gone, f.token
		f.mu.Unlock()
		if strings.HasPrefix(r.URL.Path, "/apis/") {
			if gone {
				panic(http.ErrAbortHandler)
			}
			if token != "" && r.Header.Get("Authorization") != "Bearer "+token {
				w.Header().Set("WWW-Authenticate", "Bearer")
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprint(w, `{"kind":"Status","status":"Failure","code":401,"message":"nobody may read here without a name: say who you are"}`)
				return
			}
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { f.CloseClientConnections(); f.Close() })
	return f
}

func (f *fixture) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	var after int
	fmt.Sscan(r.FormValue("after"), &after)
	for {
		f.mu.Lock()
		if after > len(f.events) { // a number of before a restart
			after = 0
		}
		es, more := f.events[after:], f.more
		f.mu.Unlock()
		for _, e := range es {
			b, _ := json.Marshal(e)
			fmt.Fprintf(w, "id: %v\ndata: %s\n\n", e["seq"], b)
		}
		after += len(es)
		fmt.Fprint(w, ": still here\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}

// change does something with the fixture's content.
func (f *fixture) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// happens adds an event.
func (f *fixture) happens(e object) {
	f.change(func() {
		e["seq"] = len(f.events) + 1
		f.events = append(f.events, e)
		close(f.more)
		f.more = make(chan struct{})
	})
}

func frame(fn, file string, line int) object {
	return object{"func": fn, "file": file, "line": line}
}

// The findings of the tests.
var (
	leak = func(since time.Time) object {
		return object{"id": "goroutine-leak", "severity": "warning", "since": since,
			"summary":  "3,204 goroutines wait at example.test/shop/orders.(*Reserve).wait (reserve.go:88) and 118 more come each minute.",
			"evidence": []object{{"name": "goroutines", "value": 3204, "unit": "count"}, {"name": "stacks", "value": 26.4 * mib, "unit": "bytes"}, {"name": "growth", "value": 0.12 * mib, "unit": "bytes/second"}},
			"remedy":   "Look at the line that created them: whoever waits needs a way to be told to stop, such as a context, a closed channel or a deadline."}
	}
	forecast = func(since time.Time) object {
		return object{"id": "oom-forecast", "severity": "critical", "since": since,
			"summary":  "Memory that cannot be dropped grows by 2.1 MiB/s and reaches the limit of 512 MiB in 25 s.",
			"evidence": []object{{"name": "undroppable", "value": 459 * mib, "unit": "bytes"}, {"name": "limit", "value": 512 * mib, "unit": "bytes"}, {"name": "growth", "value": 2.1 * mib, "unit": "bytes/second"}, {"name": "time left", "value": 25, "unit": "seconds"}},
			"remedy":   "Take a heap and a goroutine profile now, twice, and compare them; the growing row of the ledger says which. Then restart in order, before the kernel does."}
	}
)

var ledgerNames = []string{"go/heap/live", "go/heap/dead", "go/heap/unused", "go/heap/free", "go/stacks", "go/metadata", "anon/other", "binary", "file", "pagecache/inactive", "kernel"}

func ledgerOf(rows []int64, pid int, limit int64, at time.Time) object {
	var process, cgroup []object
	var rss, usage int64
	for i, name := range ledgerNames {
		o := object{"name": name, "bytes": rows[i]}
		if i < 9 {
			process = append(process, o)
			rss += rows[i]
		} else {
			cgroup = append(cgroup, o)
		}
		usage += rows[i]
	}
	process[1]["note"] = "not marked by the last cycle: garbage, or allocated since"
	process = append(process, object{"name": "lazyfree", "bytes": nil, "why": "needs smaps, which was not read"})
	cgroup = append([]object{{"name": fmt.Sprintf("process/%d", pid), "bytes": rss}}, cgroup...)
	return object{"time": at, "pid": pid, "rss": rss, "rows": process, "residual": 0,
		"cgroup": object{"path": "/kubepods.slice/kubepods-burstable.slice/cri-containerd-4ae1f0.scope", "version": 2, "usage": usage, "limit": limit, "unlimited": false, "rows": cgroup, "residual": 1 * mib}}
}

// story fills the fixture with a service that leaks, is killed, and leaks again,
// with a guard of its own, and one beside it of which nothing but the kernel's
// figures is known.
func (f *fixture) story() {
	now := time.Now().Truncate(time.Millisecond)
	const limit = 512 * mib
	var points []object
	var last []int64
	killed, begun := now.Add(-170*time.Second), now.Add(-166*time.Second)
	for at := now.Add(-9 * time.Minute); !at.After(now); at = at.Add(time.Second) {
		pid, grown := 4711, 1-killed.Sub(at).Seconds()/370
		if at.After(killed) {
			if at.Before(begun) {
				continue
			}
			pid, grown = 4790, 0.86*at.Sub(begun).Seconds()/166
		}
		grown = math.Max(grown, 0)
		saw := math.Mod(at.Sub(now.Add(-9*time.Minute)).Seconds(), 14) / 14
		rows := []int64{
			int64((40 + 315*grown) * mib), int64((6 + 40*saw*(1-0.6*grown)) * mib), int64((5 + 9*grown) * mib), int64((30 - 22*grown) * (1 - saw) * mib),
			int64((4 + 26*grown) * mib), int64((7 + 6*grown) * mib), int64(9 * mib), int64(11 * mib), int64(6 * mib), int64((38 - 25*grown) * mib), int64(7 * mib),
		}
		var usage int64
		for _, n := range rows {
			usage += n
		}
		points = append(points, object{"time": at, "pid": pid, "usage": min(usage+1*mib, limit), "limit": limit, "rows": rows})
		last = rows
	}
	f.timelines["orders"] = object{"rows": ledgerNames, "points": points}
	process := object{"pid": 4790, "start_ticks": 88123, "build_id": "Zk3x9vWQ1b7yqf2n/8aR", "started": begun, "uid": 10001, "exe": "/app/orders", "command": "orders", "go_version": "go1.26.8", "cgroup": "/kubepods.slice/cri-containerd-4ae1f0.scope"}
	clusters := []object{
		{"count": 3204, "state": "waiting", "reason": "chan receive", "system": false, "start": "example.test/shop/orders.(*Reserve).wait", "created_by": frame("example.test/shop/orders.(*Service).Create", "/src/orders/service.go", 142),
			"stack":      []object{frame("runtime.gopark", "/usr/local/go/src/runtime/proc.go", 461), frame("runtime.chanrecv1", "/usr/local/go/src/runtime/chan.go", 506), frame("example.test/shop/orders.(*Reserve).wait", "/src/orders/reserve.go", 88)},
			"longest_ns": 161e9, "example_id": 912},
		{"count": 12, "state": "waiting", "reason": "IO wait", "system": false, "start": "net/http.(*conn).serve", "created_by": frame("net/http.(*Server).Serve", "/usr/local/go/src/net/http/server.go", 3454),
			"stack": []object{frame("internal/poll.runtime_pollWait", "/usr/local/go/src/runtime/netpoll.go", 351), frame("net/http.(*conn).serve", "/usr/local/go/src/net/http/server.go", 2097)}, "longest_ns": 4e9, "example_id": 44},
		{"count": 4, "state": "running", "system": false, "start": "example.test/shop/orders.worker", "created_by": frame("main.main", "/src/main.go", 31), "stack": nil, "stack_unknown": "it runs", "longest_ns": nil, "example_id": 7},
		{"count": 6, "state": "waiting", "reason": "GC worker (idle)", "system": true, "start": "runtime.gcBgMarkWorker", "created_by": frame("runtime.gcBgMarkStartWorkers", "/usr/local/go/src/runtime/mgc.go", 1426), "stack": []object{frame("runtime.gopark", "/usr/local/go/src/runtime/proc.go", 461)}, "longest_ns": 1e9, "example_id": 5},
	}
	classes := []object{}
	for i, size := range []int{16, 48, 64, 512, 2048, 8192, 0} {
		objects := []int{41000, 220000, 830500, 30100, 29000, 3300, 21}[i]
		bytes := max(size, 900000) * objects
		if size > 0 {
			bytes = size * objects * 11 / 10
		}
		classes = append(classes, object{"class": i + 1, "object_bytes": size, "spans": 40 + 31*i, "bytes": bytes, "objects": objects, "slots": objects * 11 / 10, "free_bytes": bytes / (8 + i), "tail_bytes": bytes / 90, "occupancy": []int{3 + i, 4, 6, 8 + 9*i, 19 + 12*i}})
	}
	guard := object{"time": now, "pid": 4790, "exe": "/app/orders", "go_version": "go1.26.8", "ticks": 166, "last_tick_age_seconds": 0.2, "events": 9,
		"time_to_limit_seconds": 25.2, "cgroup_undroppable": 459 * mib, "findings": []object{forecast(now.Add(-12 * time.Second)), leak(now.Add(-70 * time.Second))},
		"ledger": ledgerOf(last, 4790, limit, now), "blind": []object{{"what": "pagecache/active", "why": "not in memory.stat"}},
		"hand": object{"dry_run": false, "breaker": "half-open", "baseline": object{"gc_percent": 100, "memory_limit": int64(math.MaxInt64)}, "wanted": object{"gc_percent": 50, "memory_limit": 461 * mib},
			"why": "the breaker is half-open", "why_limit": "what the cgroup leaves", "spiral": false, "must": 300 * mib, "setting_changes": 14, "breaker_clamps": 2, "release_grade": "lower GC percent",
			"releases": object{"ended": 3, "paid": 2, "took_seconds": 0.41, "gained_bytes": 96 * mib},
			"shed": object{"limited": true, "blind": false, "braking": true, "brakes": 4, "room": 20 * mib, "budget": 180 * mib, "window": 60 * mib, "held": 151 * mib, "waiting": 9, "connections": 210,
				"routes": []object{{"route": "POST /orders", "cost": 900000, "learned": true, "in_flight": 160, "admitted": 20311, "refused": 412}}}}}
	f.targets = []object{
		{"name": "orders", "rule": "orders", "state": "running", "process": process, "restarts": 1, "eye": "agent", "guard": guard, "goroutine_clusters": clusters, "size_classes": classes, "looked": now.Add(-9 * time.Second), "gc_cycles": nil,
			"sources": []object{{"name": "kernel", "state": "ok", "since": begun}, {"name": "agent", "state": "ok", "since": begun}, {"name": "attach", "state": "ok", "since": begun}, {"name": "exit-hold", "state": "failed", "why": "fanotify_init: operation not permitted: needs CAP_SYS_ADMIN", "since": begun}, {"name": "pprof", "state": "off", "why": "no URL is configured", "since": begun}}},
		{"name": "cache", "rule": "cache", "state": "running", "restarts": 0, "eye": "kernel", "process": object{"pid": 812, "start_ticks": 5120, "build_id": "", "started": now.Add(-53 * time.Hour), "uid": 999, "exe": "/usr/bin/redis-server", "command": "redis-server", "go_version": "", "cgroup": "/kubepods.slice/x"},
			"guard": object{"time": now, "pid": 812, "ticks": 4000, "last_tick_age_seconds": 0.4, "events": 0, "time_to_limit_seconds": nil, "cgroup_undroppable": nil, "findings": []object{}, "blind": []object{}, "hand": nil,
				"ledger": object{"time": now, "pid": 812, "rss": 210 * mib, "residual": nil, "rows": []object{{"name": "anon/other", "bytes": 190 * mib}, {"name": "file", "bytes": 20 * mib}, {"name": "libc", "bytes": nil, "why": "needs smaps, which was not read"}}, "cgroup": nil}},
			"goroutine_clusters": nil, "size_classes": nil, "gc_cycles": nil, "sources": []object{{"name": "kernel", "state": "ok", "since": now}, {"name": "attach", "state": "off", "why": "not a Go program", "since": now}}},
		{"name": "payments", "rule": "payments", "state": "waiting", "process": nil, "restarts": 4, "sources": []object{}, "eye": "", "guard": nil, "goroutine_clusters": nil, "size_classes": nil, "gc_cycles": nil},
	}
	f.timelines["cache"] = object{"rows": []string{"anon/other", "file", "libc"}, "points": []object{
		{"time": now.Add(-2 * time.Second), "pid": 812, "usage": nil, "limit": nil, "rows": []any{nil, nil, nil}},
		{"time": now.Add(-time.Second), "pid": 812, "usage": 210 * mib, "limit": nil, "rows": []any{190 * mib, 20 * mib, nil}},
		{"time": now, "pid": 812, "usage": 212 * mib, "limit": nil, "rows": []any{191 * mib, 20 * mib, nil}}}}
	f.timelines["payments"] = object{"rows": []string{}, "points": []object{}}
	f.overrides = []object{{"id": "7b1e", "target": "orders", "process": object{"pid": 4790, "start_ticks": 88123, "build_id": "Zk3x9vWQ1b7yqf2n/8aR"}, "setting": "gcpercent", "from": 100, "to": 50, "reason": "the leak in orders, until the fix is out", "by": "system:serviceaccount:shop:governor", "since": now.Add(-40 * time.Second), "until": now.Add(560 * time.Second), "seq": 5, "state": "standing"}}
	const id = "20261122T024500Z-orders-4711"
	verdict := "Killed by the kernel at the limit of its container, 512 MiB: example.test/shop/orders.(*Service).Create held 301 MiB, in goroutines that wait at reserve.go:88."
	f.incidents = []object{{"id": id, "target": "orders", "cause": "oom-kill", "severity": "critical", "verdict": verdict, "time": killed, "pid": 4711, "bytes": 88123, "limit": limit, "usage": 511 * mib}}
	var before []object
	for _, p := range points {
		if p["pid"] == 4711 {
			before = append(before, p)
		}
	}
	was := object{}
	for k, v := range process {
		was[k] = v
	}
	was["pid"], was["started"] = 4711, now.Add(-9*time.Minute)
	f.reports[id] = object{"version": 1, "id": id, "verdict": verdict, "cause": "oom-kill", "severity": "critical", "why": []string{"oom_kill of the process's own cgroup rose from 0 to 1", "it was at 100 % of its limit at the last look"},
		"target": "orders", "process": was, "where": object{"namespace": "shop", "pod": "orders-7c9d8b-x2x5k", "container": "orders", "node": "worker-3"}, "ended": killed, "lived_seconds": 370.2, "exit": object{"known": true, "code": 0, "signal": 9, "from": "exit-hold"},
		"usage": 511 * mib, "limit": limit, "limit_from": "/sys/fs/cgroup/kubepods.slice", "cgroups": []object{{"dir": "/sys/fs/cgroup/kubepods.slice/cri-containerd-4ae1f0.scope", "limit": limit, "usage": 511 * mib, "oom_kills_before": 0, "oom_kills_after": 1, "limit_hits_before": 0, "limit_hits_after": 1}, {"dir": "/sys/fs/cgroup/kubepods.slice", "limit": nil, "usage": 3000 * mib, "oom_kills_before": 4, "oom_kills_after": 5, "limit_hits_before": 0, "limit_hits_after": 0}},
		"machine": object{"oom_kills_before": 4, "oom_kills_after": 5}, "last_words": nil, "stderr": []string{"2026/11/22 02:44:58 orders: 3100 in flight", "2026/11/22 02:44:59 orders: warehouse slow"},
		"timeline": object{"rows": ledgerNames, "points": before}, "notes": []object{{"time": killed.Add(-60 * time.Second), "kind": "finding", "severity": "warning", "name": "goroutine-leak", "text": "3,100 goroutines wait at reserve.go:88."}, {"time": killed.Add(-20 * time.Second), "kind": "finding", "severity": "critical", "name": "oom-forecast", "text": "the limit is reached in 20 s."}, {"time": killed.Add(-19 * time.Second), "kind": "action", "severity": "Severity(0)", "name": "capture", "text": "heap and goroutine profiles"}},
		"ledger": ledgerOf(last, 4711, limit, killed), "growth": object{"base": "heap profile at 70 %", "later": "heap profile at 90 %", "total": 198 * mib, "top": []object{
			{"bytes": 171 * mib, "objects": 201000, "func": "example.test/shop/orders.(*Service).Create", "stack": []object{frame("encoding/json.Unmarshal", "/usr/local/go/src/encoding/json/decode.go", 108), frame("example.test/shop/orders.(*Service).Create", "/src/orders/service.go", 131), frame("net/http.HandlerFunc.ServeHTTP", "/usr/local/go/src/net/http/server.go", 2220)}},
			{"bytes": 27 * mib, "objects": 3100, "func": "example.test/shop/orders.newPlan", "stack": []object{frame("example.test/shop/orders.newPlan", "/src/orders/plan.go", 20)}}}},
		"goroutines":   object{"from": "the process as it ended", "total": 3226, "clusters": []object{{"count": 3204, "state": "chan receive", "func": "example.test/shop/orders.(*Reserve).wait", "created": frame("example.test/shop/orders.(*Service).Create", "/src/orders/service.go", 142), "stack": []object{frame("runtime.gopark", "", 0), frame("example.test/shop/orders.(*Reserve).wait", "/src/orders/reserve.go", 88)}, "longest_wait_seconds": 360.5}}},
		"size_classes": []object{{"object_bytes": 64, "objects": 830500, "bytes": 61 * mib, "free_bytes": 3 * mib}, {"object_bytes": 0, "objects": 21, "bytes": 18 * mib, "free_bytes": 0}},
		"black_box":    object{"verdict": "Killed by the kernel.", "cause": "oom-kill", "path": "orders.box", "service": "orders", "build": "go1.26.8", "records": "1204 records, none torn"}, "files": []object{{"name": "heap.pb.gz", "what": "heap profile of the process as it ended", "bytes": 51233}}, "unknown": []object{{"what": "what it printed", "why": "its standard error did not pass through us"}}}
	raised := func(at time.Time, pid int, finding object) {
		f.happens(object{"time": at, "target": "orders", "pid": pid, "kind": "guard", "text": fmt.Sprintf("%v (%v): %v", finding["id"], finding["severity"], finding["summary"]), "guard": object{"seq": 1, "time": at, "kind": "raised", "finding": finding}})
	}
	f.happens(object{"time": now.Add(-9 * time.Minute), "target": "orders", "pid": 4711, "kind": "appeared", "text": "pid 4711 runs /app/orders, go1.26.8"})
	raised(killed.Add(-60*time.Second), 4711, leak(killed.Add(-60*time.Second)))
	raised(killed.Add(-20*time.Second), 4711, forecast(killed.Add(-20*time.Second)))
	f.happens(object{"time": killed.Add(-16 * time.Second), "target": "orders", "pid": 4711, "kind": "guard", "text": "profiles were captured: 90 % of the limit", "guard": object{"seq": 3, "time": killed.Add(-16 * time.Second), "kind": "applied", "action": object{"name": "capture", "reason": "90 % of the limit"}}})
	f.happens(object{"time": killed, "target": "orders", "pid": 4711, "kind": "ended", "text": "pid 4711 has ended by SIGKILL"})
	f.happens(object{"time": killed.Add(time.Second), "target": "orders", "pid": 4711, "kind": "incident", "text": verdict, "incident": id})
	f.happens(object{"time": begun, "target": "orders", "pid": 4790, "kind": "appeared", "text": "pid 4790 runs /app/orders, go1.26.8"})
	f.happens(object{"time": begun.Add(time.Second), "target": "orders", "pid": 4790, "kind": "source", "text": "exit-hold: failed: fanotify_init: operation not permitted"})
	raised(now.Add(-70*time.Second), 4790, leak(now.Add(-70*time.Second)))
	f.happens(object{"time": now.Add(-40 * time.Second), "target": "orders", "pid": 4790, "kind": "guard", "text": "GC percent from 100 to 50: the breaker is half-open", "guard": object{"seq": 5, "time": now.Add(-40 * time.Second), "kind": "applied", "action": object{"name": "gc-percent", "from": 100, "to": 50, "reason": "the breaker is half-open"}}})
	raised(now.Add(-12*time.Second), 4790, forecast(now.Add(-12*time.Second)))
}
