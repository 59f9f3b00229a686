// SPDX-License-Identifier: Apache-2.0

package goexe

import (
	"bytes"
	"io"
	"os"
	"reflect"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func self(tb testing.TB) (*os.File, *File) {
	r, err := os.Open("/proc/self/exe")
	if err != nil {
		tb.Skip("needs /proc:", err)
	}
	tb.Cleanup(func() { r.Close() })
	f, err := Open(r)
	require.NoError(tb, err)
	return r, f
}

// TestFrames compares with what the runtime says of the same addresses.
func TestFrames(t *testing.T) {
	t.Parallel()
	_, f := self(t)
	assert.Equal(t, runtime.Version(), f.Version)
	assert.Equal(t, runtime.GOARCH, f.Arch)
	if f.PIE {
		t.Skip("addresses are not those of the file")
	}
	entry := runtime.FuncForPC(reflect.ValueOf(TestFrames).Pointer()).Entry()
	var start uint64
	for i := range f.Table.Count() {
		if fn, ok := f.Table.At(i); ok && fn.Name() == "github.com/memguard/memguard-go/sidecar/attach/internal/goexe.TestFrames" {
			start = uint64(entry) - uint64(fn.Entry)
		}
	}
	require.NotZero(t, start)
	seen := 0
	for i := 0; i < f.Table.Count(); i += 7 {
		fn, ok := f.Table.At(i)
		if !ok {
			continue // of no length: a mark that the linker made
		}
		pc := uint64(fn.Entry) + uint64(fn.End-fn.Entry)/2
		want := runtime.FuncForPC(uintptr(start + uint64(fn.Entry)))
		require.NotNil(t, want)
		got, ok := f.Table.Find(pc)
		require.True(t, ok)
		assert.Equal(t, fn.Entry, got.Entry)
		file, line := want.FileLine(uintptr(start) + uintptr(pc))
		fr := got.Frames(pc, nil)
		require.Len(t, fr, 1)
		assert.Equal(t, line, fr[0].Line, fr[0].Func)
		if fr[0].File != "" {
			assert.Equal(t, file, fr[0].File)
		}
		seen++
	}
	assert.Greater(t, seen, 100)
}

func TestNotGo(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{"empty": nil, "script": []byte("#!/bin/sh\nexit 0\n"), "elf": []byte("\x7fELF")} {
		_, err := Open(bytes.NewReader(b))
		assert.Error(t, err, name)
	}
}

// patched is a file with some bytes changed.
type patched struct {
	io.ReaderAt
	at int64
	b  []byte
}

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.ReaderAt.ReadAt(b, off)
	for i, c := range p.b {
		if at := p.at + int64(i) - off; at >= 0 && at < int64(n) {
			b[at] = c
		}
	}
	return n, err
}

// FuzzPatchedFile opens a Go program some bytes of which were changed.
func FuzzPatchedFile(f *testing.F) {
	r, _ := self(f)
	fi, err := r.Stat()
	require.NoError(f, err)
	f.Add(int64(0), []byte{0x7f})
	f.Add(int64(32), []byte{0xff, 0xff, 0xff, 0xff})                         // e_phoff
	f.Add(int64(40), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}) // e_shoff
	f.Add(int64(64+8), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})           // of the first segment
	f.Fuzz(func(t *testing.T, at int64, b []byte) {
		if len(b) > 256 {
			return
		}
		at %= fi.Size()
		if at < 0 {
			at = -at
		}
		p := patched{r, at, b}
		file, err := Open(p)
		if err != nil {
			assert.Nil(t, file)
			return
		}
		assert.Positive(t, file.Table.Count())
		for name, addr := range file.Globals([]string{"runtime.sched", "runtime.allgs"}) {
			_ = file.Writable(addr)
			assert.NotEmpty(t, name)
		}
	})
}

// FuzzPatchedTable looks functions up in a real table some bytes of which were
// changed.
func FuzzPatchedTable(f *testing.F) {
	_, file := self(f)
	orig := file.Table.b
	f.Add(uint32(8), []byte{0xff, 0xff, 0xff, 0x7f}, uint32(1000))
	f.Add(uint32(32), []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, uint32(1000))
	f.Add(uint32(72), []byte{0xff}, uint32(1<<20))
	f.Fuzz(func(t *testing.T, at uint32, b []byte, pc uint32) {
		// All of it is 1 MiB and more: a piece with the header is enough for most.
		c := bytes.Clone(orig)
		copy(c[int(at)%len(c):], b)
		table, err := NewTable(c)
		if err != nil {
			return
		}
		for _, pc := range []uint64{uint64(pc), uint64(pc) % max(table.TextSize(), 1), 0} {
			fn, ok := table.Find(pc)
			if !ok {
				continue
			}
			assert.True(t, uint64(fn.Entry) <= pc && pc < uint64(fn.End))
			size, ok := fn.FrameSize(pc)
			assert.True(t, !ok || size < 1<<31)
			frames := fn.Frames(pc, func(_ uint64, b []byte) error {
				for i := range b {
					b[i] = c[(int(at)+i)%len(c)]
				}
				return nil
			})
			assert.NotEmpty(t, frames)
			assert.LessOrEqual(t, len(frames), maxInline+1)
			for _, fr := range frames {
				assert.LessOrEqual(t, len(fr.Func), maxName)
			}
			_, _ = fn.Top(), fn.SPWrite()
		}
	})
}
