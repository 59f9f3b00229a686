// SPDX-License-Identifier: Apache-2.0

//go:build !memguard_sidecar

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/demo"
	"github.com/spf13/cobra"
)

func demoCommand() *cobra.Command {
	var (
		cfg demo.Config
		p   printer
	)
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch one real service live twice under a real memory limit",
		Long: `Demo builds examples/orders, a small HTTP service without a leak, starts it in a
memory cgroup of 128 MiB, and sends it orders, with bursts that do not fit. The
kernel kills it, and it is started again. Then the same service gets the same
load with memguard's guard in it, and lives. The demo puts the numbers of both
lives side by side, says why the first one died, and what the guard did.

Creating a memory cgroup takes root, or a delegated subtree in cgroup v2. Where
none may be created, the demo watches the resident size and kills in the
kernel's place, and says so. It takes under a minute and leaves nothing behind,
also after Ctrl-C; --keep leaves the guard's evidence.

Progress goes to standard error, the story (with --json the outcome) to standard
output. The exit status is 1 if the guarded service died.`,
		Example: "  memguard demo\n  memguard demo --keep evidence && memguard incident evidence",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p.out = c.OutOrStdout()
			progress(c.ErrOrStderr(), &cfg)
			cfg.Open = func(ctx context.Context, pid int) (*memguard.Source, func(), error) {
				s, err := openSource(ctx, pid)
				if err != nil {
					return nil, nil, err
				}
				return s.Source, s.Close, nil
			}
			out, err := demo.Run(c.Context(), cfg)
			if errors.Is(err, context.Canceled) {
				err = errors.New("interrupted; nothing is left behind")
			}
			if err != nil {
				return cannotLook(err)
			}
			if err := p.print(out, out.Tell); err != nil {
				return err
			}
			if len(out.Guarded.Deaths) > 0 {
				return &status{exitFinding, nil}
			}
			return nil
		},
	}
	c.Flags().StringVar(&cfg.Service, "service", "", "`executable` of a built examples/orders; without it the demo builds it")
	c.Flags().StringVar(&cfg.Keep, "keep", "", "`directory` where the guard's evidence stays")
	p.jsonFlag(c)
	return c
}

// progress shows the steps and, on a terminal, a bar that fills up; elsewhere a
// line every five seconds.
func progress(w io.Writer, cfg *demo.Config) {
	live := isTerminal(w)
	open := false // a line that the next one overwrites
	cfg.Say = func(line string) {
		if open {
			fmt.Fprintln(w)
			open = false
		}
		fmt.Fprintln(w, "-", line)
	}
	last := 0.0
	cfg.Show = func(n demo.Now) {
		if n.Second < last {
			last = 0 // another life
		}
		share := min(float64(n.Usage)/float64(n.Limit), 1)
		line := fmt.Sprintf("  %4.0f s  %s %3d of %d MiB, deaths: %d", n.Second, bar(share, 30), n.Usage>>20, n.Limit>>20, n.Deaths)
		switch {
		case live:
			fmt.Fprintf(w, "\r%s\x1b[K", line)
			open = true
		case n.Second-last >= 5:
			last = n.Second
			fmt.Fprintln(w, line)
		}
	}
}

// bar draws a share of the whole.
func bar(share float64, columns int) string {
	n := int(share * float64(columns))
	return strings.Repeat("█", n) + strings.Repeat("░", columns-n)
}
