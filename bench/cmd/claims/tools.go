// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/memguard/memguard-go/pacer/gctrace"
)

const mib = 1 << 20

// inMiB is for sentences.
func inMiB[N uint64 | int64 | int](n N) string {
	switch m := float64(n) / mib; {
	case math.Abs(m) >= 10:
		return fmt.Sprintf("%.0f MiB", m)
	default:
		return fmt.Sprintf("%.1f MiB", m)
	}
}

// heap is the figures of runtime/metrics that the experiments use, in bytes.
type heap struct {
	Objects, Unused, Free, Released, Stacks, Total uint64
	Live, Goal, ScanStack                          uint64
	Automatic, Forced                              uint64 // collections
}

// readHeap reads them all. Every name is older than Go 1.26, the oldest release
// that builds this.
func readHeap() (h heap) {
	for _, m := range []struct {
		name string
		to   *uint64
	}{
		{"/memory/classes/heap/objects:bytes", &h.Objects},
		{"/memory/classes/heap/unused:bytes", &h.Unused},
		{"/memory/classes/heap/free:bytes", &h.Free},
		{"/memory/classes/heap/released:bytes", &h.Released},
		{"/memory/classes/heap/stacks:bytes", &h.Stacks},
		{"/memory/classes/total:bytes", &h.Total},
		{"/gc/heap/live:bytes", &h.Live},
		{"/gc/heap/goal:bytes", &h.Goal},
		{"/gc/scan/stack:bytes", &h.ScanStack},
		{"/gc/cycles/automatic:gc-cycles", &h.Automatic},
		{"/gc/cycles/forced:gc-cycles", &h.Forced},
	} {
		*m.to = readMetric(m.name)
	}
	return h
}

// readMetric reads one metric. A release that has lost it makes Uint64 panic,
// which ends this experiment's process with the reason.
func readMetric(name string) uint64 {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// readFloat is readMetric for those that are seconds.
func readFloat(name string) float64 {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	return s[0].Value.Float64()
}

// readHistogram returns how many values a histogram has and their sum, in which
// each counts with the lower bound of its bucket.
func readHistogram(name string) (n uint64, sum float64) {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	h := s[0].Value.Float64Histogram()
	for i, c := range h.Counts {
		n += c
		if c > 0 {
			sum += float64(c) * max(h.Buckets[i], 0) // the first begins at -Inf
		}
	}
	return n, sum
}

const (
	gcStops    = "/sched/pauses/total/gc:seconds"
	otherStops = "/sched/pauses/total/other:seconds"
)

// object is a small thing that the collector has to look into.
type object struct {
	next *object
	_    [120]byte
}

// grow returns that many bytes of live objects.
func grow(bytes int) []*object {
	all := make([]*object, bytes/128)
	for i := range all {
		all[i] = new(object)
		if i > 0 {
			all[i].next = all[i-1]
		}
	}
	return all
}

// blocks returns that many bytes in pieces of 64 KiB, all of it resident.
func blocks(bytes int) [][]byte {
	const size = 64 << 10
	all := make([][]byte, bytes/size)
	for i := range all {
		all[i] = make([]byte, size)
		for at := 0; at < size; at += os.Getpagesize() {
			all[i][at] = 1
		}
	}
	return all
}

// sink keeps what is stored into it from being allocated on a stack.
var sink atomic.Pointer[byte]

// churn allocates that many bytes of garbage from every P at once.
func churn(bytes int) {
	const size = 16 << 10
	var group sync.WaitGroup
	procs := runtime.GOMAXPROCS(0)
	for range procs {
		group.Go(func() {
			for range bytes / procs / size {
				sink.Store(&make([]byte, size)[0])
			}
		})
	}
	group.Wait()
}

// traced returns the collections that this process has traced so far; it needs
// GODEBUG=gctrace=1. Standard error is a file that was opened for reading, too.
// A line that the runtime is still writing, piece by piece, is for the next call.
func traced() (cycles []gctrace.Cycle, err error) {
	text, err := io.ReadAll(io.NewSectionReader(os.Stderr, 0, math.MaxInt64))
	if err != nil {
		return nil, err
	}
	r := gctrace.NewReader(bytes.NewReader(text[:bytes.LastIndexByte(text, '\n')+1]))
	for r.Scan() {
		switch rec := r.Record().(type) {
		case *gctrace.Cycle:
			cycles = append(cycles, *rec)
		case *gctrace.SyntaxError:
			return nil, rec
		}
	}
	return cycles, r.Err()
}

// deep calls then with that many KiB of stack below it.
//
//go:noinline
func deep(kib int, then func()) byte {
	var frame [1 << 10]byte
	if kib <= 1 {
		then()
	} else {
		frame[kib&1023] = deep(kib-1, then)
	}
	return frame[0]
}

// crew is goroutines that all wait.
type crew struct {
	release chan struct{}
	done    sync.WaitGroup
}

// park starts n goroutines. Each runs body, which calls wait where it shall
// block. It returns when all of them are there.
func park(n int, body func(wait func())) *crew {
	c := &crew{release: make(chan struct{})}
	var ready sync.WaitGroup
	ready.Add(n)
	for range n {
		c.done.Go(func() {
			body(func() {
				ready.Done()
				<-c.release
			})
		})
	}
	ready.Wait()
	time.Sleep(10 * time.Millisecond) // from Done to the channel
	return c
}

// dismiss ends them.
func (c *crew) dismiss() {
	close(c.release)
	c.done.Wait()
}

// eventually polls until ok or for a while, and returns the last answer.
func eventually(within time.Duration, ok func() bool) bool {
	for end := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// stacksWith counts goroutines that have a function on their stacks.
func stacksWith(function string) (n int, err error) {
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		return 0, err
	}
	// Text with one paragraph per distinct stack: "N @ pcs", then "#\tpc\tfunction+off\tfile".
	for stack := range bytes.SplitSeq(b.Bytes(), []byte("\n\n")) {
		if !bytes.Contains(stack, []byte("\t"+function+"+")) {
			continue
		}
		for line := range bytes.Lines(stack) {
			var count int
			if k, _ := fmt.Sscanf(string(line), "%d @", &count); k == 1 {
				n += count
			}
		}
	}
	return n, nil
}
