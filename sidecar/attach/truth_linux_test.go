// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"debug/elf"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach/internal/goexe"
	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// builds are the targets of this run: the current toolchain in all variants, and
// with MEMGUARD_TOOLCHAINS=1 every supported release.
func builds(t *testing.T) []build {
	strip, pie := "-ldflags=-s,-w", "-buildmode=pie"
	out := []build{{release: current}, {release: current, flags: strip}, {release: current, flags: pie}, {release: current, flags: pie + " " + strip},
		{release: current, flags: "-trimpath " + strip}}
	if _, err := exec.LookPath("cc"); err == nil {
		out = append(out, build{release: current, cgo: true}, build{release: current, flags: strip, cgo: true})
	} else {
		t.Log("no C compiler: cgo targets are left out")
	}
	if os.Getenv("MEMGUARD_TOOLCHAINS") == "" {
		t.Log("MEMGUARD_TOOLCHAINS=1 tests every supported release")
		return out
	}
	for _, r := range releases {
		if r != current {
			out = append(out, build{release: r}, build{release: r, flags: strip}, build{release: r, flags: pie + " " + strip},
				build{release: r, flags: "-trimpath " + strip}, build{release: r, flags: strip, cgo: true}, build{release: r, flags: pie + " " + strip, cgo: true})
		}
	}
	// Machine code that is not that of the tables: another patch release, another
	// instruction set, and with the race detector's calls in it.
	return append(out, build{release: "go1.24.11", flags: strip}, build{release: current, flags: strip, env: "GOAMD64=v3"},
		build{release: current, flags: "-race " + strip, cgo: true})
}

// TestTruth compares with what the target says of itself between two snapshots.
func TestTruth(t *testing.T) {
	for _, b := range builds(t) {
		t.Run(strings.ReplaceAll(b.String(), " ", "_"), func(t *testing.T) {
			p := start(t, compile(t, b), "-goroutines=1000", "-finalizers=500")
			checkTruth(t, p, b)
		})
	}
}

