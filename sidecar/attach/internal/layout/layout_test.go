// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLookup(t *testing.T) {
	t.Parallel()
	for minor := 21; minor <= 27; minor++ {
		for _, arch := range []string{"amd64", "arm64"} {
			l, err := Lookup(fmt.Sprintf("go1.%d.3", minor), arch)
			require.NoError(t, err)
			assert.Equal(t, minor, l.Minor)
			assert.Equal(t, arch, l.Arch)
			assert.Greater(t, len(l.WaitReasons), 30)
			assert.Contains(t, l.WaitReasons, "chan receive")
			assert.Equal(t, uint32(8), l.SizeClasses[1])
			// Every global that a figure depends on is found in several functions.
			functions := map[string]map[string]bool{}
			for _, r := range l.Refs {
				if functions[r.Global] == nil {
					functions[r.Global] = map[string]bool{}
				}
				functions[r.Global][r.Func] = true
			}
			for _, g := range Globals {
				if !g.Optional {
					assert.GreaterOrEqual(t, len(functions[g.Name]), 3, "%s in %s", g.Name, l.From)
				}
			}
		}
	}
	a, err := Lookup("go1.26.8-X:nogreenteagc", "amd64")
	require.NoError(t, err)
	b, err := Lookup("go1.26.8", "amd64")
	require.NoError(t, err)
	assert.NotEqual(t, a.Fields, b.Fields)
	for _, v := range []string{"go1.20.14", "go1.99", "devel go1.28-0123456", "", "go2.1"} {
		_, err := Lookup(v, "amd64")
		assert.ErrorIs(t, err, ErrUnknown, v)
	}
	_, err = Lookup("go1.26.8", "riscv64")
	assert.ErrorIs(t, err, ErrUnknown)
}

// TestShared: who looks up the same table at a time has one between them, and it goes
// with the last of them.
func TestShared(t *testing.T) {
	t.Parallel()
	const n = 50
	var all [n]*Layout
	var looks sync.WaitGroup
	for i := range all {
		looks.Go(func() { all[i], _ = Lookup(fmt.Sprintf("go1.21.%d", i%9), "arm64") }) // that no other test holds
	}
	looks.Wait()
	for _, l := range all {
		require.NotNil(t, l)
		require.Same(t, all[0], l)
	}
	other, err := Lookup("go1.21.3", "amd64")
	require.NoError(t, err)
	assert.NotSame(t, all[0], other)
	want := *all[0]
	held := weak.Make(all[0])
	clear(all[:])
	require.Eventually(t, func() bool { runtime.GC(); return held.Value() == nil }, time.Minute, time.Millisecond, "nobody has it in use")
	again, err := Lookup("go1.21.3", "arm64")
	require.NoError(t, err)
	assert.Equal(t, want, *again)
}

// BenchmarkLookup is one more target of a release that is watched already; the other
// way is to parse its table again.
func BenchmarkLookup(b *testing.B) {
	first, err := Lookup("go1.26.8", "amd64")
	require.NoError(b, err)
	packed, err := tables.ReadFile("tables/go1.26-amd64.json.gz")
	require.NoError(b, err)
	var with, without time.Duration
	b.ReportAllocs()
	for b.Loop() {
		begin := time.Now()
		_, err = Lookup("go1.26.8", "amd64")
		with += time.Since(begin)
		begin = time.Now()
		_, _ = unpack(packed)
		without += time.Since(begin)
	}
	require.NoError(b, err)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	own, err := unpack(packed)
	require.NoError(b, err)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(first)
	runtime.KeepAlive(own)
	b.ReportMetric(without.Seconds()/with.Seconds(), "times-faster")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc), "B-saved")
}

// TestKnownOffsets holds tables against offsets that were found independently,
// with a debugger's eyes.
func TestKnownOffsets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		minor                       int
		status, alloc, spans, delta Off
	}{
		{21, 144, 40, 65864, 1176}, {22, 144, 40, 65864, 1176}, {23, 152, 40, 65864, 1176}, {24, 152, 48, 65864, 1176},
		{25, 144, 48, 65864, 1168}, {26, 144, 48, 65864, 1168}, {27, 144, 48, 65864, 1168},
	} {
		l, err := Lookup(fmt.Sprintf("go1.%d", c.minor), "amd64")
		require.NoError(t, err)
		assert.Equal(t, c.status, l.G.Status)
		assert.Equal(t, c.alloc, l.MCache.Alloc)
		assert.Equal(t, c.spans, l.MHeap.AllSpans)
		assert.Equal(t, c.delta, l.Delta.Size)
		assert.Equal(t, c.minor < 27, l.Bucket.Bytes.Has())
	}
}

