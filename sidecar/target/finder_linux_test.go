// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func finderOf(t testing.TB, rules ...Rule) *Finder {
	t.Helper()
	for i := range rules {
		if rules[i].Name == "" {
			rules[i].Name = fmt.Sprint("rule-", i+1)
		}
	}
	f, err := NewFinder(rules)
	require.NoError(t, err)
	return f
}

func pids(found []Found) (out []int) {
	for _, p := range found {
		out = append(out, p.PID)
	}
	return out
}

func TestFind(t *testing.T) {
	t.Parallel()
	before := time.Now()
	s := play(t, "orders-svc", "play-wait")
	require.Equal(t, "ready", s.hear(t))
	pid := s.Process.Pid
	cgroup, err := (&facts{pid: pid}).cgroup()
	require.NoError(t, err)
	labels := filepath.Join(t.TempDir(), "labels")
	require.NoError(t, os.WriteFile(labels, []byte("app=\"orders\"\ntier=\"core\"\n"), 0o644))
	of := func(k, v string) *Label { return &Label{labels, map[string]string{"tier": "core", k: v}} }
	for _, test := range []struct {
		name string
		rule Rule
		want bool
	}{
		{"pid", Rule{PID: pid}, true},
		{"another pid", Rule{PID: os.Getppid()}, false},
		{"command", Rule{Command: "orders-s?c"}, true},
		{"another command", Rule{Command: "orders"}, false},
		{"exe", Rule{Exe: s.Path}, true},
		{"exe by glob", Rule{Exe: filepath.Dir(s.Path) + "/*"}, true},
		{"a star ends at a slash", Rule{Exe: "/*/orders-svc"}, false},
		{"cgroup", Rule{Cgroup: cgroup, Command: "orders-svc"}, true},
		{"another cgroup", Rule{Cgroup: "/no/such", Command: "orders-svc"}, false},
		{"labels", Rule{Command: "orders-svc", Labels: of("app", "orders")}, true},
		{"another label", Rule{Command: "orders-svc", Labels: of("app", "carts")}, false},
		{"a label that is not there", Rule{Command: "orders-svc", Labels: of("zone", "")}, false},
		{"all, and one does not hold", Rule{PID: pid, Exe: s.Path, Command: "x"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := finderOf(t, test.rule)
			for range 3 { // the second scan goes by what the first one remembers
				found, blind := f.Scan(t.Context())
				if assert.Equal(t, test.want, len(found) == 1 && found[0].PID == pid, "%+v", found) && test.want {
					p := found[0]
					if test.rule.Exe == "" { // some process here may be one that we must not read
						assert.Empty(t, blind)
					}
					assert.Equal(t, "rule-1", p.Rule)
					assert.Equal(t, "orders-svc", p.Command)
					assert.Equal(t, s.Path, p.Exe)
					assert.Equal(t, cgroup, p.Cgroup)
					assert.Equal(t, runtime.Version(), p.Go)
					assert.Equal(t, os.Getuid(), p.UID)
					assert.NotEmpty(t, p.Build)
					assert.WithinRange(t, p.Started, before.Add(-time.Second), time.Now())
					assert.True(t, p.Alive())
					assert.False(t, Identity{PID: p.PID, Start: p.Start + 1}.Alive(), "another life")
				}
			}
		})
	}
}

func TestFirstRuleHasIt(t *testing.T) {
	t.Parallel()
	s := play(t, "twice-svc", "play-wait")
	require.Equal(t, "ready", s.hear(t))
	found, _ := finderOf(t, Rule{Name: "b", Command: "twice-svc"}, Rule{Name: "a", PID: s.Process.Pid}).Scan(t.Context())
	require.Len(t, found, 1)
	assert.Equal(t, "b", found[0].Rule)
}

