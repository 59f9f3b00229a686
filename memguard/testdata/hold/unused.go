// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"runtime"
	"runtime/debug"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// record is small enough for a span of 8 KiB to hold 63 of it or 64.
type record [128]byte

// unused: one of 16 small objects survives, so that every span keeps a few and
// none can be given back.
func unused() (held.Holds, any, error) {
	const of = 16
	debug.SetGCPercent(-1) // one cycle, at the end
	var survivors []*record
	for i := range amount / len(record{}) {
		r := new(record)
		r[0] = 1
		if i%of == 0 {
			survivors = append(survivors, r)
		}
	}
	runtime.GC()
	return held.Holds{
		memguard.RowLive:   amount / of,
		memguard.RowUnused: amount / of * (of - 1),
	}, survivors, nil
}