// TestDrift compares the table of the release that runs this test with the
// debugging information that this release writes: it fails when a field moves.
func TestDrift(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "truth")
	c := exec.Command("go", "build", "-o", bin, ".")
	c.Dir = "../../testdata/truth"
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=", "GOWORK=off")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	f, err := elf.Open(bin)
	require.NoError(t, err)
	defer f.Close()
	d, err := f.DWARF()
	require.NoError(t, err)
	got, err := FromDWARF(d)
	require.NoError(t, err)
	want, err := Lookup(runtime.Version(), runtime.GOARCH)
	require.NoError(t, err)
	assert.Equal(t, want.Fields, *got)
}

func TestEncode(t *testing.T) {
	t.Parallel()
	l, err := Lookup("go1.25", "amd64")
	require.NoError(t, err)
	b, err := Encode(l)
	require.NoError(t, err)
	again, err := Decode(b)
	require.NoError(t, err)
	assert.Equal(t, l.Fields, again.Fields)
	assert.Equal(t, l.Refs, again.Refs)
}

func TestARM64Addresses(t *testing.T) {
	t.Parallel()
	code := func(words ...uint32) (b []byte) {
		for _, w := range words {
			b = append(b, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
		}
		return b
	}
	for name, c := range map[string]struct {
		code []byte
		want []uint64
	}{
		// adrp x0, +1 page; add x0, x0, #0x10
		"add": {code(0xb0000000, 0x91004000), []uint64{0x2010}},
		// adrp x1, -1 page; ldr x2, [x1, #8]
		"ldr":            {code(0xf0ffffe1, 0xf9400422), []uint64{0x8}},
		"other register": {code(0xb0000000, 0x91004021), nil},
		"nothing":        {code(0xd503201f, 0xd503201f), nil},
	} {
		var got []uint64
		for _, addr := range Addresses("arm64", c.code, 0x1000) {
			got = append(got, addr)
		}
		assert.Equal(t, c.want, got, name)
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, s := range []string{"go1.26.8", "go1.24.11 X:noswissmap", "go1.26.8-X:nogreenteagc", "devel +abc", "go1.", "go1.21rc2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		minor, _, err := ParseVersion(s)
		if err == nil {
			assert.True(t, minor > 0 && minor <= 1000)
		} else {
			assert.ErrorIs(t, err, ErrUnknown)
		}
	})
}

// FuzzDecode reads tables that no generator wrote. One that is taken must be
// safe to allocate and index by.
func FuzzDecode(f *testing.F) {
	l, err := Lookup("go1.24", "amd64")
	require.NoError(f, err)
	l.Refs = l.Refs[:3]
	b, err := Encode(l)
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(strings.Replace(string(b), `"mspan":160`, `"mspan":16000000`, 1)))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Decode(b)
		if err != nil {
			assert.Nil(t, l)
			return
		}
		assert.LessOrEqual(t, l.G.Size, Off(4096))
		assert.LessOrEqual(t, l.MCache.Alloc+8*l.MCache.Classes, l.MCache.Size)
		assert.LessOrEqual(t, l.MStats.HeapStats+3*l.Delta.Size, l.MStats.Size)
	})
}

// FuzzLocate votes on machine code that is none.
func FuzzLocate(f *testing.F) {
	f.Add([]byte{0x48, 0x8d, 5, 0, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, code []byte, arm bool) {
		version, arch := "go1.26", "amd64"
		if arm {
			arch = "arm64"
		}
		l, err := Lookup(version, arch)
		require.NoError(t, err)
		in := func(addr uint64) bool { return addr >= 0x1000 && addr < 0x100000 }
		all := map[string]Code{}
		for i, r := range l.Refs {
			all[r.Func] = Code{PC: uint64(0x1000 + i), Bytes: code}
		}
		for _, addr := range l.Locate(all, in) {
			assert.True(t, in(addr))
		}
	})
}