func TestNotAGoProgram(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	f := finderOf(t, Rule{PID: cmd.Process.Pid})
	var found []Found
	require.Eventually(t, func() bool { // until it has become sleep
		found, _ = f.Scan(t.Context())
		return len(found) == 1 && found[0].Command == "sleep"
	}, 10*time.Second, 5*time.Millisecond)
	assert.Empty(t, found[0].Go)
	if out, err := exec.Command("readelf", "-n", found[0].Exe).Output(); err == nil {
		assert.Contains(t, string(out), "Build ID: "+found[0].Build)
		assert.Len(t, found[0].Build, 40)
	} else {
		t.Log("readelf cannot be run here, so the build id is not compared: ", err)
	}
}

func TestDeath(t *testing.T) {
	t.Parallel()
	s := play(t, "mortal-svc", "play-wait")
	require.Equal(t, "ready", s.hear(t))
	f := finderOf(t, Rule{Command: "mortal-svc"})
	found, _ := f.Scan(t.Context())
	require.Len(t, found, 1)
	require.NoError(t, s.Process.Kill())
	require.Eventually(t, func() bool { return !found[0].Alive() }, 10*time.Second, time.Millisecond, "a zombie does not live")
	after, blind := f.Scan(t.Context())
	assert.Empty(t, after)
	assert.Empty(t, blind)
	_ = s.Wait()
	assert.False(t, found[0].Alive())
	after, _ = f.Scan(t.Context())
	assert.Empty(t, after)
	for range relist {
		f.Scan(t.Context())
	}
	_, kept := f.lives[s.Process.Pid]
	assert.False(t, kept, "nothing is kept of it")
}

// A pid that comes again is another process, whatever was remembered of it.
func TestAnotherLife(t *testing.T) {
	t.Parallel()
	s := play(t, "again-svc", "play-wait")
	require.Equal(t, "ready", s.hear(t))
	f := finderOf(t, Rule{Command: "again-svc"})
	found, _ := f.Scan(t.Context())
	require.Len(t, found, 1)
	f.lives[s.Process.Pid].start-- // of the life before
	f.lives[s.Process.Pid].proc.Start--
	f.lives[s.Process.Pid].next = time.Now().Add(time.Hour)
	again, _ := f.Scan(t.Context())
	assert.Equal(t, found, again)
}

func TestExecInPlace(t *testing.T) {
	t.Parallel()
	target := play(t, "after-svc", "play-wait").Path
	s := play(t, "before-svc", "play-exec", target, "play-wait")
	require.Equal(t, "ready", s.hear(t))
	f := finderOf(t, Rule{Name: "before", Command: "before-svc"}, Rule{Name: "after", PID: s.Process.Pid, Command: "after-svc"})
	was, _ := f.Scan(t.Context())
	require.Len(t, was, 1)
	assert.Equal(t, "before", was[0].Rule)
	require.Equal(t, "ready", s.say(t, "go"))
	now, _ := f.Scan(t.Context())
	require.Len(t, now, 1)
	assert.Equal(t, "after", now[0].Rule)
	assert.Equal(t, target, now[0].Exe)
	assert.Equal(t, was[0].Start, now[0].Start)
}

func TestDeletedExecutable(t *testing.T) {
	t.Parallel()
	s := play(t, "upgraded-svc", "play-wait")
	odd := play(t, "odd (deleted)", "play-wait")
	require.Equal(t, "ready", s.hear(t))
	require.Equal(t, "ready", odd.hear(t))
	f := finderOf(t, Rule{Exe: s.Path}, Rule{Exe: odd.Path})
	found, _ := f.Scan(t.Context())
	require.Len(t, found, 2)
	build := found[0].Build
	require.NoError(t, os.Remove(s.Path)) // the file has other names still
	found, _ = f.Scan(t.Context())
	require.Len(t, found, 2)
	got := map[string]string{found[0].Exe: found[0].Build, found[1].Exe: found[1].Build}
	assert.Equal(t, map[string]string{s.Path: build, odd.Path: build}, got)
}

