// SPDX-License-Identifier: Apache-2.0

// Command service is watched by the tests. It does what its standard input says,
// line by line.
package main

import (
	"bufio"
	"fmt"
	"net/http"
	_ "net/http/pprof"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var (
	held  [][]byte
	stuck chan struct{}
)

// leakOrders is the function to blame.
//
//go:noinline
func leakOrders(mib int) {
	b := make([]byte, mib<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	held = append(held, b)
}

//go:noinline
func stuckWorker() { <-stuck }

var other string // of another build

func main() {
	_ = other
	fmt.Println("ready", os.Getpid())
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Fields(in.Text())
		n := 0
		if len(f) > 1 {
			n, _ = strconv.Atoi(f[1])
		}
		switch f[0] {
		case "leak": // until the end
			for {
				leakOrders(1)
				time.Sleep(time.Duration(n) * time.Millisecond)
			}
		case "spawn": // so many goroutines, then memory until the end
			stuck = make(chan struct{})
			for range n {
				go stuckWorker()
			}
			for {
				leakOrders(1)
			}
		case "hold":
			leakOrders(n)
		case "goroutines":
			stuck = make(chan struct{})
			for range n {
				go stuckWorker()
			}
		case "serve":
			go func() { fmt.Fprintln(os.Stderr, http.ListenAndServe("127.0.0.1:"+f[1], nil)) }()
		case "exit":
			os.Exit(n)
		case "exec":
			err := syscall.Exec(f[1], []string{f[1]}, os.Environ())
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		case "panic":
			panic("as told")
		}
		fmt.Println("done", f[0])
	}
}
