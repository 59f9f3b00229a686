// SPDX-License-Identifier: Apache-2.0

// Package sizeclass tells which size classes of the Go heap hold objects, and
// which of them grow.
//
//	var r sizeclass.Reader
//	var c sizeclass.Classes
//	var t sizeclass.Tracker
//	for now := range time.Tick(time.Second) {
//		if err := r.Read(&c); err != nil { ... }
//		for _, g := range t.Step(now, &c) {
//			fmt.Println(&g) // largest rate first
//		}
//	}
//
// # What the figures mean
//
// An object is outstanding when it was allocated and its span has not been swept
// since it died: a dead one counts until the collector has found it and the
// sweeper has passed. So one look says little. The lowest of several looks, of
// which one follows a completed cycle, is close to what is alive; that is what
// [Tracker] compares.
//
// The count runs behind by what is allocated from the spans that the processors
// hold: at most one span in each class and processor (runtime/mcache.go, refill).
// A collection brings it up to date, too.
//
// Pointer-free objects under 16 bytes share blocks of 16 (runtime/malloc.go, tiny
// allocator): what is counted are the blocks.
//
// # What cannot be known from inside
//
// Neither the spans of a class nor their free slots are published, so the waste of
// one class is unknown: only that of all together is, as
// /memory/classes/heap/unused. Reading the spans of a process from outside is the
// only way to it. Nor is it known how much of its slot an object asked for: a class
// holds what was larger than the class below and fits.
package sizeclass

import (
	"fmt"
	"math"
	"runtime/metrics"
)

// Class is what one size class holds.
type Class struct {
	// An object of the class was asked for with Min to Size bytes and takes Size.
	// One of more than 512 bytes with pointers has 8 of them as a header, which is
	// why nothing over 32760 bytes is small (runtime/malloc.go, mallocgc). Size is 0
	// for the large objects, which have a span, and a size, of their own.
	Min, Size uint64

	Objects uint64 // outstanding
	Bytes   uint64 // that they take; of large objects, their whole pages
}

// Large reports whether it is the class of objects that are too large for any
// other.
func (c *Class) Large() bool { return c.Size == 0 }

// String returns the sizes of the class, such as "33-48 B" or "over 32768 B".
func (c *Class) String() string {
	switch {
	case c.Large():
		return fmt.Sprintf("over %d B", c.Min-min(c.Min, 1))
	case c.Min == c.Size:
		return fmt.Sprintf("%d B", c.Size)
	}
	return fmt.Sprintf("%d-%d B", c.Min, c.Size)
}

// Classes is one look at all classes. Go 1.26 has 68: 67 sizes and the large
// objects.
type Classes struct {
	Cycles uint64  // collections completed since the start of the process
	All    []Class // smallest first, large objects last; empty when the read failed
}

const (
	mAllocs = iota
	mFrees
	mAllocated
	mFreed
	mCycles
	numMetrics
)

// All since Go 1.17.
var metricNames = [numMetrics]string{
	mAllocs:    "/gc/heap/allocs-by-size:bytes",
	mFrees:     "/gc/heap/frees-by-size:bytes",
	mAllocated: "/gc/heap/allocs:bytes",
	mFreed:     "/gc/heap/frees:bytes",
	mCycles:    "/gc/cycles/total:gc-cycles",
}

// Reader reads the classes of the calling process. It stops nothing, and allocates
// at its first read only. The zero Reader is ready; it is not safe for concurrent
// use.
type Reader struct {
	samples [numMetrics]metrics.Sample
}

// Read fills dst with one consistent look, and reuses its memory. When it fails
// dst.All is empty: this Go release does not publish the figures in a form that is
// known here.
func (r *Reader) Read(dst *Classes) error {
	if r.samples[0].Name == "" {
		for i, name := range metricNames {
			r.samples[i].Name = name
		}
	}
	metrics.Read(r.samples[:]) // one batch has one snapshot of the heap's counters
	dst.All = dst.All[:0]
	for i := range r.samples {
		want := metrics.KindUint64
		if i == mAllocs || i == mFrees {
			want = metrics.KindFloat64Histogram
		}
		if r.samples[i].Value.Kind() != want {
			return fmt.Errorf("sizeclass: read: runtime/metrics has no %s of the expected kind", metricNames[i])
		}
	}
	dst.Cycles = r.samples[mCycles].Value.Uint64()
	if err := dst.fill(
		r.samples[mAllocs].Value.Float64Histogram(), r.samples[mFrees].Value.Float64Histogram(),
		r.samples[mAllocated].Value.Uint64(), r.samples[mFreed].Value.Uint64(),
	); err != nil {
		dst.All = dst.All[:0]
		return fmt.Errorf("sizeclass: read: %w", err)
	}
	return nil
}

// fill computes the classes from what was allocated and freed since the start, by
// class and in bytes.
//
// A bucket of the histograms is [prev+1, size+1), because a class is (prev, size]
// and a bucket has its lower bound inside (runtime/metrics.go, initMetrics). The
// last one ends at +Inf.
func (c *Classes) fill(allocs, frees *metrics.Float64Histogram, allocated, freed uint64) error {
	n := len(allocs.Counts)
	switch {
	case n == 0 || len(allocs.Buckets) != n+1 || len(frees.Counts) != n || len(frees.Buckets) != n+1:
		return fmt.Errorf("%d classes allocated in %d bounds, %d freed in %d",
			n, len(allocs.Buckets), len(frees.Counts), len(frees.Buckets))
	case !math.IsInf(allocs.Buckets[n], 1):
		return fmt.Errorf("the last class ends at %v B: want large objects without bound", allocs.Buckets[n])
	case freed > allocated:
		return fmt.Errorf("%d B freed of %d allocated", freed, allocated)
	}
	large := allocated - freed // less those of the small classes
	for i, bound := range allocs.Buckets[:n] {
		next := allocs.Buckets[i+1]
		// The bounds of both are one slice of the runtime's. Above 2^53 a float64
		// is no longer exact.
		if bound < 1 || next <= bound || bound != math.Trunc(bound) || bound > 1<<53 || frees.Buckets[i] != bound {
			return fmt.Errorf("class %d is from %v to %v B allocated and from %v freed", i, bound, next, frees.Buckets[i])
		}
		if frees.Counts[i] > allocs.Counts[i] {
			return fmt.Errorf("class %d has %d objects freed of %d allocated", i, frees.Counts[i], allocs.Counts[i])
		}
		class := Class{Min: uint64(bound), Objects: allocs.Counts[i] - frees.Counts[i]}
		if i == n-1 {
			class.Bytes = large
		} else {
			if next != math.Trunc(next) || next > 1<<53 {
				return fmt.Errorf("class %d ends at %v B", i, next)
			}
			class.Size = uint64(next) - 1
			if class.Size > 0 && class.Objects > large/class.Size {
				return fmt.Errorf("class %d has %d objects of %d B: more than the %d B outstanding", i, class.Objects, class.Size, large)
			}
			class.Bytes = class.Objects * class.Size
			large -= class.Bytes
		}
		c.All = append(c.All, class)
	}
	return nil
}
