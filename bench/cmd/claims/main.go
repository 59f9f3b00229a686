// SPDX-License-Identifier: Apache-2.0

// Claims runs statements about the memory of Go programs as experiments, on the
// toolchain that builds it and the kernel that it runs on. For each it prints
// the claim, what happened, the verdict, and the signal to watch instead.
//
//	go run ./bench/cmd/claims                       all that needs no kernel setting changed
//	go run ./bench/cmd/claims --list                their names
//	go run ./bench/cmd/claims --only goal-overshoot,stack-start
//	go run ./bench/cmd/claims --json                with every figure
//	go run ./bench/cmd/claims --markdown --touch-kernel >docs/claims.md
//
// Most claims are those of a widely copied article on why Go services die of
// memory at 3 am, put to the test one by one; the others are what it does not
// say and should. A verdict is computed from the figures that were measured.
// Beside it the program knows which verdict was found before, on Go 1.26 and
// 1.27; where today's differs it says so and exits with status 1.
//
// Every experiment runs in processes of its own, with GOGC, GOMEMLIMIT,
// GOMAXPROCS and GODEBUG unset unless it is about them. The kernel's settings
// stay as they are unless --touch-kernel is given; what that changes is said on
// standard error beforehand and put back after each claim, on a panic and on a
// signal too. Only SIGKILL leaves it changed.
//
// Exit status: 0 every verdict is the expected one, 1 one is not, 2 wrong usage,
// 3 an experiment could not be run, or a kernel setting not be put back. A
// claim that is skipped, with its reason, is none of these.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
