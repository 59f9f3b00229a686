// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// byStack sums a profile's samples by their lines, innermost first.
func byStack(p *profile.Profile, value int, lines bool) map[string]int64 {
	out := map[string]int64{}
	for _, s := range p.Sample {
		var b strings.Builder
		for _, l := range s.Location {
			for _, line := range l.Line {
				fmt.Fprintf(&b, "%s", line.Function.Name)
				if lines {
					fmt.Fprintf(&b, ":%d", line.Line)
				}
				b.WriteByte('\n')
			}
		}
		if s.Value[value] != 0 {
			out[b.String()] += s.Value[value]
		}
	}
	return out
}

func parse(t *testing.T, file string) *profile.Profile {
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	p, err := profile.Parse(f)
	require.NoError(t, err)
	return p
}

// TestProfiles compares with the profiles that the target writes of itself.
func TestProfiles(t *testing.T) {
	for _, b := range builds(t) {
		t.Run(strings.ReplaceAll(b.String(), " ", "_"), func(t *testing.T) {
			dir := t.TempDir()
			theirs := filepath.Join(dir, "theirs")
			p := start(t, compile(t, b), "-goroutines=1000", "-heap=64", "-rate=65536")
			target := open(t, p.pid())

			require.Equal(t, "<nil>\n", p.ask(t, "goroutine "+theirs))
			s, err := target.Snapshot(t.Context(), Goroutines|Stacks)
			require.NoError(t, err)
			var out bytes.Buffer
			require.NoError(t, s.WriteGoroutines(&out))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "ours"), out.Bytes(), 0o666))
			want, got := byStack(parse(t, theirs), 0, true), byStack(parse(t, filepath.Join(dir, "ours")), 0, true)
			for _, m := range []map[string]int64{want, got} { // main does something else by now, or runs
				maps.DeleteFunc(m, func(k string, _ int64) bool {
					return strings.Contains(k, "runtime.main") || strings.Contains(k, "[stack unknown")
				})
			}
			assert.Equal(t, want, got)
			assert.NotEmpty(t, want)

			require.Equal(t, "<nil>\n", p.ask(t, "heap "+theirs))
			s, err = target.Snapshot(t.Context(), HeapProfile)
			require.NoError(t, err)
			require.Empty(t, s.Unknown)
			out.Reset()
			require.NoError(t, s.WriteHeap(&out))
			ours := filepath.Join(dir, "heap")
			require.NoError(t, os.WriteFile(ours, out.Bytes(), 0o666))
			h, mine := parse(t, theirs), parse(t, ours)
			assert.Equal(t, h.Period, mine.Period)
			for i, st := range h.SampleType {
				assert.Equal(t, st.Type, mine.SampleType[i].Type)
				want, got := byStack(h, i, true), byStack(mine, i, true)
				for stack, n := range want {
					assert.InEpsilon(t, n, got[stack], 0.01, "%s of %s", st.Type, stack)
				}
				assert.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
			}
			if id := h.Mapping[0].BuildID; id != "" {
				assert.Equal(t, id, mine.Mapping[0].BuildID)
			}
			assert.Equal(t, h.Mapping[0].Start, mine.Mapping[0].Start)
		})
	}
}

// TestPprofOpens runs the tool that profiles are for.
func TestPprofOpens(t *testing.T) {
	p := start(t, compile(t, build{release: current, flags: "-ldflags=-s,-w"}), "-rate=4096")
	s, err := open(t, p.pid()).Snapshot(t.Context(), Goroutines|HeapProfile)
	require.NoError(t, err)
	dir := t.TempDir()
	for name, write := range map[string]func(*os.File) error{
		"main.receiver": func(f *os.File) error { return s.WriteGoroutines(f) },
		"main.allocate": func(f *os.File) error { return s.WriteHeap(f) },
	} {
		f, err := os.Create(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NoError(t, write(f))
		require.NoError(t, f.Close())
		out, err := exec.Command("go", "tool", "pprof", "-top", "-cum", f.Name()).CombinedOutput()
		require.NoError(t, err, "%s", out)
		assert.Contains(t, string(out), name)
	}
}