func TestPort(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			host := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network]
			first := play(t, "port-svc", "play-listen", network, host)
			require.Equal(t, "ready", first.hear(t))
			answer := first.say(t, "listen")
			port, err := strconv.Atoi(answer)
			if err != nil && network == "tcp6" {
				t.Skip("no IPv6 here: ", answer)
			}
			require.NoError(t, err)
			require.Equal(t, "closed", first.say(t, "close"))

			s := play(t, "port-svc", "play-listen", network, strings.TrimSuffix(host, "0")+answer)
			require.Equal(t, "ready", s.hear(t))
			f := finderOf(t, Rule{Port: port}, Rule{Name: "late", Command: "port-svc", Port: port})
			found, _ := f.Scan(t.Context())
			require.Empty(t, found, "nobody listens yet")
			for _, l := range f.lives {
				l.next = time.Now().Add(time.Hour) // old processes, judged already
			}
			require.Equal(t, answer, s.say(t, "listen"))
			found, _ = f.Scan(t.Context())
			require.Equal(t, []int{s.Process.Pid}, pids(found), "who holds the socket, and nobody else in the namespace")
			require.Equal(t, "closed", s.say(t, "close"))
			found, _ = f.Scan(t.Context())
			assert.Equal(t, []int{s.Process.Pid}, pids(found), "it shuts down: not the time to look away")
		})
	}
}

// What is in a process's root is its own making.
func TestHostileLabelFile(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a root of its own needs chroot(2), which root alone may do")
	}
	root, outside := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "labels")
	const labels = "app=\"orders\"\n"
	require.NoError(t, os.WriteFile(secret, []byte(labels), 0o644))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	link := func(to, name string) { require.NoError(t, os.Symlink(to, filepath.Join(root, name))) }
	write("plain", labels)
	link("/plain", "absolute") // of its own root: as Kubernetes' ..data links, but absolute
	link("plain", "relative")
	link(secret, "out")
	link(strings.Repeat("../", 20)+secret[1:], "up")
	link("loop", "loop")
	write("big", labels+strings.Repeat("#", maxLabels))
	write("broken", "app\n")
	require.NoError(t, syscall.Mkfifo(filepath.Join(root, "fifo"), 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(root, "dir"), 0o755))
	s := play(t, "rooted-svc", "play-chroot", root)
	require.Equal(t, "ready", s.hear(t))

	for file, want := range map[string]string{
		"/plain": "found", "/absolute": "found", "/relative": "found",
		"/out": "", "/up": "", "/missing": "",
		"/loop":           "/loop: a loop of links",
		"/big":            "/big has more than 256 KiB",
		"/broken":         `/broken: line 1 is not key="value"`,
		"/fifo":           "/fifo is not a regular file",
		"/dir":            "/dir is not a regular file",
		"/plain/x":        "not a directory",
		"/../../" + "etc": "/../../etc is not", // or is not there
	} {
		found, blind := finderOf(t, Rule{Name: "r", Command: "rooted-svc", Labels: &Label{file, map[string]string{"app": "orders"}}}).Scan(t.Context())
		assert.Equal(t, want == "found", len(found) == 1, file)
		switch {
		case want == "found", want == "":
			assert.Empty(t, blind, file)
		case len(blind) == 1:
			assert.Equal(t, "rule r: labels of 1 process", blind[0].What)
			assert.Contains(t, blind[0].Why, want)
		default:
			assert.Contains(t, file, "etc", "%v", blind)
		}
	}
}

// Nobody may read root's executables who is not root: that is said, and once.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, to look at its processes as somebody else")
	}
	s := play(t, "roots-svc", "play-wait")
	require.Equal(t, "ready", s.hear(t))
	dir, err := os.MkdirTemp("/tmp", "") // t.TempDir is root's alone
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	self, err := os.ReadFile(s.Path)
	require.NoError(t, err)
	scanner := filepath.Join(dir, "scanner")
	require.NoError(t, os.WriteFile(scanner, self, 0o755))
	cmd := exec.Command(scanner, "play-scan", s.Path)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.Output()
	require.NoError(t, err)
	var got struct {
		Found int
		Blind []memguard.Blind
	}
	require.NoError(t, json.Unmarshal(out, &got))
	assert.Zero(t, got.Found)
	require.Len(t, got.Blind, 1, "one for all processes")
	assert.Regexp(t, `^rule x: exe of \d+ process(es)?$`, got.Blind[0].What)
	assert.Equal(t, "permission denied: the sidecar must run as the user of the process, or with the right to trace it", got.Blind[0].Why)
}

