// SPDX-License-Identifier: Apache-2.0

// Micro runs the benchmarks of the hot paths beside what other people use for
// the same, and prints the ratios.
//
//	go run ./bench/cmd/micro [--benchtime 1s] [--json]
//
// The benchmarks are those of the packages. Each takes turns between the two
// sides, so that what else the machine does hits both, and reports the ratio
// itself; this command runs them and makes one table of them. The benchmarks'
// own lines, which benchstat reads, go to standard error.
//
// Exit status: 0 every ratio is there or was skipped, 2 wrong usage, 3 a
// benchmark failed or has another metric now.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
