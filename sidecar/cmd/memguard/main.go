// SPDX-License-Identifier: Apache-2.0

// Memguard explains the memory of Go processes: where every byte is, what is
// wrong, and how long it has. Run "memguard help".
package main

import (
	"os"

	"github.com/memguard/memguard-go/sidecar/internal/brink"
)

func main() {
	brink.KeepIfAsked() // a process that the sidecar starts beside itself; it does not return
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