// Who asks for a cgroup does not mean memguard itself.
func TestBystanders(t *testing.T) {
	t.Parallel()
	s := play(t, "memguard", "play-wait")
	require.Equal(t, "ready", s.hear(t))
	cgroup, err := (&facts{pid: s.Process.Pid}).cgroup()
	require.NoError(t, err)
	found, _ := finderOf(t, Rule{Cgroup: cgroup}).Scan(t.Context())
	assert.NotContains(t, pids(found), s.Process.Pid)
	assert.NotContains(t, pids(found), os.Getpid())
	assert.NotEmpty(t, found, "the go command at least is in our cgroup")
	found, _ = finderOf(t, Rule{Exe: s.Path}, Rule{PID: os.Getpid()}).Scan(t.Context())
	assert.ElementsMatch(t, []int{s.Process.Pid, os.Getpid()}, pids(found), "who asks for them gets them")
}

func TestScanEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("enough"))
	found, blind := finderOf(t, Rule{PID: os.Getpid()}).Scan(ctx)
	assert.Empty(t, found)
	assert.Equal(t, []memguard.Blind{{What: "processes", Why: "enough"}}, blind, "half a scan is none")
}

func TestHandedOut(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pid, before, cursor int
		want                bool
	}{
		{10, 0, 20, true}, {10, 20, 0, true}, // unknown
		{10, 10, 10, false}, {11, 10, 10, false}, {9, 10, 10, false}, // none was
		{10, 10, 12, false}, {11, 10, 12, true}, {12, 10, 12, true}, {13, 10, 12, false},
		{500, 32000, 400, false}, {32001, 32000, 400, true}, {400, 32000, 400, true}, {301, 32000, 400, true}, // round
	} {
		assert.Equal(t, test.want, handedOut(test.pid, test.before, test.cursor), "%+v", test)
	}
	before := lastPID()
	require.Positive(t, before)
	s := play(t, "cursor-svc", "play-wait")
	require.Equal(t, "ready", s.hear(t))
	assert.True(t, handedOut(s.Process.Pid, before, lastPID()), "as the kernel here does it")
}

// With a thousand processes that no rule matches and fifty that one does.
func BenchmarkScan(b *testing.B) {
	const others, targets = 1000, 50
	sleep, err := exec.LookPath("sleep")
	require.NoError(b, err)
	for i := range others + targets {
		cmd := exec.Command(sleep, "600")
		if i < targets {
			cmd.Args[0] = "bench-target"
		}
		require.NoError(b, cmd.Start())
		b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	for _, bench := range []struct {
		name string
		rule Rule
		want int
	}{
		{"command", Rule{Command: "bench-target"}, targets},
		{"exe", Rule{Exe: "/no/such"}, 0},
		{"port", Rule{Port: 1}, 0},
	} {
		b.Run(bench.name, func(b *testing.B) {
			f := finderOf(b, bench.rule)
			f.Scan(b.Context())
			age(f)
			b.ReportAllocs()
			var found []Found
			for b.Loop() {
				found, _ = f.Scan(b.Context())
			}
			require.Len(b, found, bench.want)
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)*100, "%core-at-1Hz")
		})
	}
	b.Run("first", func(b *testing.B) { // everything is new
		b.ReportAllocs()
		for b.Loop() {
			finderOf(b, Rule{Command: "bench-target"}).Scan(b.Context())
		}
	})
}

// age makes the processes old ones, as those of a host mostly are.
func age(f *Finder) {
	for _, l := range f.lives {
		l.next = time.Now().Add(time.Hour)
	}
}
