// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var theEnd = time.Date(2026, 11, 3, 3, 4, 5, 600e6, time.UTC)

func known(n uint64) memguard.Bytes { return memguard.Known(n) }

// heapProfile is a heap profile with so many bytes in use by each stack, its
// functions innermost first.
func heapProfile(t testing.TB, stacks map[string]int64) []byte {
	p := &profile.Profile{SampleType: []*profile.ValueType{
		{Type: "alloc_objects", Unit: "count"}, {Type: "alloc_space", Unit: "bytes"},
		{Type: "inuse_objects", Unit: "count"}, {Type: "inuse_space", Unit: "bytes"}},
		PeriodType: &profile.ValueType{Type: "space", Unit: "bytes"}, Period: 512 << 10}
	functions := map[string]*profile.Location{}
	for _, stack := range slices.Sorted(maps.Keys(stacks)) {
		n := stacks[stack]
		s := &profile.Sample{Value: []int64{n / 1024, n, n / 1024, n}}
		for name := range strings.SplitSeq(stack, ";") {
			loc := functions[name]
			if loc == nil {
				fn := &profile.Function{ID: uint64(len(p.Function) + 1), Name: name, Filename: "/src/orders/main.go"}
				p.Function = append(p.Function, fn)
				loc = &profile.Location{ID: fn.ID, Line: []profile.Line{{Function: fn, Line: int64(10 + len(name))}}}
				p.Location = append(p.Location, loc)
				functions[name] = loc
			}
			s.Location = append(s.Location, loc)
		}
		p.Sample = append(p.Sample, s)
	}
	var b bytes.Buffer
	require.NoError(t, p.Write(&b))
	return b.Bytes()
}

// leaked is a service that leaked until the kernel killed it.
func leaked(t testing.TB) *Evidence {
	e := &Evidence{
		Target: "orders", Ended: theEnd, Exit: Exit{Known: true, Signal: 9, From: "exit-hold"},
		Process: target.Process{
			Identity: target.Identity{PID: 4711, Start: 99, Build: "3f2a9c0d51b7"}, Started: theEnd.Add(-12 * time.Minute), UID: 65532,
			Exe: "/app/orders", Command: "orders", Go: "go1.26.8",
			Cgroup: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b2c3d_1111_2222_3333_444455556666.slice/cri-containerd-" + strings.Repeat("ab12", 16) + ".scope",
		},
		Eye: "attach", Held: 31 * time.Millisecond,
		Heap: heapProfile(t, map[string]int64{
			"bytes.growSlice;bytes.(*Buffer).Write;main.(*cache).add;main.(*server).order;net/http.HandlerFunc.ServeHTTP": 170 << 20,
			"main.parse;main.(*server).order;net/http.HandlerFunc.ServeHTTP":                                              9 << 20,
			"compress/gzip.NewWriterLevel;main.(*server).order;net/http.HandlerFunc.ServeHTTP":                            3 << 20,
		}),
		Stderr: []byte("2026/11/03 03:03:59 order 1\n2026/11/03 03:04:05 order 2\n"),
		Cgroups: []Level{
			{Dir: "/sys/fs/cgroup/kubepods.slice/x.scope", Limit: known(256 << 20), Usage: known(254 << 20), Before: known(0), After: known(1), HitBefore: known(0), HitAfter: known(1)},
			{Dir: "/sys/fs/cgroup/kubepods.slice", Limit: known(memguard.Unlimited), Usage: known(3 << 30), Before: known(4), After: known(5), HitBefore: known(2), HitAfter: known(2)},
		},
		Machine: Machine{known(7), known(8)},
		Snapshot: &attach.Snapshot{
			How: attach.How{Way: "exit hold"},
			Goroutines: attach.GoroutineState{Total: known(312), Clusters: []attach.Cluster{
				{Count: 300, State: "waiting", Reason: "chan receive", Start: "main.worker", CreatedBy: attach.Frame{Func: "main.start", File: "/src/orders/pool.go", Line: 12},
					Stack: []attach.Frame{{Func: "runtime.gopark", File: "/go/src/runtime/proc.go", Line: 462}, {Func: "main.worker", File: "/src/orders/pool.go", Line: 30}}, LongestNs: memguard.Known(int64(90e9))},
				{Count: 11, State: "waiting", Reason: "IO wait", Start: "net/http.(*conn).serve", Stack: []attach.Frame{{Func: "net.(*netFD).Read", File: "/go/src/net/fd_posix.go", Line: 68}}},
				{Count: 1, State: "running", Start: "main.(*server).order", StackWhy: "it runs: its registers are not in memory"},
				{Count: 4, State: "waiting", System: true, Start: "runtime.bgsweep"},
			}},
			SizeClasses: []attach.SizeClass{{Class: 0, Bytes: 120 << 20, Objects: 400, Slots: 400}, {Class: 30, Size: 1024, Bytes: 60 << 20, Objects: 50000, Free: 9 << 20}, {Class: 2, Size: 16, Bytes: 1 << 10, Objects: 3}},
			Unknown:     []memguard.Blind{{What: "timers", Why: "not in this release"}},
		},
		Ledger: &memguard.Ledger{
			Time: theEnd.Add(-400 * time.Millisecond), PID: 4711, RSS: known(243 << 20),
			Rows: []memguard.Row{
				{Name: memguard.RowLive, Bytes: memguard.Known(int64(182 << 20))}, {Name: memguard.RowDead, Bytes: memguard.Known(int64(31 << 20)), Note: "garbage, or allocated since the last mark"},
				{Name: memguard.RowStacks, Bytes: memguard.Known(int64(6 << 20))}, {Name: memguard.RowMetadata, Bytes: memguard.Known(int64(9 << 20))},
				{Name: memguard.RowUntouched, Bytes: memguard.Known(int64(-2 << 20))}, {Name: memguard.RowBinary, Bytes: memguard.Known(int64(15 << 20))},
				{Name: memguard.RowRefill, Why: "the address space was not read"},
			},
			Residual: memguard.Known(int64(2 << 20)),
		},
		Timeline: &Timeline{Rows: []string{"go/heap/live", "go/heap/dead", "go/stacks", "go/metadata", "binary"}},
		Events: []memguard.Event{
			{Time: theEnd.Add(-70 * time.Second), Kind: memguard.Raised, Finding: memguard.Finding{ID: "sizeclass-growth", Severity: memguard.Warning, Summary: "Objects of 1024 bytes grow by 0.7 MiB a second."}},
			{Time: theEnd.Add(-20 * time.Second), Kind: memguard.Raised, Finding: memguard.Finding{ID: "oom-forecast", Severity: memguard.Critical, Summary: "What cannot be freed reaches the limit in 18 s."}},
			{Time: theEnd.Add(-9 * time.Second), Kind: memguard.Applied, Action: memguard.Action{Name: memguard.SetGCPercent, From: 100, To: 40, Reason: "ordered", By: "alice"}},
		},
	}
	for i := range 120 {
		live := int64(40+i*142/119) << 20
		if i%17 == 0 {
			live -= 6 << 20
		}
		p := Point{Time: theEnd.Add(time.Duration(i-120) * time.Second), PID: 4711, Limit: known(256 << 20)}
		for _, n := range []int64{live, int64(8+i%13*2) << 20, 6 << 20, 9 << 20, 15 << 20} {
			p.Rows = append(p.Rows, memguard.Known(n))
			u, _ := p.Usage.Get()
			p.Usage = known(u + uint64(n))
		}
		e.Timeline.Points = append(e.Timeline.Points, p)
	}
	return e
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

// golden compares with a file, or writes it with UPDATE=1.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	if !bytes.Equal(want, got) {
		require.NoError(t, os.WriteFile(path+".got", got, 0o644))
		assert.Equal(t, string(want), string(got), "see %s.got; UPDATE=1 rewrites", path)
	}
}

