// SPDX-License-Identifier: Apache-2.0

package memguard_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
	"github.com/memguard/memguard-go/scavenge/smaps"
)

// The ledger closes on real programs, and the right row holds the bytes. Each
// case of testdata/hold brings itself into a state that it knows by
// construction, and its ledger is taken from inside and from outside.
func TestLedgerCloses(t *testing.T) {
	l := newLab(t)
	for _, c := range []holdCase{
		{name: "live", pkg: inPureGo},
		{name: "dead", pkg: inPureGo},
		{name: "unused", pkg: inPureGo},
		{name: "free", pkg: inPureGo},
		{name: "stacks", pkg: inPureGo},
		{name: "untouched", pkg: inPureGo},
		{name: "thp", pkg: inPureGo, then: wantHugeHeap},
		{name: "thp-refill", pkg: inPureGo, then: wantHugeHeap},
		{name: "lazyfree", pkg: inPureGo, env: "GODEBUG=madvdontneed=0"},
		{name: "anon", pkg: inPureGo},
		{name: "anon-many", pkg: inPureGo},
		{name: "anon-aligned", pkg: inPureGo, hidden: "only the address of a heap object tells it from an arena"},
		{name: "file-shared", pkg: inPureGo},
		{name: "file-private", pkg: inPureGo},
		{name: "file-dirty", pkg: inPureGo, then: wantCopies},
		{name: "memfd", pkg: inPureGo},
		{name: "devshm", pkg: inPureGo},
		{name: "shared-anon", pkg: inPureGo},
		{name: "c-arenas", pkg: inC, then: wantArenas},
		{name: "c-big-arena", pkg: inC},
		{name: "c-freed", pkg: inC},
		{name: "c-brk", pkg: inC},
		{name: "c-mmap", pkg: inC},
		{name: "c-stacks", pkg: inC},
		{name: "c-and-go", pkg: inC},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.pkg == inC {
				needCgo(t)
			}
			l.look(t, c, l.build(t, c.pkg, ""), nil)
		})
	}
}

// The shapes of mappings depend on how a program is built.
func TestLedgerClosesBuilds(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("not with -short: builds the standard library again for each")
	}
	l := newLab(t)
	for _, b := range []struct {
		name, env, flag string
		others          map[string]int64
	}{
		{"static", "CGO_ENABLED=0", "-trimpath", nil},
		{"pie", "CGO_ENABLED=0", "-buildmode=pie", nil},
		{"race", "CGO_ENABLED=1", "-race", map[string]int64{
			memguard.RowAnon:   1 << 30, // the race detector's shadow of the heap
			memguard.RowBinary: 24 * held.MiB,
		}},
	} {
		t.Run(b.name, func(t *testing.T) {
			if b.name == "race" {
				needCgo(t)
			}
			bin := l.build(t, inPureGo, b.env, b.flag)
			for _, name := range []string{"live", "stacks", "anon"} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					l.look(t, holdCase{name: name}, bin, b.others)
				})
			}
		})
	}
}

// Programs of other toolchains are looked at from outside only. Before Go 1.26,
// say, the heap always began at the same address.
func TestLedgerClosesToolchains(t *testing.T) {
	if os.Getenv("MEMGUARD_TOOLCHAINS") == "" {
		t.Skip("downloads other toolchains: only with MEMGUARD_TOOLCHAINS=1")
	}
	l := newLab(t)
	src, err := os.ReadFile("testdata/hold/holdold/main.go")
	require.NoError(t, err)
	for _, version := range []string{"go1.21.13", "go1.22.12", "go1.23.12", "go1.24.13", "go1.25.5", "go1.27.3"} {
		t.Run(version, func(t *testing.T) {
			dir := t.TempDir() // this module asks for a newer toolchain
			require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), src, 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module holdold\n\ngo 1.16\n"), 0o600))
			build := exec.Command("go", "build", "-o", "holdold", ".")
			build.Dir = dir
			build.Env = append(os.Environ(), "GOTOOLCHAIN="+version, "GOFLAGS=", "GOWORK=off")
			out, err := build.CombinedOutput()
			require.NoError(t, err, "%s", out)

			cmd := exec.Command(filepath.Join(dir, "holdold"))
			line := hold(t, cmd, (*exec.Cmd).Start)
			amount, err := strconv.ParseInt(strings.TrimSpace(string(line)), 10, 64)
			require.NoError(t, err)
			s, led := survey(t, cmd.Process.Pid)
			assert.Equal(t, version, s.Process.Build)
			l.check(t, processView("outside", led, nil), held.Holds{memguard.RowHeap: amount, memguard.RowAnon: amount})
		})
	}
}

