// SPDX-License-Identifier: Apache-2.0

// Oomlab is the lab of bench/cmd/oomlab with other people's guards beside this
// project's. Run "oomlab help".
package main

import (
	"os"
	"slices"

	"github.com/memguard/memguard-go/bench/contender"
	"github.com/memguard/memguard-go/bench/lab"
	"github.com/memguard/memguard-go/bench/peers"
	"github.com/memguard/memguard-go/bench/scenario"
)

func main() {
	os.Exit(lab.Main(os.Args[1:], scenario.All, slices.Concat(contender.All, peers.All)...))
}
