// SPDX-License-Identifier: Apache-2.0

// Command producer made the recordings in this directory; record.sh runs it
// under each Go release. Its source compiles with Go 1.18.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"
)

var (
	never   = make(chan int)
	full    = make(chan int) // nobody receives
	mu      sync.Mutex
	group   sync.WaitGroup
	started sync.WaitGroup
)

type pool[T any] struct{ jobs chan T }

func (p *pool[T]) work(n int) {
	for j := range p.jobs {
		_ = j
	}
}

func deep(n int) {
	if n == 0 {
		<-never
	}
	deep(n - 1)
}

type server struct{ n int }

func (s *server) wait(key string, xs ...int) { <-never }

type resource struct{ buf []byte }

func finalize(r *resource) { <-never }

func main() {
	mu.Lock()
	group.Add(1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	p := &pool[string]{make(chan string)}
	for i := 0; i < 3; i++ {
		go p.work(i)
	}
	s := &server{}
	go s.wait("a", 1, 2, 3)
	go func() { full <- 1 }()
	go func() { mu.Lock() }()
	go func() { group.Wait() }()
	go func() { time.Sleep(time.Hour) }()
	go func() { _, _ = ln.Accept() }()
	go deep(150)
	go func() {
		var nothing chan int
		select {
		case <-never:
		case nothing <- 1:
		}
	}()
	go func() {
		runtime.LockOSThread()
		<-never
	}()
	go func() { var nothing chan int; <-nothing }()
	go func() { select {} }()
	go func() {
		unreachable := make(chan int)
		unreachable <- 1
	}()
	pprof.Do(context.Background(), pprof.Labels("route", "GET /a b", "k", `v"]:`), func(context.Context) {
		go func() { <-never }()
	})
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	_ = w
	raw := r.Fd() // makes it blocking: a goroutine in a system call
	go func() { readBlocking(int(raw)) }()

	for i := 0; i < 200; i++ {
		runtime.SetFinalizer(&resource{make([]byte, 16)}, finalize)
	}
	for i := 0; i < 3; i++ {
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
	}
	if len(os.Args) > 2 {
		n, _ := strconv.Atoi(os.Args[2])
		time.Sleep(time.Duration(n) * time.Second)
	}
	switch mode := os.Args[1]; mode {
	case "panic":
		panic("over")
	case "leak0", "leak1", "leak2":
		p := pprof.Lookup("goroutineleak")
		if p == nil {
			fmt.Fprintln(os.Stderr, "no goroutineleak profile")
			os.Exit(3)
		}
		_ = p.WriteTo(os.Stdout, int(mode[4]-'0'))
	default:
		n, _ := strconv.Atoi(mode)
		_ = pprof.Lookup("goroutine").WriteTo(os.Stdout, n)
	}
}
