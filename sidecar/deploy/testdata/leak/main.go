// SPDX-License-Identifier: Apache-2.0

// Leak holds on to so many MiB more each second, until it is killed.
package main

import (
	"flag"
	"time"
)

var kept [][]byte

func main() {
	rate := flag.Int("rate", 8, "MiB a second")
	flag.Parse()
	for range time.Tick(time.Second / 16) {
		remember(*rate << 20 / 16)
	}
}

//go:noinline
func remember(n int) {
	b := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
	kept = append(kept, b)
}
