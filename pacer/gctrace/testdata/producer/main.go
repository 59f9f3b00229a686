// SPDX-License-Identifier: Apache-2.0

// Producer makes the Go runtime print every kind of trace line that package
// gctrace reads. It compiles with every release from Go 1.9 on, because
// record.sh builds it with all of them.
package main

import (
	"flag"
	"fmt"
	"io/ioutil"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"time"
)

var (
	kept [][]byte
	sink []byte
)

func main() {
	mode := flag.String("mode", "mixed", "mixed, off, leak, idle or torn")
	flag.Parse()
	switch *mode {
	case "mixed":
		churn(150)
		grow(24)
		runtime.GC()
		deep(200)
		kept = nil
		debug.FreeOSMemory()
		churn(60)
		sink = make([]byte, 96<<20) // one allocation passes the goal
		sink = nil
		churn(60)
		runtime.GC()
		debug.FreeOSMemory()
		time.Sleep(20 * time.Millisecond)
	case "off": // run with GOGC=off: the goal is unbounded
		churn(40)
		runtime.GC()
		churn(40)
		runtime.GC()
		debug.FreeOSMemory()
	case "leak": // the goroutine leak profile of Go 1.27
		churn(10)
		if p := pprof.Lookup("goroutineleak"); p != nil {
			p.WriteTo(ioutil.Discard, 0)
		}
		churn(10)
	case "idle": // long enough for the periodic collection
		churn(20)
		time.Sleep(125 * time.Second)
	case "torn":
		torn()
	}
	runtime.KeepAlive(sink)
}

// churn makes garbage in n rounds of about 1 MiB.
func churn(n int) {
	for i := 0; i < n; i++ {
		for j := 0; j < 64; j++ {
			sink = make([]byte, 16<<10)
		}
	}
}

// grow keeps n MiB alive and makes as much garbage on the way.
func grow(n int) {
	for i := 0; i < n; i++ {
		kept = append(kept, make([]byte, 1<<20))
		churn(1)
	}
}

// deep parks n goroutines on deep stacks across a collection.
func deep(n int) {
	var ready, done sync.WaitGroup
	release := make(chan bool)
	for i := 0; i < n; i++ {
		ready.Add(1)
		done.Add(1)
		go func() {
			recurse(200, func() { ready.Done(); <-release })
			done.Done()
		}()
	}
	ready.Wait()
	runtime.GC()
	close(release)
	done.Wait()
}

//go:noinline
func recurse(n int, bottom func()) byte {
	var frame [128]byte
	frame[n%len(frame)] = byte(n)
	if n == 0 {
		bottom()
		return frame[0]
	}
	return recurse(n-1, bottom) + frame[1]
}

// torn lets two goroutines log to the stream that the runtime prints on. The
// runtime writes a line in some forty pieces, so lines tear.
func torn() {
	stop := make(chan bool)
	var done sync.WaitGroup
	for g := 0; g < 2; g++ {
		done.Add(1)
		go func(g int) {
			defer done.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					fmt.Fprintf(os.Stderr, "2026/11/21 20:26:16 worker %d: handled request %d in 3 ms\n", g, i)
					time.Sleep(50 * time.Microsecond)
				}
			}
		}(g)
	}
	churn(120)
	close(stop)
	done.Wait()
}
