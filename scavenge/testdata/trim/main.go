// SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo

// Trim leaves 200 MB of freed C memory behind that glibc keeps, releases it, and
// prints what the kernel counts before, after a collection, and after the release.
package main

/*
#include <stdlib.h>
#include <string.h>
static void *blocks[100000];
static void fill(void) {
	for (int i = 0; i < 100000; i++) {
		blocks[i] = malloc(2048);
		memset(blocks[i], 1, 2048);
	}
	for (int i = 0; i < 100000; i++)
		if (i % 50) free(blocks[i]);
}
*/
import "C"

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/memguard/memguard-go/scavenge"
)

func rss() (pages uint64) {
	b, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscanf(string(b), "%d %d", new(uint64), &pages)
	}
	if err != nil {
		panic(err)
	}
	return pages * uint64(os.Getpagesize())
}

func main() {
	C.fill()
	freed := rss()
	debug.FreeOSMemory()
	collected := rss()
	outcome, err := scavenge.Release()
	if err != nil {
		panic(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"freed": freed, "collected": collected, "released": rss(), "trim": outcome.Trim.String()}); err != nil {
		panic(err)
	}
}
