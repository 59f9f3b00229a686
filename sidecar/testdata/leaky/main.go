// SPDX-License-Identifier: Apache-2.0

// Leaky is a service that remembers every order for ever, and leaves a goroutine
// waiting for each: what the kernel kills in the end. Built with the tag guarded it
// imports memguard.
package main

import (
	"flag"
	"log"
	_ "net/http/pprof" // as services have it: without any, the linker leaves out the heap's sampling
	"time"
)

type order struct{ body []byte }

var (
	orders  []*order
	answers = make(chan struct{}) // nobody ever answers
)

// remember is where the memory goes.
//
//go:noinline
func remember(n int) {
	o := &order{body: make([]byte, n)}
	for i := range o.body {
		o.body[i] = 1
	}
	orders = append(orders, o)
}

// await is what the goroutines wait in.
//
//go:noinline
func await() { <-answers }

func main() {
	rate := flag.Int("rate", 8, "MiB a second")
	after := flag.Duration("after", 2*time.Second, "before the leak begins")
	dir := flag.String("evidence", "", "directory for evidence, where memguard is built in")
	flag.Parse()
	guard(*dir)
	log.Print("serving")
	time.Sleep(*after)
	for range time.Tick(10 * time.Millisecond) {
		for range *rate {
			remember(1 << 20 / 100)
			go await()
		}
	}
}
