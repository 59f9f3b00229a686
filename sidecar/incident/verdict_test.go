// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/stretchr/testify/assert"
)

// level is a cgroup: used and limit in MiB (0 is no limit), kills and hits as
// "before-after" ("" is unknown).
func level(dir string, used, limit uint64, kills, hits string) Level {
	pair := func(s string) (a, b memguard.Count) {
		if len(s) == 3 {
			return known(uint64(s[0] - '0')), known(uint64(s[2] - '0'))
		}
		if len(s) == 2 { // "1-": the group is gone
			return known(uint64(s[0] - '0')), memguard.Count{}
		}
		return a, b
	}
	l := Level{Dir: dir, Usage: known(used << 20), Limit: known(limit << 20)}
	if limit == 0 {
		l.Limit = known(memguard.Unlimited)
	}
	l.Before, l.After = pair(kills)
	l.HitBefore, l.HitAfter = pair(hits)
	return l
}

var (
	sigKill = Exit{Known: true, Signal: 9}
	unseen  = Exit{}
)

func TestCauses(t *testing.T) {
	t.Parallel()
	machine := func(a, b uint64) Machine { return Machine{known(a), known(b)} }
	panicked := "panic: boom\n\ngoroutine 1 [running]:\nmain.work()\n\t/src/work.go:12 +0x1\n"
	asleep := []attach.Cluster{{Count: 3, State: "waiting", Reason: "chan receive", Start: "main.main"}, {Count: 4, State: "runnable", System: true}}
	held := func(c []attach.Cluster) *attach.Snapshot {
		return &attach.Snapshot{How: attach.How{Way: "exit hold"}, Goroutines: attach.GoroutineState{Clusters: c}}
	}
	for _, test := range []struct {
		name  string
		e     Evidence
		cause Cause
		says  string
		why   string
	}{
		// Version 2: a kill is counted in the group and in those above, the limit's hit in its own alone.
		{"own limit, version 2", Evidence{Exit: sigKill, Cgroups: []Level{level("/pod/c", 255, 256, "0-1", "0-1"), level("/pod", 300, 512, "0-1", "0-0")}},
			OOMKill, "its own cgroup reached its limit of 256.0 MiB", "oom_kill of its cgroup /pod/c went from 0 to 1"},
		{"limit of an ancestor, version 2", Evidence{Exit: sigKill, Cgroups: []Level{level("/pod/c", 200, 256, "0-1", "0-0"), level("/pod", 300, 300, "0-1", "0-1")}},
			OOMAncestor, "not its own cgroup but /pod above it reached its limit of 300.0 MiB", "/pod: the kernel counts that it could not get below its limit (0 to 1)"},
		{"both limits were hit, the pod's is full", Evidence{Exit: sigKill, Cgroups: []Level{level("/pod/c", 100, 256, "0-1", "0-1"), level("/pod", 300, 300, "0-1", "0-1")}}, OOMAncestor, "/pod above it", ""},
		{"the machine, counted in the own group all the same", Evidence{Exit: sigKill, Machine: machine(1, 2), Cgroups: []Level{level("/pod/c", 100, 256, "0-1", "0-0"), level("/pod", 300, 512, "0-1", "0-0")}},
			OOMMachine, "the machine had run out, no limit of its cgroups", "for none of its cgroups"},
		{"the machine, with the root of version 2", Evidence{Exit: sigKill, Cgroups: []Level{level("/pod/c", 100, 256, "0-1", "0-0"), {Dir: "/", Usage: known(1 << 30)}}}, OOMMachine, "the machine had run out", ""},
		// Version 1: the kill is counted in the victim's group alone, and failcnt is all there is of limits.
		{"own limit, version 1", Evidence{Exit: sigKill, Cgroups: []Level{level("/c", 255, 256, "0-1", "3-9"), level("/", 255, 0, "0-0", "0-0")}}, OOMKill, "its own cgroup", ""},
		{"limit of an ancestor, version 1", Evidence{Exit: sigKill, Cgroups: []Level{level("/p/c", 120, 0, "0-1", "0-0"), level("/p", 127, 128, "0-0", "0-4")}}, OOMAncestor, "/p above it reached its limit of 128.0 MiB", ""},
		{"no hits counted: the one that was full", Evidence{Exit: sigKill, Cgroups: []Level{level("/p/c", 100, 256, "0-1", ""), level("/p", 299, 300, "", "")}}, OOMAncestor, "/p above it", "100 % used at the last look"},
		{"no hits counted, none was full", Evidence{Exit: sigKill, Cgroups: []Level{level("/p/c", 10, 0, "0-1", ""), level("/p", 20, 300, "", "")}}, OOMAncestor, "/p above it", "nearest one that has a limit"},
		{"the own group is gone", Evidence{Exit: sigKill, Cgroups: []Level{level("/pod/c", 255, 256, "0-", ""), level("/pod", 300, 512, "0-1", "")}}, OOMKill, "its own cgroup", "its own cgroup can no longer be read, and oom_kill of one above it rose"},
		{"the exit was not seen", Evidence{Exit: unseen, Cgroups: []Level{level("/c", 255, 256, "0-1", "0-1")}}, OOMKill, "its own cgroup", "its exit status was not seen"},
		{"a sibling was killed", Evidence{Exit: sigKill, Cgroups: []Level{level("/pod/c", 100, 256, "0-0", "0-0"), level("/pod", 300, 300, "0-1", "0-1")}},
			Signalled, "not for lack of memory", "the kernel killed a process below /pod (its limit of 300.0 MiB)"},
		{"no cgroup, the machine counts", Evidence{Exit: sigKill, Machine: machine(1, 2)}, OOMMachine, "the machine's count of OOM kills rose", "oom_kill of /proc/vmstat went from 1 to 2"},
		{"no cgroup, the machine counts none", Evidence{Exit: sigKill, Machine: machine(2, 2)}, Signalled, "no OOM kill on the whole machine", ""},
		{"no counter, near the limit", Evidence{Exit: sigKill, Cgroups: []Level{level("/c", 250, 256, "", "")}}, OOMSuspected, "at 250.0 MiB of 256.0 MiB (98 %)", ""},
		{"no counter near the limit, but the machine has none", Evidence{Exit: sigKill, Machine: machine(2, 2), Cgroups: []Level{level("/c", 250, 256, "", "")}}, Signalled, "SIGKILL", ""},
		{"no counter at all", Evidence{Exit: sigKill}, Signalled, "whether by the kernel for lack of memory is not known", ""},
		{"somebody's SIGKILL", Evidence{Exit: sigKill, Cgroups: []Level{level("/c", 250, 256, "1-1", "5-5")}}, Signalled, "and not for lack of memory: the kernel counts no OOM kill in its cgroup; who sent it is not recorded", ""},
		{"SIGTERM", Evidence{Exit: Exit{Known: true, Signal: 15, From: "exec"}}, Signalled, "was ended by SIGTERM after 1m0s; who sent it is not recorded", "it was ended by SIGTERM, seen by exec"},
		{"another process of the group was killed", Evidence{Exit: Exit{Known: true}, Cgroups: []Level{level("/c", 250, 256, "0-1", "0-1")}}, CleanExit, "exit status 0", "another process of its cgroup"},
		{"a real-time signal", Evidence{Exit: Exit{Known: true, Signal: 40}}, Signalled, "signal 40", ""},
		{"a panic", Evidence{Exit: Exit{Known: true, Code: 2}, Stderr: []byte(panicked)}, GoPanic, "ended with a Go panic after 1m0s: boom, in main.work (work.go:12)", "it printed: boom"},
		{"a panic, nobody saw the exit", Evidence{Stderr: []byte(panicked)}, GoPanic, "boom", ""},
		{"a panic that it survived", Evidence{Exit: Exit{Known: true, Code: 1}, Stderr: []byte(panicked)}, ExitFailure, "exit status 1", ""},
		{"a panic that it survived, then the kernel", Evidence{Exit: sigKill, Stderr: []byte(panicked), Cgroups: []Level{level("/c", 255, 256, "0-1", "0-1")}}, OOMKill, "its own cgroup", ""},
		{"out of memory by address space", Evidence{Exit: Exit{Known: true, Code: 2}, Stderr: []byte("runtime: out of memory: cannot allocate 4194304-byte block (3932160 in use)\nfatal error: out of memory\n\ngoroutine 1 [running]:\nmain.load()\n\t/src/load.go:3 +0x1\n")},
			GoOutOfMemory, "the operating system gave the Go runtime no memory: out of memory (runtime: out of memory: cannot allocate 4194304-byte block (3932160 in use)), in main.load (load.go:3)", "RLIMIT_AS"},
		{"exit 2, all asleep by the snapshot", Evidence{Exit: Exit{Known: true, Code: 2}, Snapshot: held(asleep)}, GoFatal, "all its goroutines were asleep", ""},
		{"exit 2, one runs", Evidence{Exit: Exit{Known: true, Code: 2}, Snapshot: held(append(asleep, attach.Cluster{Count: 1, State: "running", Start: "main.feed"}))}, ExitFailure, "the goroutine that ran was started as main.feed", ""},
		{"exit 2, nothing seen", Evidence{Exit: Exit{Known: true, Code: 2}}, ExitFailure, "that of a Go panic or fatal error, but what it printed was not seen", ""},
		{"exit 2, what it printed is no such thing", Evidence{Exit: Exit{Known: true, Code: 2}, Stderr: []byte("flag needs an argument\n")}, ExitFailure, "the last that it printed does not say which", ""},
		{"the guard", Evidence{Exit: Exit{Known: true, Code: 75}}, GaveUp, "was ended by its own guard", ""},
		{"a shell's word", Evidence{Exit: Exit{Known: true, Code: 137}}, ExitFailure, "exit status 137 after 1m0s, with which a shell says that its child was ended by SIGKILL", ""},
		{"another program", Evidence{Exit: Exit{Became: true}}, Replaced, "did not end", ""},
		{"nobody saw, near the limit", Evidence{Cgroups: []Level{level("/c", 250, 256, "", "")}}, OOMSuspected, "nobody saw how, and an OOM kill is suspected", ""},
		{"nothing", Evidence{}, NotKnown, "how is not known", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := test.e
			e.Target, e.Ended = "orders", theEnd
			e.Process = target.Process{Identity: target.Identity{PID: 42}, Started: theEnd.Add(-time.Minute), Go: "go1.26.8"}
			r, _ := New(&e, Meta{})
			assert.Equal(t, test.cause, r.Cause, r.Verdict)
			assert.Contains(t, r.Verdict, test.says)
			assert.True(t, strings.HasPrefix(r.Verdict, "orders (pid 42) ") && strings.HasSuffix(r.Verdict, "."), r.Verdict)
			assert.NotContains(t, strings.TrimSuffix(r.Verdict, "."), ". ", "one sentence")
			if test.why != "" {
				assert.Contains(t, strings.Join(r.Why, "\n"), test.why)
			}
			write(t, r, nil)
		})
	}
}

