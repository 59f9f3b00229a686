// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var leak [][]byte

//go:noinline
func leakSome() { leak = append(leak, make([]byte, 8<<20)) }

func parse(t *testing.T, path string) *profile.Profile {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	p, err := profile.Parse(f)
	require.NoError(t, err)
	require.NoError(t, p.CheckValid())
	return p
}

// Two heap profiles of a ramp-up show what grew between them.
func TestProcessProfilesPair(t *testing.T) {
	p := &Profiles{Store: &Store{Dir: t.TempDir()}}
	series := time.Now()
	runtime.GC()
	first, err := p.Capture(Plan{Why: "50 %", Series: series, Number: 1, Score: 50, Heap: true, Goroutines: true},
		Attachment{"ledger.json", []byte("{}")}, Attachment{"gctrace.log", []byte("gc 1")})
	require.NoError(t, err)
	require.Len(t, first.Paths, 4)
	assert.NotZero(t, first.Allocated)
	leakSome()
	defer func() { leak = nil }()
	runtime.GC()
	runtime.GC()
	second, err := p.Capture(Plan{Why: "95 %", Series: series, Number: 2, Score: 95, Heap: true})
	require.NoError(t, err)
	require.Len(t, second.Paths, 1)

	files, err := p.Store.Files()
	require.NoError(t, err)
	pairs := Pairs(files)
	require.Len(t, pairs, 1)
	assert.Equal(t, 50, pairs[0].Base.Score)
	assert.Equal(t, 95, pairs[0].Later.Score)
	base, later := parse(t, pairs[0].Base.Path), parse(t, pairs[0].Later.Path)
	base.Scale(-1)
	diff, err := profile.Merge([]*profile.Profile{later, base})
	require.NoError(t, err)
	grew := int64(0)
	for _, s := range diff.Sample {
		for _, l := range s.Location {
			for _, line := range l.Line {
				if filepath.Base(line.Function.Name) == "evidence.leakSome" {
					grew += s.Value[3]
				}
			}
		}
	}
	assert.InDelta(t, 8<<20, grew, 1<<20)

	goroutines, ok := ParseFile(first.Paths[3])
	require.True(t, ok)
	assert.Equal(t, "goroutine.pb.gz", goroutines.Name)
	assert.NotEmpty(t, parse(t, goroutines.Path).Sample)
	for _, path := range append(first.Paths, second.Paths...) {
		st, err := os.Stat(path)
		require.NoError(t, err)
		assert.EqualValues(t, 0o600, st.Mode())
	}

	// And the tool that a person uses for it agrees.
	out, err := exec.Command("go", "tool", "pprof", "-top", "-sample_index=inuse_space", "-base", pairs[0].Base.Path, pairs[0].Later.Path).CombinedOutput()
	if notFound := (*exec.Error)(nil); errors.As(err, &notFound) {
		t.Log("go tool pprof cannot be run here: ", err)
		return
	}
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "evidence.leakSome")
}

func deep(frames int, there func(), until chan struct{}) {
	if frames > 0 {
		deep(frames-1, there, until)
		return
	}
	there()
	<-until
}

// What a capture is expected to cost is at least what it does, and comes near to
// it once one was taken.
func TestProcessProfilesKnowTheirCost(t *testing.T) {
	for _, frames := range []int{1, 25, 100} {
		p := &Profiles{Store: &Store{Dir: t.TempDir()}}
		const n = 5000
		until := make(chan struct{})
		var there sync.WaitGroup
		there.Add(n)
		for range n {
			go deep(frames, there.Done, until)
		}
		there.Wait()
		goroutines := uint64(runtime.NumGoroutine())
		take := func(heap bool) uint64 {
			c, err := p.Capture(Plan{Why: "test", Series: time.Now(), Number: 1, Heap: heap, Goroutines: !heap})
			require.NoError(t, err)
			return c.Allocated
		}
		before := p.Cost(goroutines)
		took := take(false)
		if frames <= 25 { // deeper stacks have to be learned; half of the room is left for what is not known
			assert.GreaterOrEqual(t, 2*before.Goroutines, took, "%d frames", frames)
		}
		learned := p.Cost(goroutines)
		again := take(false)
		assert.GreaterOrEqual(t, learned.Goroutines, again, "%d frames", frames)
		assert.LessOrEqual(t, learned.Goroutines, 2*again+fixedCost, "%d frames", frames)
		assert.NotZero(t, learned.GoroutinesTime)

		assert.GreaterOrEqual(t, before.Heap, take(true))
		assert.GreaterOrEqual(t, p.Cost(goroutines).Heap, take(true))
		close(until)
		require.Eventually(t, func() bool { return runtime.NumGoroutine() < n/2 }, time.Minute, time.Millisecond)
	}
}

func TestCaptureGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	p := &Profiles{Store: &Store{Dir: t.TempDir()}}
	c, err := p.Capture(Plan{Why: "test", Series: time.Now(), Number: 1}, Attachment{"a/b", nil}, Attachment{"ledger", []byte("x")})
	require.ErrorContains(t, err, "a/b")
	require.Len(t, c.Paths, 1)

	c, err = p.Capture(Plan{})
	require.NoError(t, err, "nothing was planned")
	assert.Empty(t, c.Paths)
	_, err = new(Profiles).Capture(Plan{Why: "test"})
	require.Error(t, err)
}

func TestParseFile(t *testing.T) {
	t.Parallel()
	const name = "memguard-20261121T030000.000000001Z-012-95pct-heap.pb.gz"
	f, ok := ParseFile("/evidence/" + name)
	require.True(t, ok)
	assert.Equal(t, File{"/evidence/" + name, start.Add(1), 12, 95, "heap.pb.gz"}, f)
	for _, name := range []string{
		"", "memguard-", "heap.pb.gz", "memguard-20261121T030000.000000001Z-gc-pause.trace", "memguard-20261121T030000.000000001Z-012-95pct-",
		"memguard-20261121T030000.000000001Z-0-95pct-x", "memguard-20261121T030000.000000001Z-1-100pct-x", "memguard-20261121T030000.000000001Z-1-95-x",
		"memguard-20261121T030000.000000001Z-+1-95pct-x", "memguard-20261321T030000.000000001Z-1-95pct-x", "memguard-20261121T030000.000000001Zx-1-95pct-x",
	} {
		_, ok := ParseFile(name)
		assert.False(t, ok, name)
	}
	at := func(s string) string { return "memguard-20261121T030000.00000000" + s }
	pairs := Pairs([]string{
		at("2Z-003-95pct-heap.pb.gz"), at("1Z-001-50pct-heap.pb.gz"), at("2Z-002-70pct-heap.pb.gz"), at("2Z-001-50pct-goroutine.pb.gz"),
		at("2Z-004-97pct-heap.pb.gz"), at("3Z-001-50pct-heap.pb.gz"), at("3Z-002-50pct-heap.pb.gz"), "other",
	})
	require.Len(t, pairs, 2)
	assert.Equal(t, at("2Z-002-70pct-heap.pb.gz"), pairs[0].Base.Path)
	assert.Equal(t, at("2Z-004-97pct-heap.pb.gz"), pairs[0].Later.Path)
	assert.Equal(t, at("3Z-002-50pct-heap.pb.gz"), pairs[1].Later.Path)
}
