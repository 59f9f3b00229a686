// SPDX-License-Identifier: Apache-2.0

// Oomlab reproduces out-of-memory kills under a real limit of the kernel, and
// shows which guard keeps a service alive. Run "oomlab help".
package main

import (
	"os"

	"github.com/memguard/memguard-go/bench/contender"
	"github.com/memguard/memguard-go/bench/lab"
	"github.com/memguard/memguard-go/bench/scenario"
)

func main() { os.Exit(lab.Main(os.Args[1:], scenario.All, contender.All...)) }
