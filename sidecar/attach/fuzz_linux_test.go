// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/memguard/memguard-go/sidecar/attach/internal/goexe"
	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
	"github.com/memguard/memguard-go/sidecar/attach/internal/procmem"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hostile is a target whose memory is what a fuzzer makes it: the reading side
// reads its own process, and every variable of the runtime is where the fuzzer's
// bytes are. A word whose highest byte is 0xfe becomes a pointer into them, so
// lists can have cycles.
func hostile(tb testing.TB, data []byte) (*Target, []uint64) {
	l, err := layout.Lookup(current, runtime.GOARCH)
	require.NoError(tb, err)
	f, err := os.Open("/proc/self/exe")
	require.NoError(tb, err)
	tb.Cleanup(func() { f.Close() })
	exe := hostileExe(tb, f)
	mem, err := procmem.Open(os.Getpid())
	require.NoError(tb, err)
	// Room for the biggest structure behind every byte that can be pointed to.
	memory := make([]uint64, 1<<15)
	n := uint64(len(memory)) * 8
	base := uint64(uintptr(unsafe.Pointer(&memory[0])))
	for i := range memory {
		var w uint64
		for j := range 8 {
			if len(data) > 0 {
				w |= uint64(data[(i*8+j)%len(data)]) << (8 * j)
			}
		}
		if w>>56 == 0xfe {
			w = base + w%n&^7
		}
		memory[i] = w
	}
	stat, err := os.Open("/proc/self/stat")
	require.NoError(tb, err)
	tb.Cleanup(func() { stat.Close() })
	t := &Target{pid: os.Getpid(), file: f, exe: exe, layout: l, mem: mem, alive: stat, globals: map[string]uint64{},
		text: base, gofunc: base}
	for i, g := range layout.Globals {
		t.globals[g.Name] = base + uint64(i)*1024%n
	}
	t.bias = base - exe.Module
	t.anchor = [2]uint64{memory[0], memory[1]}
	return t, memory
}

var hostileFile *goexe.File

func hostileExe(tb testing.TB, f *os.File) *goexe.File {
	if hostileFile == nil {
		var err error
		hostileFile, err = goexe.Open(f)
		require.NoError(tb, err)
	}
	return hostileFile
}

// FuzzHostileTarget reads runtimes that are none: every list may have a cycle and
// every count may be absurd. Reading must end, in little memory, and a figure
// that it gives must be one that a process can have.
func FuzzHostileTarget(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0xff})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 0, 0, 0})
	f.Add(bytes.Repeat([]byte{8, 0, 0, 0, 0, 0, 0, 0xfe, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0xfe}, 30))
	f.Fuzz(func(t *testing.T, data []byte) {
		target, memory := hostile(t, data)
		defer runtime.KeepAlive(memory)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s := &Snapshot{}
		sc, err := target.scalars(s, len(data)%3 != 0)
		if err != nil {
			sc = &scalars{has: map[string]bool{}}
		}
		// Each part on its own, whatever the scalars said.
		words := func(i int) slice { return slice{memory[i%len(memory)], memory[(i+1)%len(memory)]} }
		sc.allgs = words(16)
		if sc.gc == nil {
			sc.gc = make([]byte, target.layout.GC.Size)
		}
		for _, name := range []string{"runtime.mbuckets", "runtime.MemProfileRate", "runtime.mProfCycle", "runtime.allfin"} {
			sc.has[name] = true
		}
		sc.mbuckets, sc.rate, sc.allfin = memory[33], 512, memory[34]
		_ = target.spans(ctx, s, sc)
		_ = target.goroutines(ctx, s, sc, len(data)%2 == 0)
		_ = target.heapProfile(ctx, s, sc)
		_, _ = target.pendingFinalizers(sc)
		_ = target.selfCheck(time.Millisecond)
		runtime.ReadMemStats(&after)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<30))
		for _, c := range s.SizeClasses {
			assert.LessOrEqual(t, c.Objects, c.Slots)
			assert.LessOrEqual(t, c.Free+c.Tail, c.Bytes)
		}
		var out bytes.Buffer
		if s.heap != nil {
			assert.NoError(t, s.WriteHeap(&out))
		}
		if s.Goroutines.Clusters != nil {
			assert.NoError(t, s.WriteGoroutines(&out))
		}
	})
}

// FuzzUnwind unwinds stacks of arbitrary bytes through real function tables.
func FuzzUnwind(f *testing.F) {
	f.Add(uint64(0), []byte{})
	f.Add(uint64(4096), bytes.Repeat([]byte{0, 0x10, 0, 0, 0, 0, 0, 0}, 64))
	exe, err := os.Open("/proc/self/exe")
	require.NoError(f, err)
	defer exe.Close()
	file := hostileExe(f, exe)
	f.Fuzz(func(t *testing.T, pc uint64, stack []byte) {
		target := &Target{exe: file, text: 0}
		s := stacks{t: target}
		pcs, _, err := s.unwind(&g{pc: pc, hi: uint64(len(stack))}, stack)
		assert.LessOrEqual(t, len(pcs), maxDepth)
		for _, pc := range pcs {
			_, ok := target.fn(pc)
			assert.True(t, ok)
			assert.LessOrEqual(t, len(target.frames.expand(target, pc)), 65)
		}
		if pc >= file.Table.TextSize() {
			assert.Error(t, err)
		}
	})
}

func FuzzCredentials(f *testing.F) {
	f.Add("Uid:\t1000\t1000\t1000\t1000\nGid:\t1\t1\t1\t1\nCapPrm:\t0000000000000000\nCapEff:\t00000000a80425fb\n")
	f.Add("Uid:\n")
	f.Fuzz(func(t *testing.T, status string) {
		c, err := parseCredentials(status)
		if err == nil {
			rule, why, fix := judge(c, c, "1", "x", "y")
			assert.NotEqual(t, RuleUID == rule && c.uids[0] == c.uids[1] && c.uids[1] == c.uids[2] && c.gids[0] == c.gids[1] && c.gids[1] == c.gids[2], true)
			assert.NotEmpty(t, why)
			assert.NotEmpty(t, fix)
		}
	})
}
