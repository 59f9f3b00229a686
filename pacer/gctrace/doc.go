// SPDX-License-Identifier: Apache-2.0

// Package gctrace reads what a Go program prints on standard error when it
// runs with GODEBUG=gctrace=1 or scavtrace=1, for every release from Go 1.9 to
// Go 1.27, and sums it up.
//
// A [Reader] turns a stream into records; a [Summary] turns records into
// answers and findings. The stream may hold anything else: log lines are
// passed over and counted. A line that begins like one of the runtime's but
// does not parse is a [SyntaxError] record, and reading goes on behind it.
// That happens to every busy program, because the runtime writes one line in
// about forty write(2) calls (runtime/print.go, gwrite) and other writers get
// in between. The reader never repairs such a line: it reports numbers that
// stood in one whole line, or none.
//
// # Grammar
//
// What Go prints, in the words of this package. N is a decimal integer, T a
// time in milliseconds with two significant digits and at most three decimals
// (runtime/mgc.go, fmtNSAsMS), so 0 is anything below a microsecond; an MB is
// 1<<20 bytes, rounded down; a KiB is 1<<10 bytes, rounded down.
//
//	cycle = "gc N @N.NNNs N%" [ note ] ": " clock ", " cpu ", " heap ", " [ roots ", " ] "N P" [ " (forced)" ]
//	clock = "T+T+T ms clock"            sweep termination, concurrent mark, mark termination
//	cpu   = "T+T/T/T+T ms cpu"          sweep term., assist/dedicated+fractional/idle, mark term.
//	heap  = "N->N->N MB, N MB goal"     at start, at mark end, marked live
//	roots = "N MB stacks, N MB globals" Go 1.18 and later
//	note  = " (checking for goroutine leaks)"  Go 1.26 and later, for the leak profile
//
//	Go 1.9-1.12   gctrace=1    "scvgN: N MB released", N is -1 for debug.FreeOSMemory
//	                           "scvgN: inuse: N, idle: N, sys: N, released: N, consumed: N (MB)"
//	Go 1.13       gctrace=1    the same with "scvg: " or "forced scvg: " for "scvgN: "
//	Go 1.14       scavtrace=1  "scav N KiB work, N KiB total, N% util"
//	Go 1.15-1.18  scavtrace=1  "scav GENERATION N KiB work, N KiB total, N% util"
//	Go 1.19-1.20  scavtrace=1  "scav N KiB work, N KiB total, N% util"
//	Go 1.21-1.27  scavtrace=1  "scav N KiB work (bg), N KiB work (eager), N KiB now, N% util"
//	              each scav line may end in " (forced)"; since Go 1.18 in " [controller reset]"
//
//	Go 1.9-1.27   gctrace=1       "GC forced"      before a cycle that two idle minutes caused
//	Go 1.25-1.27  gctrace=2       "scan: ..."      objects and spans scanned by size class
//	Go 1.9-1.27   gcpacertrace=1  "pacer: ..."
//
// Text that a later release may put where note stands, or behind the P, is
// kept in [Cycle.Note] and [Cycle.Suffix] and does not break the reading.
//
// What the columns mean moved, too. The goal is the one at the start of the
// cycle up to Go 1.18 and the one at its end since Go 1.19. Stacks are the
// scannable stack at the cycle's start in Go 1.18, its maximum in Go 1.19, and
// what the cycle before scanned since Go 1.20. (forced) stands behind every
// cycle that runtime.GC, debug.FreeOSMemory or the leak profile caused, not
// behind the one that follows "GC forced".
//
// # Lines with something in front
//
// Log collectors put a time or a container's name in front of a line
// (journald, docker compose, kubectl logs --timestamps). A whole cycle or scav
// line at the end of a line is read as if it stood alone, unless the text in
// front is itself a piece of such a line. Lines wrapped in JSON have to be
// unwrapped first (docker logs does). The stream should be that of one
// process: two processes in one stream look like one that restarts.
//
// # How to get such a stream safely
//
// Only the environment at exec time turns the traces on. The runtime prints
// while it holds up the next cycle, so a pipe that nobody drains stops the
// whole program at its first collection: give it a file, or drain the pipe
// before the program starts.
package gctrace