// However deep a hierarchy is: what is looked at is bounded.
func TestManyLevels(t *testing.T) {
	t.Parallel()
	e := leaked(t)
	for i := range 100 {
		l := level(fmt.Sprint("/", i), 299, 300, "0-1", "0-1")
		e.Cgroups = append(e.Cgroups, l)
	}
	r, _ := New(e, Meta{})
	assert.Len(t, r.Cgroups, mostLevels)
	assert.Equal(t, OOMAncestor, r.Cause)
	assert.Len(t, e.Cgroups, 102, "the evidence is as it was")
}

// Deep stacks, and not the heap, are what is named where they hold more.
func TestSuspectIsTheStacks(t *testing.T) {
	t.Parallel()
	e := leaked(t)
	e.Ledger.Rows = []memguard.Row{{Name: memguard.RowLive, Bytes: memguard.Known(int64(20 << 20))}, {Name: memguard.RowStacks, Bytes: memguard.Known(int64(200 << 20))}}
	r, _ := New(e, Meta{})
	assert.Contains(t, r.Verdict, "; 300 goroutines were in main.worker, and their stacks held 200.0 MiB.")
}

func TestMeta(t *testing.T) {
	t.Parallel()
	uid := "0a1b2c3d-1111-2222-3333-444455556666"
	id := strings.Repeat("0f", 32)
	for path, want := range map[string]Meta{
		"/kubepods.slice/kubepods-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice/cri-containerd-" + id + ".scope": {PodUID: uid, ContainerID: id},
		"/kubepods/besteffort/pod" + uid + "/" + id: {PodUID: uid, ContainerID: id},
		"/docker/" + id:                         {ContainerID: id},
		"/system.slice/docker-" + id + ".scope": {ContainerID: id},
		"/system.slice/orders.service":          {Unit: "orders.service"},
		"/user.slice/a\x1b[31m.service":         {Unit: "a?[31m.service"},
		"":                                      {}, "/": {}, "///": {}, "../..": {},
	} {
		assert.Equal(t, want, Meta{}.within(path), path)
	}
	dir := t.TempDir()
	writeFile(t, dir+"/name", "orders-1\n")
	env := map[string]string{"POD_NAME": "other", "NODE_NAME": "n1"}
	assert.Equal(t, Meta{Pod: "orders-1", Node: "n1"}, ReadMeta(func(k string) string { return env[k] }, dir))
}
