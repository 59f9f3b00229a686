// SPDX-License-Identifier: Apache-2.0

// Overhead measures what a guard costs a healthy HTTP service: CPU for each
// request and each tick, CPU at rest, and resident memory.
//
//	go run ./bench/cmd/overhead                       guard and limiter beside none
//	go run ./bench/cmd/overhead --fail-over 0.5       status 1 when the guard takes more than 0.5 % of the CPU
//	go run ./bench/cmd/overhead --steady 10m          one long run under guard: must say and change nothing
//
// The service, in a memory cgroup of its own, and the load are processes of their
// own. A request takes a tenth more or less CPU from one second to the next on a
// machine that others use too, and two processes differ as much: so requests with the
// limiter and without, with a tick of the guard among them and without, are compared
// within milliseconds and in one process, and then round by round over many
// processes. The interval around a typical figure is that of Wilcoxon's signed-rank
// test, which asks nothing of how the noise looks; more rounds make it narrow.
//
// What is resident, and the CPU at rest, is compared between processes, one for each
// way: after some load each is left alone. CPU is measured twice: while the guard is
// new, for in its first 10 s it looks more often, and when it is not, which is what a
// service pays from then on.
//
// A tick of the guard at the edge of a window counts in part, and what the guard does
// every 15 s or less often beside its ticks does not: the CPU profile of a steady run
// shows all of it.
//
// Exit status: 0 fine, 1 over the budget (--fail-over), or a steady run was not
// steady, 2 wrong usage, 3 could not be measured, 130 interrupted.
package main

import (
	"os"

	"github.com/memguard/memguard-go/bench/overhead"
)

func main() { os.Exit(overhead.Main(os.Args[1:], os.Stdout, os.Stderr)) }
