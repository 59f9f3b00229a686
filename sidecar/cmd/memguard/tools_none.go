// SPDX-License-Identifier: Apache-2.0

//go:build memguard_sidecar

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

const toolsHelp = `
This is the sidecar's own binary. The whole command, with explain, top, inspect and
the rest, is github.com/memguard/memguard-go/sidecar/cmd/memguard.
`

// tools are not in the binary of the sidecar's image, which is to be small: the tag
// memguard_sidecar leaves them out. What is asked for all the same says so.
func tools() (all []*cobra.Command) {
	for _, name := range []string{"explain", "ledger", "top", "inspect", "leak", "gctrace", "trace", "demo"} {
		all = append(all, &cobra.Command{Use: name, Hidden: true, DisableFlagParsing: true, RunE: func(*cobra.Command, []string) error {
			return errors.New(name + " is not in the sidecar's own binary: use the whole command")
		}})
	}
	return all
}