func checkTruth(t *testing.T, p *truth, b build) {
	target := open(t, p.pid())
	p.truth(t) // whatever it does once only, as growing buffers, it has done then
	before, err := target.Snapshot(t.Context(), Spans|Goroutines)
	require.NoError(t, err)
	said := p.truth(t)
	after, err := target.Snapshot(t.Context(), Spans|Goroutines)
	require.NoError(t, err)
	assert.Empty(t, before.Unknown)

	// The truth call itself allocates.
	const slack = 32 << 10
	m := &said.MemStats
	for _, c := range []struct {
		name  string
		get   func(*Snapshot) memguard.Bytes
		want  uint64
		slack uint64
	}{
		{"HeapAlloc", func(s *Snapshot) memguard.Bytes { return s.Heap.Objects }, m.HeapAlloc, slack},
		{"TotalAlloc", func(s *Snapshot) memguard.Bytes { return s.Heap.TotalAlloc }, m.TotalAlloc, slack},
		{"Mallocs", func(s *Snapshot) memguard.Bytes { return s.Heap.Mallocs }, m.Mallocs, 200},
		{"Frees", func(s *Snapshot) memguard.Bytes { return s.Heap.Frees }, m.Frees, 200},
		{"unused", func(s *Snapshot) memguard.Bytes { return s.Heap.Unused }, m.HeapInuse - m.HeapAlloc, 2 * slack},
		{"free", func(s *Snapshot) memguard.Bytes { return s.Heap.Free }, m.HeapIdle - m.HeapReleased, 4 * slack},
		{"HeapReleased", func(s *Snapshot) memguard.Bytes { return s.Heap.Released }, m.HeapReleased, 4 * slack},
		{"StackInuse", func(s *Snapshot) memguard.Bytes { return s.Heap.Stacks }, m.StackInuse, slack},
		{"Sys", func(s *Snapshot) memguard.Bytes { return s.Heap.Total }, m.Sys, 0},
		{"metadata", func(s *Snapshot) memguard.Bytes { return s.Heap.Metadata }, m.MSpanSys + m.MCacheSys + m.BuckHashSys + m.GCSys + m.OtherSys, 0},
		{"NextGC", func(s *Snapshot) memguard.Bytes { return s.Heap.Goal }, m.NextGC, 0},
		{"NumGC", func(s *Snapshot) memguard.Bytes { return s.GC.Cycles }, uint64(m.NumGC), 0},
		{"NumForcedGC", func(s *Snapshot) memguard.Bytes { return s.GC.Forced }, uint64(m.NumForcedGC), 0},
		{"goroutines", func(s *Snapshot) memguard.Bytes { return s.Goroutines.Total }, said.Goroutines, 0},
	} {
		a, ok := c.get(before).Get()
		z, ok2 := c.get(after).Get()
		if assert.True(t, ok && ok2, "%s is unknown: %v", c.name, before.Unknown) {
			assert.LessOrEqual(t, min(a, z), c.want+c.slack, c.name)
			assert.GreaterOrEqual(t, max(a, z)+c.slack, c.want, c.name)
		}
	}
	percent, _ := before.GC.Percent.Get()
	assert.Equal(t, said.GCPercent, percent)
	pause, _ := after.GC.PauseTotal.Get()
	assert.EqualValues(t, m.PauseTotalNs, pause)
	assert.Equal(t, "off", before.GC.Phase)
	last, _ := after.GC.Last.Get()
	assert.EqualValues(t, m.LastGC, last)

	// Size classes, which MemStats has up to 18 KiB.
	for i, c := range before.SizeClasses[1:len(m.BySize)] {
		row := m.BySize[i+1]
		assert.EqualValues(t, row.Size, c.Size)
		assert.InDelta(t, float64(row.Mallocs-row.Frees), float64(c.Objects), 64, "objects of %d bytes", c.Size)
	}
	for _, c := range before.Checks {
		assert.InEpsilon(t, float64(c.Want)+1, float64(c.Got)+1, 0.01, c.What)
	}
	checkClusters(t, before, 1000)

	pending, ok := before.Finalizers.Pending.Get()
	assert.True(t, ok)
	assert.EqualValues(t, 500, pending)
	require.Len(t, before.Finalizers.Runners, 1)
	r := before.Finalizers.Runners[0]
	assert.Equal(t, "chan receive", r.Reason)
	assert.True(t, slices.ContainsFunc(r.Stack, func(f Frame) bool { return strings.HasPrefix(f.Func, "main.main.func") }), "%v", r.Stack)

	rt := before.Runtime()
	assert.Equal(t, FromAttach, rt.Origin)
	assert.Equal(t, before.Heap.Total, rt.Total)
	assert.NotEmpty(t, before.Arenas)
}

// checkClusters compares the clusters with what the target started.
func checkClusters(t *testing.T, s *Snapshot, n uint64) {
	want := map[string]uint64{"main.receiver": n * 6 / 10, "main.selecter": n * 2 / 10, "main.locker": n / 10, "main.dive": n / 10}
	reasons := map[string]string{"main.receiver": "chan receive", "main.selecter": "select", "main.dive": "chan receive"}
	for _, c := range s.Goroutines.Clusters {
		if w, ok := want[c.Start]; ok {
			assert.Equal(t, w, c.Count, c.Start)
			assert.Equal(t, "waiting", c.State)
			assert.Equal(t, "main.main", c.CreatedBy.Func)
			assert.Empty(t, c.StackWhy)
			assert.Equal(t, c.Start, c.Stack[len(c.Stack)-1].Func)
			if r := reasons[c.Start]; r != "" {
				assert.Equal(t, r, c.Reason)
			}
			delete(want, c.Start)
		}
	}
	assert.Empty(t, want)
}

// TestDebuggingInformation reads a target by what it says of itself, as one of a
// release without a table is read.
func TestDebuggingInformation(t *testing.T) {
	p := start(t, compile(t, build{release: current}), "-goroutines=1000")
	byTable := open(t, p.pid())
	d, err := byTable.exe.DWARF()
	require.NoError(t, err)
	fields, err := layout.FromDWARF(d)
	require.NoError(t, err)
	assert.Equal(t, byTable.layout.Fields, *fields)
	l, err := layout.Complete(fields, byTable.exe.Arch)
	require.NoError(t, err)
	target := &Target{pid: p.pid()}
	defer target.Close()
	require.NoError(t, target.openWith(l, maxCheck))
	s, err := target.Snapshot(t.Context(), Spans|Goroutines)
	require.NoError(t, err)
	assert.Empty(t, s.Unknown)
	n, _ := s.Goroutines.Total.Get()
	assert.EqualValues(t, 1001, n)
}

