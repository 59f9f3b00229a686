// SPDX-License-Identifier: Apache-2.0

package sizeclass

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// settled is a look in which nothing dead is outstanding: the second collection
// begins with what is left to sweep of the first one's.
func settled(t *testing.T, r *Reader, c *Classes) {
	t.Helper()
	runtime.GC()
	runtime.GC()
	require.NoError(t, r.Read(c))
}

// of is the class of objects of a size.
func (c *Classes) of(size uint64) *Class {
	return &c.All[slices.IndexFunc(c.All, func(c Class) bool { return c.Large() || size <= c.Size })]
}

var held any

// hold keeps n objects alive.
func hold[T any](n int) {
	objects := make([]*T, n)
	for i := range objects {
		objects[i] = new(T)
	}
	held = objects
}

// bySize is what is outstanding according to MemStats.BySize, in all its classes.
func bySize() (objects int64) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for _, c := range m.BySize {
		objects += int64(c.Mallocs - c.Frees)
	}
	return objects
}

// The figures against a program that keeps a known number of objects. The test
// binary allocates besides, but little.
func TestProcessTruth(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // no collections but ours
	type headed struct {
		_ [1016]byte
		_ *byte
	}
	for _, c := range []struct {
		name      string
		hold      func(n int)
		n         int
		takes     uint64
		class     Class
		isMissing bool // in MemStats.BySize
	}{
		{"33 B", hold[[33]byte], 20_000, 48, Class{Min: 33, Size: 48}, false},
		{"pointers", hold[[4]*byte], 20_000, 32, Class{Min: 25, Size: 32}, false},
		{"1024 B and a header", hold[headed], 2000, 1152, Class{Min: 1025, Size: 1152}, false},
		{"24000 B", hold[[24_000]byte], 1000, 24_576, Class{Min: 21_761, Size: 24_576}, true},
		{"the largest small one", hold[[32_760]byte], 200, 32_768, Class{Min: 28_673, Size: 32_768}, true},
		{"the smallest large one", hold[[32_761]byte], 200, 32_768 + 1, Class{Min: 32_769}, true},
		{"100 KB", hold[[100_000]byte], 200, 13 * 8192, Class{Min: 32_769}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Reader
			var before, after Classes
			held = nil
			settled(t, &r, &before)
			counted := bySize()
			c.hold(c.n)
			settled(t, &r, &after)
			counted = bySize() - counted

			was, is := before.of(c.takes), after.of(c.takes)
			assert.Equal(t, c.class, Class{Min: is.Min, Size: is.Size})
			assert.InDelta(t, c.n, int64(is.Objects-was.Objects), 50)
			assert.InDelta(t, uint64(c.n)*c.takes, int64(is.Bytes-was.Bytes), 50*float64(c.takes))
			if c.isMissing {
				assert.Less(t, counted, int64(c.n/2))
			} else {
				assert.InDelta(t, c.n, counted, 200)
			}

			held = nil
			settled(t, &r, &after)
			assert.InDelta(t, was.Objects, after.of(c.takes).Objects, 50, "freed")
		})
	}
}

// The classes together are the heap's objects.
func TestProcessSum(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var r Reader
	var c Classes
	objects := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/objects:objects"}}
	require.NoError(t, r.Read(&c))
	metrics.Read(objects)
	require.NoError(t, r.Read(&c))
	metrics.Read(objects)
	var bytes, n uint64
	for _, class := range c.All {
		bytes += class.Bytes
		n += class.Objects
	}
	assert.InDelta(t, objects[0].Value.Uint64(), bytes, 1<<20)
	assert.InDelta(t, objects[1].Value.Uint64(), n, 2000)
	assert.Len(t, c.All, 68)
	assert.True(t, c.All[67].Large())
}

// Dead objects are outstanding until a cycle was completed.
func TestProcessDeadCount(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var r Reader
	var c Classes
	held = nil
	settled(t, &r, &c)
	was := c.of(48).Objects
	hold[[48]byte](20_000)
	held = nil
	require.NoError(t, r.Read(&c))
	assert.Greater(t, c.of(48).Objects, was+18_000)
	settled(t, &r, &c)
	assert.InDelta(t, was, c.of(48).Objects, 50)
}

func TestReadAllocatesNothing(t *testing.T) {
	var r Reader
	var c Classes
	var tr Tracker
	now := time.Now()
	require.NoError(t, r.Read(&c))
	tr.Step(now, &c)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		now = now.Add(time.Second)
		if err := r.Read(&c); err != nil {
			t.Error(err)
		}
		tr.Step(now, &c)
	}))
}

func histogram(buckets []float64, counts ...uint64) *metrics.Float64Histogram {
	return &metrics.Float64Histogram{Counts: counts, Buckets: buckets}
}