func write(t testing.TB, r *Report, files []File) (text, markdown, page, js []byte) {
	var a, b, c bytes.Buffer
	require.NoError(t, r.WriteText(&a, 100, false))
	require.NoError(t, r.WriteMarkdown(&b))
	require.NoError(t, r.WriteHTML(&c, files))
	js, err := json.MarshalIndent(r, "", "  ")
	require.NoError(t, err)
	return a.Bytes(), b.Bytes(), c.Bytes(), append(js, '\n')
}

// A heap profile that the service itself gave some time before says when, and names who
// held the memory all the same.
func TestHeapThatWasAskedFor(t *testing.T) {
	t.Parallel()
	e := leaked(t)
	e.Snapshot, e.NoSnapshot, e.HeapAsked = nil, "its memory cannot be read", e.Ended.Add(-17*time.Second)
	r, files := New(e, Meta{})
	require.NotNil(t, r.Growth)
	assert.Equal(t, "the process 17.0 s before its end", r.Growth.Later)
	assert.Contains(t, r.Verdict, "main.(*cache).add allocated")
	require.Len(t, files, 1)
	assert.Equal(t, "heap profile of the process 17.0 s before its end, as its net/http/pprof gave it", files[0].What)
}

func TestGolden(t *testing.T) {
	t.Parallel()
	r, files := New(leaked(t), Meta{Namespace: "shop", Pod: "orders-7c9f-xk2", Container: "orders", Node: "node-3"})
	r.ID = "20261103T030405.600000000Z-orders"
	text, markdown, page, js := write(t, r, nil)
	golden(t, "leaked.txt", text)
	golden(t, "leaked.md", markdown)
	golden(t, "leaked.json", js)
	golden(t, "leaked.html", page)
	assert.Len(t, files, 1)
}
