// SPDX-License-Identifier: Apache-2.0

package gctrace_test

import (
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/memguard/memguard-go/pacer/gctrace"
)

const stderr = `2026/11/21 20:26:16 listening on :8080
gc 1 @0.045s 2%: 0.028+4.6+0.009 ms clock, 0.057+0.092/0.085/0.064+0.019 ms cpu, 4->5->1 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 2 P
scav 528 KiB work (bg), 0 KiB work (eager), 1248 KiB now, 37% util
gc 2 @0.2122026/11/21 20:26:16 GET /
s 1%: 0.016+5.7+0.008 ms clock, 0.033+0/0.090/0.20+0.016 ms cpu, 28->54->25 MB, 34 MB goal, 0 MB stacks, 0 MB globals, 2 P
gc 3 @1.035s 1%: 0.024+7.6+0.046 ms clock, 0.048+0/0.11/0.17+0.092 ms cpu, 42->50->7 MB, 50 MB goal, 0 MB stacks, 0 MB globals, 2 P (forced)
`

func ExampleReader() {
	r := gctrace.NewReader(strings.NewReader(stderr))
	for r.Scan() {
		switch rec := r.Record().(type) {
		case *gctrace.Cycle:
			fmt.Printf("cycle %d: stopped for %v, %d MiB live\n", rec.N, rec.SweepTerm+rec.MarkTerm, rec.HeapLive>>20)
		case *gctrace.Scavenge:
			released, _ := rec.Released.Get()
			fmt.Printf("scavenger: %d KiB are with the operating system\n", released>>10)
		case *gctrace.SyntaxError:
			fmt.Printf("torn: line %d\n", rec.Line)
		}
	}
	if err := r.Err(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Skipped(), "of", r.Lines(), "lines are not the runtime's")
	// Output:
	// cycle 1: stopped for 37µs, 1 MiB live
	// scavenger: 1248 KiB are with the operating system
	// torn: line 4
	// cycle 3: stopped for 70µs, 7 MiB live
	// 2 of 6 lines are not the runtime's
}

func ExampleSummary() {
	var s gctrace.Summary
	if _, err := s.ReadFrom(strings.NewReader(stderr)); err != nil {
		log.Fatal(err)
	}
	r := s.Report()
	fmt.Println(r.Verdict)
	fmt.Println(r.Cycles, "cycles read,", r.MissingCycles, "missing,", r.Forced, "forced")
	// Output:
	// nothing wrong in 2 cycles
	// 2 cycles read, 1 missing, 1 forced
}

func ExampleSummary_WriteText() {
	f, err := os.Open("testdata/go1.12.17-idle.txt")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	var s gctrace.Summary
	if _, err := s.ReadFrom(f); err != nil {
		log.Fatal(err)
	}
	if err := s.WriteText(os.Stdout, 80, false); err != nil {
		log.Fatal(err)
	}
	// Output:
	// OK  nothing wrong in 7 cycles
	//
	//   cycles       7 in 2m0s, 0.05 a second, 6 in the worst second, 1 forced,
	//                1 periodic
	//   GC CPU       0.0 % between these cycles, 0 % since the program's start
	//   sweep term.  p50 5 µs, p90 9 µs, p99 9 µs, max 9 µs, 0 over 500 µs
	//   mark term.   p50 5 µs, p90 13 µs, p99 13 µs, max 13 µs, 0 over 500 µs
	//   heap         live below 1 MiB, peak 112 MiB, goal 4 MiB, steady
	//   scavenger    2 lines, 1 forced, 127 MiB returned in all, 127 MiB returned now
	//   lines        10, 0 not the runtime's
	//
	//    119 MiB ┤─
	//            │
	//            │▒
	//     79 MiB ┤▒
	//            │▒
	//            │▒
	//     39 MiB ┤▒
	//            │▒
	//            │▒
	//          0 ┤▒                                                                  ─
	//            └────────────────────────────────────────────────────────────────────
	//             @0 s                                                           @2m0s
	//             █ live ▒ at start ░ at end ─ goal
}
