// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// skeletons are the recordings without most of their fields: a fuzzer gets nowhere with long inputs.
func skeletons(f *testing.F) (texts [][]byte) {
	names, err := filepath.Glob("testdata/*.smaps")
	require.NoError(f, err)
	require.NotEmpty(f, names)
	for _, name := range names {
		b, err := os.ReadFile(name)
		require.NoError(f, err)
		var text []byte
		for line := range bytes.Lines(parseFixture(f, b).smaps) {
			if nibble[line[0]] != 0xff || bytes.HasPrefix(line, []byte("Rss:")) || bytes.HasPrefix(line, []byte("VmFlags:")) {
				text = append(text, line...)
			}
		}
		texts = append(texts, text)
	}
	return texts
}

// FuzzReader: what a Reader says depends on the text alone, not on the pieces it comes in nor on
// the path that the fields take; and it holds together.
func FuzzReader(f *testing.F) {
	for _, k := range kernels {
		f.Add([]byte(k.text+k.text), uint16(100))
	}
	f.Add([]byte(rollup), uint16(7))
	f.Fuzz(func(t *testing.T, text []byte, chunk uint16) {
		fast, slow := NewReader(nil), NewReader(nil) // new: what fails must fail again
		slow.slow = true
		want := snapshot(slow, bytes.NewReader(text))
		require.Equal(t, want, snapshot(fast, bytes.NewReader(text)), "fast path, nothing learnt before")
		require.Equal(t, want, snapshot(fast, bytes.NewReader(text)), "fast path, layout learnt from the same text")
		size := 1 + int(chunk)%len(fast.buf)
		src := bytes.NewReader(text)
		require.Equal(t, want, snapshot(fast, readerFunc(func(b []byte) (int, error) {
			return src.Read(b[:min(size, len(b))])
		})), "in pieces of %d bytes", size)

		lines := bytes.Count(text, []byte("\n"))
		if len(text) > 0 && text[len(text)-1] != '\n' {
			lines++
		}
		require.Equal(t, lines, fast.lines)
		errs, n := fast.SyntaxErrors()
		require.LessOrEqual(t, len(errs), n)
		require.LessOrEqual(t, n, lines)

		fast.Reset(bytes.NewReader(text))
		for fast.Scan() {
			m := fast.Mapping()
			require.Less(t, m.Start, m.End)
			require.LessOrEqual(t, len(m.Extra), maxExtra)
			for k, n := range m.All() {
				require.Zero(t, n%1024, k)
			}
		}
		_, _ = ParseRollup(bytes.NewReader(text))
	})
}

// FuzzClassify: every mapping gets one kind, whatever the mappings and hints are, and the sums
// over the kinds are the total.
func FuzzClassify(f *testing.F) {
	for _, text := range skeletons(f) {
		f.Add(text, true, uint64(0), uint64(0), uint64(0), uint64(0), "")
		f.Add(text, false, uint64(0xc000012345), uint64(0), uint64(0), uint64(5<<20), "/tmp/producer")
		f.Add(text, true, uint64(0), uint64(0xc000000000), uint64(0xc004000000), uint64(0), "")
	}
	f.Fuzz(func(t *testing.T, text []byte, goProgram bool, addr, start, end, metadata uint64, exe string) {
		h := Hints{Go: goProgram, MetadataBytes: metadata, Exe: exe}
		if addr != 0 {
			h.HeapAddrs = []uint64{addr, addr + 1}
		}
		if end != 0 {
			h.HeapRanges = []Range{{start, end}}
		}
		p, err := Parse(bytes.NewReader(text), h)
		require.NoError(t, err)

		total := p.Total()
		var sum Fields
		sum.known = total.known
		for k := range Kind(numKinds) {
			f := p.ByKind(k)
			sum.add(&f)
		}
		for i := range p.Mappings {
			k := p.Mappings[i].Kind
			require.NotEqual(t, Unknown, k)
			require.Less(t, k, Kind(numKinds))
		}
		for k := range total.All() {
			want, _ := total.Bytes(k)
			got, ok := sum.Bytes(k)
			require.True(t, ok)
			require.Equal(t, want, got, k)
		}
		again, err := Parse(bytes.NewReader(text), h)
		require.NoError(t, err)
		for i := range p.Mappings {
			require.Equal(t, p.Mappings[i].Kind, again.Mappings[i].Kind)
		}
	})
}
