// SPDX-License-Identifier: Apache-2.0

//go:build memguard_sidecar

package main

import "github.com/spf13/cobra"

const toolsHelp = ""

// tools are not in the binary of the sidecar's image, which is to be small: the tag
// memguard_sidecar leaves them out.
func tools() []*cobra.Command { return nil }
