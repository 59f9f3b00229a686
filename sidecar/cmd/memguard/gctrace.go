// SPDX-License-Identifier: Apache-2.0

//go:build !memguard_sidecar

package main

import (
	"fmt"

	"github.com/memguard/memguard-go/pacer/gctrace"
	"github.com/spf13/cobra"
)

func gctraceCommand() *cobra.Command {
	var (
		p    printer
		fail failOn
	)
	c := &cobra.Command{
		Use:   "gctrace [FILE|-]",
		Short: "Say what the collector's own lines tell",
		Long: `Gctrace reads what a Go program run with GODEBUG=gctrace=1 (and scavtrace=1)
printed on standard error, among whatever else it printed there, and says what
the collector did: cycles, CPU, pauses, the heap against its goal, what the
scavenger returned, and what of it is wrong. It knows the lines of Go 1.9 to
1.27. Lines that are torn are counted and shown, and never guessed at.

Without FILE, or with -, it reads standard input to its end.`,
		Example: "  GODEBUG=gctrace=1,scavtrace=1 ./orders 2>gc.log; memguard gctrace gc.log\n  kubectl logs orders-0 | memguard gctrace --json | jq .findings",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p.out = c.OutOrStdout()
			in, name, err := input(c, args)
			if err != nil {
				return cannotLook(err)
			}
			defer in.Close()
			var s gctrace.Summary
			n, err := s.ReadFrom(untilDone(c.Context(), in))
			if err != nil {
				err = fmt.Errorf("reading %s: %w", name, err)
			} else if n == 0 {
				err = fmt.Errorf("%s is empty", name)
			}
			if err != nil && n == 0 {
				return cannotLook(err)
			}
			if werr := p.show(&s, s.WriteText); werr != nil {
				return werr
			}
			if err != nil {
				return cannotLook(err) // what was read before is shown above
			}
			return fail.status(worst(s.Report().Findings, func(f gctrace.Finding) string { return string(f.Severity) }))
		},
	}
	p.jsonFlag(c)
	fail.flag(c)
	return c
}
