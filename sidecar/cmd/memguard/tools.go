// SPDX-License-Identifier: Apache-2.0

//go:build !memguard_sidecar

package main

import "github.com/spf13/cobra"

const toolsHelp = `
  memguard explain --pid N     the verdict, the ledger, findings and remedies
  memguard ledger --pid N      where the memory is, and nothing else
  memguard top --pid N         a live page: ledger, time left, findings, events
  memguard inspect --pid N     the Go runtime's own state, from outside
  memguard leak --pid N        which goroutines grow between two looks
  memguard gctrace app.log     what the collector's own lines say
  memguard trace app.trace     an execution trace as the collector's story
  memguard demo                one service lives twice under a real limit: killed, and guarded`

// tools are the commands that a person looks with.
func tools() []*cobra.Command {
	return []*cobra.Command{explainCommand(), ledgerCommand(), topCommand(), inspectCommand(), leakCommand(), gctraceCommand(), traceCommand(), demoCommand()}
}
