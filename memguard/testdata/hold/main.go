// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command hold holds memory in one known state, in pure Go. See package held.
package main

import "github.com/memguard/memguard-go/memguard/testdata/hold/held"

// amount is what every case holds, or nearly.
const amount = 200 * held.MiB

func main() {
	held.Main(map[string]held.Case{
		"live":         live,
		"dead":         dead,
		"unused":       unused,
		"free":         free,
		"stacks":       stacks,
		"untouched":    untouched,
		"thp":          thp,
		"thp-refill":   thpRefill,
		"thp-split":    thpSplit,
		"lazyfree":     lazyFree,
		"anon":         anon,
		"anon-many":    anonMany,
		"anon-aligned": anonAligned,
		"file-shared":  fileShared,
		"file-private": filePrivate,
		"file-dirty":   fileDirty,
		"file-locked":  fileLocked,
		"memfd":        memfd,
		"devshm":       devShm,
		"shared-anon":  sharedAnon,
	})
}
