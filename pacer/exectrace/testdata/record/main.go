// SPDX-License-Identifier: Apache-2.0

// Command tracerecord makes the recorded traces of this package: it runs one
// load through every phase of the collector with the execution tracer on, and
// brackets it so that the cycles in the trace are exactly the gctrace lines
// between two marks on stderr. Run by record.sh; builds with Go 1.18 and later.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"runtime/trace"
	"sync"
	"time"
)

type node struct {
	left, right *node
	pad         [2]uint64
}

func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{left: tree(depth - 1), right: tree(depth - 1)}
}

var keep []*node

// serve allocates pointerful garbage as a request handler would: it is who
// pays for assists.
func serve(requests int, wg *sync.WaitGroup) {
	defer wg.Done()
	var sink []*node
	for i := 0; i < requests; i++ {
		sink = decode(sink)
		if i%64 == 0 {
			time.Sleep(200 * time.Microsecond)
		}
	}
	runtime.KeepAlive(sink)
}

//go:noinline
func decode(last []*node) []*node {
	b := make([]*node, 4096) // 32 KiB: one span, one heap event
	if len(last) > 0 {
		b[0] = last[0]
	}
	return b
}

func load() {
	time.Sleep(10 * time.Millisecond) // idle

	for i := 0; i < 4; i++ { // a live heap that takes time to mark
		keep = append(keep, tree(17))
	}
	var wg sync.WaitGroup
	for i := 0; i < 4; i++ {
		wg.Add(1)
		go serve(3000, &wg)
	}
	wg.Wait()

	// Stops that are not the collector's.
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	pprof.Lookup("goroutine").WriteTo(io.Discard, 1)
	runtime.GOMAXPROCS(1)
	runtime.GOMAXPROCS(2)

	// One allocation past the goal: overshoot that gctrace cannot show.
	big := make([]byte, 160<<20)
	for i := 0; i < len(big); i += 4096 {
		big[i] = 1
	}
	runtime.KeepAlive(big)
	big, keep = nil, nil

	// What was freed goes back to the system, in the background.
	runtime.GC()
	time.Sleep(150 * time.Millisecond)
}

// tinyLoad is a few cycles in few events: what the fuzz target starts from.
func tinyLoad() {
	keep = append(keep, tree(12))
	var wg sync.WaitGroup
	wg.Add(1)
	go serve(200, &wg)
	wg.Wait()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
}

// longLoad is several of the generations, of about a second, that a trace is
// made of, with little in each.
func longLoad() {
	for i := 0; i < 6; i++ {
		runtime.GC()
		time.Sleep(450 * time.Millisecond)
	}
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: GODEBUG=gctrace=1 tracerecord full|tiny|long TRACE 2>GCTRACE")
		os.Exit(2)
	}
	load := map[string]func(){"full": load, "tiny": tinyLoad, "long": longLoad}[os.Args[1]]
	f, err := os.Create(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	runtime.GOMAXPROCS(2)
	// With this one finished nothing allocates until the load begins, so no
	// cycle straddles the start of the trace.
	runtime.GC()
	time.Sleep(10 * time.Millisecond) // runtime.GC may return before its gctrace line is out
	mark("begins after")
	if err := trace.Start(f); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	load()
	runtime.GC()
	trace.Stop()
	time.Sleep(10 * time.Millisecond)
	mark("ends with")
	if err := f.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func mark(what string) {
	var s debug.GCStats
	debug.ReadGCStats(&s)
	fmt.Fprintf(os.Stderr, "# %s: the trace %s gc %d\n", runtime.Version(), what, s.NumGC)
}