// TestReplaced reads a target whose executable was replaced by another after it
// had started.
func TestReplaced(t *testing.T) {
	install := installer(t)
	bin := install(compile(t, build{release: current, flags: "-ldflags=-s,-w"}), "service", 0o755)
	p := start(t, bin, "-goroutines=1000")
	require.NoError(t, os.Remove(bin))
	require.NoError(t, os.WriteFile(bin, []byte("#!/bin/sh\n"), 0o755))
	s, err := open(t, p.pid()).Snapshot(t.Context(), Goroutines)
	require.NoError(t, err)
	checkClusters(t, s, 1000)
}

// TestFork: goroutines that differ in nothing but one frame are two clusters.
func TestFork(t *testing.T) {
	p := start(t, compile(t, build{release: current}), "-goroutines=0")
	p.ask(t, "fork 1000")
	s, err := open(t, p.pid()).Snapshot(t.Context(), Goroutines)
	require.NoError(t, err)
	got := map[string]uint64{}
	for _, c := range s.Goroutines.Clusters {
		if c.Start == "main.main.gowrap1" || c.Start == "main.fork" || strings.HasPrefix(c.Start, "main.main.") {
			for _, f := range c.Stack {
				got[f.Func] += c.Count
			}
		}
	}
	assert.EqualValues(t, 500, got["main.left"])
	assert.EqualValues(t, 500, got["main.right"])
}

// TestLocateARM64 finds the variables of a program for arm64, which does not
// run here, and compares with its symbol table.
func TestLocateARM64(t *testing.T) {
	for _, r := range []build{{release: current, env: "GOARCH=arm64"}, {release: current, env: "GOARCH=amd64"}} {
		f, err := os.Open(compile(t, r))
		require.NoError(t, err)
		defer f.Close()
		exe, err := goexe.Open(f)
		require.NoError(t, err)
		l, err := layout.Lookup(exe.Version, exe.Arch)
		require.NoError(t, err)
		var names []string
		for _, g := range layout.Globals {
			names = append(names, g.Name)
		}
		want := exe.Globals(names)
		e, err := elf.NewFile(f)
		require.NoError(t, err)
		symbols, err := e.Symbols()
		require.NoError(t, err)
		i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "runtime.text" })
		require.GreaterOrEqual(t, i, 0)
		target := &Target{exe: exe, layout: l}
		assert.Equal(t, want, l.Locate(target.codeAt(symbols[i].Value), exe.Writable), r.env)
	}
}

// TestSettings reads the goal that other settings lead to.
func TestSettings(t *testing.T) {
	for _, env := range [][]string{
		{"GOGC=off", "GOMEMLIMIT=100MiB"}, {"GOGC=50", "GOMEMLIMIT=24MiB"}, {"GOGC=off"}, {"GOGC=400"}, {"GOGC=100", "GOMEMLIMIT=1MiB"},
	} {
		t.Run(strings.Join(env, " "), func(t *testing.T) {
			c := exec.Command(compile(t, build{release: current}), "-goroutines=100", "-heap=16")
			c.Env = append(os.Environ(), env...)
			p := startCommand(t, c)
			target := open(t, p.pid())
			p.truth(t)
			before, err := target.Snapshot(t.Context(), 0)
			require.NoError(t, err)
			said := p.truth(t)
			after, err := target.Snapshot(t.Context(), 0)
			require.NoError(t, err)
			percent, _ := after.GC.Percent.Get()
			assert.Equal(t, said.GCPercent, percent)
			limit, _ := after.GC.MemoryLimit.Get()
			if said.Limit == math.MaxInt64 {
				said.Limit = memguard.Unlimited
			}
			assert.Equal(t, said.Limit, limit)
			// Under a limit the goal follows what else is mapped.
			a, _ := before.Heap.Goal.Get()
			z, _ := after.Heap.Goal.Get()
			const slack = 1 << 20
			assert.LessOrEqual(t, min(a, z), said.MemStats.NextGC+slack)
			assert.GreaterOrEqual(t, max(a, z)+slack, said.MemStats.NextGC)
			trigger, _ := after.Heap.Trigger.Get()
			assert.LessOrEqual(t, trigger, z)
		})
	}
}
