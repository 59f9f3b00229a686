// SPDX-License-Identifier: Apache-2.0

// Command truth is a target of the tests. It holds heap, goroutines and blocked
// finalizers, and says on its standard output what the runtime says of them. It
// compiles with Go 1.21 and later.
//
// Every line of its standard input is a command:
//
//	truth            print MemStats and more as one line of JSON
//	goroutine FILE   write the goroutine profile
//	heap FILE        write the heap profile
//	churn            allocate on all Ps as fast as it goes
//	work FILE        allocate on one P, and count in a file that is mapped
//	gc               collect
//	leak N           leak N goroutines, then memory until the end
//	fork N           N goroutines whose stacks differ in one frame
//	fatal            die of an error of the runtime
//	exit             leave with status 7
//	exec             become the same program again
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Truth is what the program says of itself.
type Truth struct {
	MemStats   runtime.MemStats
	Goroutines int
	GCPercent  int
	Limit      int64
	Pauses     map[string]uint64
}

type node struct {
	next *node
	pad  [5]uintptr
}

var (
	held  [][]byte
	nodes *node
	mu    sync.Mutex
	never = make(chan int)
	sink  []byte
)

// Two ways to the same place, from the same start, with frames of the same size.
//
//go:noinline
func park() { <-never }

//go:noinline
func left() { park(); runtime.KeepAlive(never) }

//go:noinline
func right() { park(); runtime.KeepAlive(never) }

func fork(i int) {
	if i%2 == 0 {
		left()
	} else {
		right()
	}
}

func leaker()   { <-never }
func receiver() { <-never }
func selecter() {
	select {
	case <-never:
	case <-time.After(time.Hour):
	}
}
func locker() { mu.Lock() }
func deep(n int) {
	if n > 0 {
		deep(n - 1)
		return
	}
	<-never
}
func dive() { deep(20); runtime.KeepAlive(never) }

//go:noinline
func allocate(size int) []byte { return make([]byte, size) }

func main() {
	n := flag.Int("goroutines", 100, "blocked goroutines")
	heap := flag.Int("heap", 8, "MiB of heap")
	finalizers := flag.Int("finalizers", 0, "finalizers behind one that blocks")
	rate := flag.Int("rate", 0, "MemProfileRate")
	small := flag.Bool("small", false, "many small objects")
	flag.Parse()
	if *rate > 0 {
		runtime.MemProfileRate = *rate
	}
	mu.Lock()
	for i := 0; i < *n; i++ {
		switch i % 10 {
		case 0, 1, 2, 3, 4, 5:
			go receiver()
		case 6, 7:
			go selecter()
		case 8:
			go locker()
		case 9:
			go dive()
		}
	}
	for i := 0; *small && i < *heap<<20/1024; i++ {
		held = append(held, allocate(1024))
	}
	for size, total := 24, 0; !*small && total < *heap<<20; total += size {
		if held = append(held, allocate(size)); size > 40<<10 {
			size = 24
		}
		size += size / 3
	}
	for i := 0; i < 1000; i++ {
		nodes = &node{next: nodes}
	}
	for i := range held {
		if i%3 == 0 {
			held[i] = nil
		}
	}
	for i := 0; i < *finalizers; i++ {
		runtime.SetFinalizer(new(node), func(*node) { <-never })
	}
	runtime.GC()
	runtime.GC()
	time.Sleep(50 * time.Millisecond)
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		command, file, _ := strings.Cut(in.Text(), " ")
		switch command {
		case "truth":
			var t Truth
			t.GCPercent = debug.SetGCPercent(-1)
			debug.SetGCPercent(t.GCPercent)
			t.Limit = debug.SetMemoryLimit(-1)
			t.Goroutines = runtime.NumGoroutine()
			runtime.ReadMemStats(&t.MemStats)
			b, _ := json.Marshal(t)
			fmt.Println(string(b))
		case "goroutine", "heap":
			f, err := os.Create(file)
			if err == nil {
				err = pprof.Lookup(command).WriteTo(f, 0)
			}
			if err == nil {
				err = f.Close()
			}
			fmt.Println(err)
		case "leak": // many goroutines, and then all memory that there is
			n, _ := strconv.Atoi(file)
			for i := 0; i < n; i++ {
				go leaker()
			}
			fmt.Println("done")
			for {
				b := make([]byte, 1<<20)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
				held = append(held, b)
			}
		case "fork": // N goroutines, half each way
			n, _ := strconv.Atoi(file)
			for i := 0; i < n; i++ {
				go fork(i)
			}
			time.Sleep(50 * time.Millisecond)
			fmt.Println("done")
		case "fatal":
			fmt.Println("done")
			m := map[int]int{}
			for i := 0; i < 4; i++ {
				go func() {
					for {
						m[1]++
					}
				}()
			}
			select {}
		case "exit":
			os.Exit(7)
		case "exec":
			fmt.Println("done")
			fmt.Println(syscall.Exec("/proc/self/exe", []string{"truth", "-goroutines=10"}, os.Environ()))
		case "gc":
			runtime.GC()
			fmt.Println("done")
		case "work":
			f, err := os.OpenFile(file, os.O_RDWR, 0)
			var counter []byte
			if err == nil {
				counter, err = syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
			}
			if err == nil {
				go work((*uint64)(unsafe.Pointer(&counter[0])))
			}
			fmt.Println(err)
		case "churn":
			for i := 0; i < runtime.GOMAXPROCS(0); i++ {
				go func() {
					for size := 16; ; size = size*5/4 + 8 {
						if size > 64<<10 {
							size = 16
						}
						b := allocate(size)
						if size == 16 {
							mu2.Lock()
							sink = b
							mu2.Unlock()
							go func() {}()
						}
					}
				}()
			}
			fmt.Println("done")
		}
	}
	runtime.KeepAlive(held)
}

// work does what a service does: it allocates, keeps a little, and starts goroutines.
func work(done *uint64) {
	kept := make([][]byte, 1024)
	for i := 0; ; i++ {
		for size := 16; size < 1<<10; size = size*5/4 + 8 {
			kept[(i+size)%len(kept)] = allocate(size)
		}
		go func() {}()
		atomic.AddUint64(done, 1)
	}
}

var mu2 sync.Mutex
