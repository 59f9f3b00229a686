// SPDX-License-Identifier: Apache-2.0

// Crowd is a service of thousands of goroutines. It does what its standard input says.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
)

func main() {
	debug.SetTraceback("all")
	var all sync.WaitGroup
	all.Add(5000)
	for range 5000 {
		go wait(&all)
	}
	all.Wait()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "panic":
			panic("the crowd is too large")
		case "talk": // 90 KiB
			for i := range 900 {
				fmt.Fprintf(os.Stderr, "%09d %s\n", i, strings.Repeat("x", 90))
			}
		}
	}
}

//go:noinline
func wait(all *sync.WaitGroup) {
	all.Done()
	select {}
}