func TestFill(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	bounds := []float64{1, 9, 17, inf}
	var c Classes
	require.NoError(t, c.fill(histogram(bounds, 10, 5, 2), histogram(bounds, 3, 5, 1), 10_000, 2000))
	assert.Equal(t, []Class{{1, 8, 7, 56}, {9, 16, 0, 0}, {17, 0, 1, 8000 - 56}}, c.All)

	for _, bad := range []struct {
		name            string
		allocs, frees   *metrics.Float64Histogram
		allocated, free uint64
		want            string
	}{
		{"nothing", histogram(nil), histogram(nil), 1, 0, "0 classes allocated"},
		{"other classes freed", histogram(bounds, 1, 1, 1), histogram(bounds[1:], 1, 1), 9, 0, "3 classes allocated in 4 bounds, 2 freed in 3"},
		{"no large ones", histogram(bounds[:3], 1, 1), histogram(bounds[:3], 1, 1), 9, 0, "ends at 17 B"},
		{"other bounds freed", histogram(bounds, 1, 1, 1), histogram([]float64{1, 9, 25, inf}, 1, 1, 1), 99, 0, "class 2 is from 17"},
		{"not ascending", histogram([]float64{1, 17, 9, inf}, 1, 1, 1), histogram([]float64{1, 17, 9, inf}, 0, 0, 0), 99, 0, "class 1 is from 17 to 9"},
		{"not a number", histogram([]float64{1, math.NaN(), 17, inf}, 1, 1, 1), histogram([]float64{1, math.NaN(), 17, inf}, 0, 0, 0), 99, 0, "class 0 ends at NaN"},
		{"from below", histogram([]float64{math.Inf(-1), 9, inf}, 1, 1), histogram([]float64{math.Inf(-1), 9, inf}, 0, 0), 99, 0, "class 0 is from -Inf"},
		{"freed before allocated", histogram(bounds, 1, 1, 1), histogram(bounds, 0, 2, 0), 99, 0, "class 1 has 2 objects freed of 1"},
		{"more bytes freed", histogram(bounds, 1, 1, 1), histogram(bounds, 0, 0, 0), 9, 10, "10 B freed of 9"},
		{"more objects than bytes", histogram(bounds, 1, 9, 1), histogram(bounds, 0, 0, 0), 100, 0, "class 1 has 9 objects of 16 B"},
	} {
		c := Classes{}
		assert.ErrorContains(t, c.fill(bad.allocs, bad.frees, bad.allocated, bad.free), bad.want, bad.name)
	}
}

// Whatever a future release publishes: an error, or classes that ascend, end with
// the large ones and add up to the bytes outstanding.
func FuzzFill(f *testing.F) {
	inf := math.Float64bits(math.Inf(1))
	one, nine := math.Float64bits(1), math.Float64bits(9)
	f.Add(one, nine, inf, uint64(10), uint64(3), uint64(2), uint64(1), uint64(100), uint64(50))
	f.Add(one, inf, inf, uint64(1), uint64(0), uint64(1), uint64(0), uint64(1), uint64(0))
	f.Add(one, math.Float64bits(math.NaN()), inf, uint64(1), uint64(0), uint64(1), uint64(0), uint64(1), uint64(0))
	f.Add(one, math.Float64bits(1<<62), inf, uint64(math.MaxUint64), uint64(0), uint64(1), uint64(0), uint64(math.MaxUint64), uint64(0))
	f.Fuzz(func(t *testing.T, b0, b1, b2, a0, f0, a1, f1, allocated, freed uint64) {
		bounds := []float64{math.Float64frombits(b0), math.Float64frombits(b1), math.Float64frombits(b2)}
		var c Classes
		if c.fill(histogram(bounds, a0, a1), histogram(bounds, f0, f1), allocated, freed) != nil {
			return
		}
		require.Len(t, c.All, 2)
		small, large := c.All[0], c.All[1]
		assert.False(t, small.Large())
		assert.True(t, large.Large())
		assert.LessOrEqual(t, small.Min, small.Size)
		assert.Equal(t, large.Min, small.Size+1)
		assert.Equal(t, allocated-freed, small.Bytes+large.Bytes)
		assert.Equal(t, a0-f0, small.Objects)
		assert.LessOrEqual(t, small.Bytes, allocated-freed)
	})
}

func TestClassString(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Class{
		"33-48 B":      {Min: 33, Size: 48},
		"8 B":          {Min: 8, Size: 8},
		"over 32768 B": {Min: 32_769},
		"over 0 B":     {},
	} {
		assert.Equal(t, want, c.String())
	}
}

// Reading the classes, against what the article reads: both in turn, in one run.
func BenchmarkRead(b *testing.B) {
	var r Reader
	var c Classes
	var m runtime.MemStats
	if err := r.Read(&c); err != nil {
		b.Fatal(err)
	}
	var ours, theirs time.Duration
	b.ReportAllocs()
	for b.Loop() {
		t0 := time.Now()
		_ = r.Read(&c)
		t1 := time.Now()
		runtime.ReadMemStats(&m)
		ours += t1.Sub(t0)
		theirs += time.Since(t1)
	}
	b.ReportMetric(float64(ours.Nanoseconds())/float64(b.N), "read-ns")
	b.ReportMetric(float64(theirs.Nanoseconds())/float64(b.N), "ReadMemStats-ns")
	b.ReportMetric(float64(theirs)/float64(ours), "ReadMemStats/read")
}

func BenchmarkStep(b *testing.B) {
	var r Reader
	var c Classes
	var t Tracker
	if err := r.Read(&c); err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(300 * time.Millisecond)
		c.Cycles++
		c.All[3].Bytes += 1 << 20
		t.Step(now, &c)
	}
}
