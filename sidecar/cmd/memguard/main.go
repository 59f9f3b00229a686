// SPDX-License-Identifier: Apache-2.0

// Memguard explains the memory of Go processes: where every byte is, what is
// wrong, and how long it has. Run "memguard help".
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
