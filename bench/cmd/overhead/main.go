// SPDX-License-Identifier: Apache-2.0

// Overhead measures what a guard costs a healthy HTTP service: CPU for each
// request, CPU at rest, latency and resident memory.
//
//	go run ./bench/cmd/overhead                       the guard beside no guard, by turns
//	go run ./bench/cmd/overhead --fail-over 0.5       status 1 when it costs more than 0.5 % of CPU
//	go run ./bench/cmd/overhead --steady 10m          one long run under guard: must say and change nothing
//
// The service, in a memory cgroup of its own, and the load are processes of
// their own. In each round every way has its turn, in an order that is turned
// round each time (A B C, C B A), under the same requests at the same times; so
// what else the machine does hits all of them. The ratio of each round is of two
// neighbours in time; the interval around the typical ratio is that of
// Wilcoxon's signed-rank test, which asks nothing of how the noise looks. A loud
// machine makes it wide; more rounds make it narrow.
//
// The CPU at rest is measured apart: after its load each service is left alone
// for a while. What a guard's ticks cost is all that happens then, so that this
// figure is sharp where the ratio is not.
//
// Exit status: 0 fine, 1 over the budget (--fail-over), or a steady run was not
// steady, 2 wrong usage, 3 could not be measured, 130 interrupted.
package main

import (
	"os"

	"github.com/memguard/memguard-go/bench/overhead"
)

func main() { os.Exit(overhead.Main(os.Args[1:], os.Stdout, os.Stderr)) }
