// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/memguard/memguard-go/sidecar/demo"
	"github.com/spf13/cobra"
)

func demoCommand() *cobra.Command {
	var (
		cfg demo.Config
		mib uint64
		p   printer
	)
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch a real service die under a real memory limit, and learn why",
		Long: `Demo builds examples/orders, a small HTTP service with a leak, starts it in a
memory cgroup with a limit, and sends it orders until the kernel kills it. Then
it tells what happened from the evidence that is left.

Creating a memory cgroup takes root, or a delegated subtree in cgroup v2. Where
none may be created, the demo watches the resident size and kills in the
kernel's place, and says so. It takes under two minutes and leaves nothing
behind, also after Ctrl-C.

Progress goes to standard error, the story (with --json the outcome) to standard
output.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if mib < 64 || mib > 1<<20 {
				return fmt.Errorf("--limit %d: want 64 MiB to 1 TiB", mib)
			}
			p.out = c.OutOrStdout()
			cfg.Limit = mib << 20
			progress(c.ErrOrStderr(), &cfg)
			out, err := demo.Run(c.Context(), cfg)
			if errors.Is(err, context.Canceled) {
				err = errors.New("interrupted; nothing is left behind")
			}
			if err != nil {
				return cannotLook(err)
			}
			return p.print(out, func(w io.Writer) error { return out.Tell(w, p.text()) })
		},
	}
	c.Flags().StringVar(&cfg.Service, "service", "", "executable of a built examples/orders; without it the demo builds it")
	c.Flags().Uint64Var(&mib, "limit", 256, "memory limit in MiB")
	p.jsonFlag(c)
	return c
}

// progress shows the steps and, on a terminal, a bar that fills up; elsewhere a
// line every five seconds.
func progress(w io.Writer, cfg *demo.Config) {
	live := isTerminal(w)
	cfg.Say = func(line string) { fmt.Fprintln(w, "-", line) }
	last := 0.0
	cfg.Show = func(pt demo.Point) {
		share := min(float64(pt.Usage)/float64(cfg.Limit), 1)
		left := ""
		if pt.Left > 0 {
			left = fmt.Sprintf(", about %.0f s left", pt.Left)
		}
		line := fmt.Sprintf("  %4.0f s  %s %3d of %d MiB%s", pt.Second, bar(share, 30), pt.Usage>>20, cfg.Limit>>20, left)
		switch {
		case live:
			fmt.Fprintf(w, "\r%s\x1b[K", line)
		case pt.Second-last >= 5:
			last = pt.Second
			fmt.Fprintln(w, line)
		}
	}
}

// bar draws a share of the whole.
func bar(share float64, columns int) string {
	n := int(share * float64(columns))
	return strings.Repeat("█", n) + strings.Repeat("░", columns-n)
}