// The ledger is for any process, and closes on those that are not Go's.
func TestLedgerClosesOthers(t *testing.T) {
	l := newLab(t)
	const some = 32 * held.MiB
	interpreter := map[string]int64{memguard.RowBinary: some, memguard.RowFile: some, memguard.RowLibc: some}
	for _, c := range []struct {
		name, script string
		holds        held.Holds
	}{
		{"sh", "echo; read line; exit 0", nil},
		{"python3", "import sys; b = b'x' * (200 << 20); print(flush=True); sys.stdin.read()",
			held.Holds{memguard.RowAnon: 200 * held.MiB}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(c.name); err != nil {
				t.Skip(err)
			}
			cmd := exec.Command(c.name, "-c", c.script)
			hold(t, cmd, (*exec.Cmd).Start)
			s, led := survey(t, cmd.Process.Pid)
			assert.False(t, s.Process.Go)
			l.check(t, processView("outside", led, interpreter), c.holds)
			wantForm(t, led)
			for _, r := range led.Rows {
				assert.False(t, strings.HasPrefix(r.Name, "go/heap"), r.Name)
			}
		})
	}
}

// The ledger of a memory cgroup closes, too.
func TestLedgerClosesCgroup(t *testing.T) {
	l := newLab(t)
	for _, c := range []holdCase{
		{name: "live"},
		{name: "lazyfree", env: "GODEBUG=madvdontneed=0"},
		{name: "thp-split"},
		{name: "file-shared"},
		{name: "file-dirty"},
		{name: "file-locked"},
		{name: "memfd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			box, err := sandbox.New("ledger", 1<<30)
			if errors.Is(err, sandbox.ErrUnsupported) {
				cgrouptest.Skip(t, err)
			}
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, box.Close()) })

			cmd := c.command(t, l.build(t, inPureGo, ""))
			told := tell(t, cmd, box.Start)
			_, led := survey(t, cmd.Process.Pid)
			holds := held.Holds{}
			for row, n := range told.Holds {
				switch {
				case row == memguard.RowProcesses:
					holds["process/"+strconv.Itoa(cmd.Process.Pid)] = n
				case row == memguard.RowShmem, slices.Contains(cgroupRows, row):
					holds[row] = n
				}
			}
			l.check(t, cgroupView("inside", told.Ledger.Cgroup), holds)
			l.check(t, cgroupView("outside", led.Cgroup), holds)
			assert.Equal(t, filepath.Base(box.Dir()), filepath.Base(led.Cgroup.Path))
			kills, err := box.Kills()
			require.NoError(t, err)
			assert.Zero(t, kills)
		})
	}
}

func wantHugeHeap(t *testing.T, s *memguard.Sample, _ *memguard.Ledger) {
	heap := s.Process.Maps.ByKind(smaps.GoHeap)
	n, ok := heap.Bytes(smaps.AnonHugePages)
	assert.True(t, ok && n > 150*held.MiB, "%d bytes of huge pages in the heap", n)
}

// wantCopies: the row says that it is not what one thinks.
func wantCopies(t *testing.T, _ *memguard.Sample, led *memguard.Ledger) {
	i := slices.IndexFunc(led.Rows, func(r memguard.Row) bool { return r.Name == memguard.RowFile })
	assert.Contains(t, led.Rows[i].Note, "private copies")
}

// wantArenas: glibc makes up to eight arenas for each core.
func wantArenas(t *testing.T, s *memguard.Sample, _ *memguard.Ledger) {
	n := 0
	for _, m := range s.Process.Maps.Mappings {
		if rss, ok := m.Bytes(smaps.Rss); m.Kind == smaps.LibcArena && ok && rss > held.MiB {
			n++
		}
	}
	assert.GreaterOrEqual(t, n, 4, "arenas with memory in them")
}
