// SPDX-License-Identifier: Apache-2.0

//go:build !memguard_sidecar

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/spf13/cobra"
)

func explainCommand() *cobra.Command {
	var (
		pid  int
		look time.Duration
		p    printer
		fail failOn
	)
	c := &cobra.Command{
		Use:   "explain --pid N",
		Short: "Say where every byte of a process is and what is wrong with it",
		Long: `Explain looks at a running process and says, the verdict first, where its memory
is, what is wrong, what to do about it, and what could not be seen and why. It
works on any process; of a Go program it tells the runtime's own memory too, read
out of the process as it runs (see memguard inspect). It stops nothing and writes
nothing into the process. Where the service imports memguard and serves an agent,
it is the service's own guard that explains, from all that it has seen: --for is
not needed then. The output says which eye it was.

It needs the same user as the process, or CAP_SYS_PTRACE. Reading the address
space makes the kernel walk the page tables: 15-30 ms per GiB of RSS, during
which page faults of the process wait.`,
		Example: "  memguard explain --pid 4711\n  memguard explain --pid $(pidof orders) --for 30s --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p.out = c.OutOrStdout()
			if look < 0 {
				return fmt.Errorf("--for %v: want zero or more", look)
			}
			if a := dialAgent(c, pid); a != nil {
				defer a.Close()
				return askExplain(c, a, &p, &fail)
			}
			if p.watch {
				return watchExplain(c, pid, &p, &fail)
			}
			if isTerminal(c.ErrOrStderr()) && look >= time.Second {
				fmt.Fprintf(c.ErrOrStderr(), "looking for %v ...\r", look)
				defer fmt.Fprint(c.ErrOrStderr(), "\x1b[K")
			}
			src, err := openSource(c.Context(), pid)
			if err != nil {
				return cannotLook(hint(err))
			}
			defer src.Close()
			defer src.Source.Close()
			r, err := src.Explain(c.Context(), look)
			if err != nil {
				return cannotLook(hint(err))
			}
			if err := p.report(r, src.eye()); err != nil {
				return err
			}
			return fail.status(r.Worst())
		},
	}
	pidFlag(c, &pid)
	c.Flags().DurationVar(&look, "for", 3*time.Second, "how long to look: growth shows after 3s and can be a warning after 10s; 0 is one look")
	p.jsonFlag(c)
	p.watchFlags(c)
	fail.flag(c)
	return c
}

// watchExplain keeps one judge over all looks, so that trends have the whole
// time to show.
func watchExplain(c *cobra.Command, pid int, p *printer, fail *failOn) error {
	src, err := openSource(c.Context(), pid)
	if err != nil {
		return cannotLook(hint(err))
	}
	defer src.Close()
	g := memguard.Start(memguard.Config{Source: src.Source})
	defer g.Close()
	var worst memguard.Severity
	err = p.repeat(c.Context(), func() error {
		r, err := g.Report()
		if err != nil {
			return err
		}
		worst = max(worst, r.Worst())
		return p.report(r, src.eye())
	})
	return ended(c, err, fail.status(worst))
}

// askExplain has the service's own guard explain, which has looked all the time.
func askExplain(c *cobra.Command, a *agent.Client, p *printer, fail *failOn) error {
	var worst memguard.Severity
	err := p.repeat(c.Context(), func() error {
		r, err := a.Report(c.Context())
		if err != nil {
			return err
		}
		worst = max(worst, r.Worst())
		return p.report(r, eyeAgent)
	})
	return ended(c, err, fail.status(worst))
}

// report prints a report, and whose eye it was.
func (p *printer) report(r *memguard.Report, e eye) error {
	return p.print(struct {
		*memguard.Report
		Eye eye `json:"eye"`
	}{r, e}, func(w io.Writer) error {
		if err := p.text().Report(w, r); err != nil {
			return err
		}
		return e.write(w)
	})
}

func ledgerCommand() *cobra.Command {
	var (
		pid int
		p   printer
	)
	c := &cobra.Command{
		Use:   "ledger --pid N",
		Short: "Say which owner every resident byte of a process has",
		Long: `Ledger reads the address space of a process once and prints one row for each
owner of memory. The rows and the residual add up to RSS; the rows of the cgroup
add up to what the kernel charges. An unknown row is said to be unknown, and why.

In JSON: pid, rss, rows (each name, bytes or null with why), residual, cgroup in
the same form, and eye: agent, attach or kernel. Sizes are bytes.`,
		Example: "  memguard ledger --pid 4711\n  memguard ledger --pid 4711 --json | jq '.rows[] | select(.bytes > 1e7)'",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p.out = c.OutOrStdout()
			if a := dialAgent(c, pid); a != nil {
				defer a.Close()
				return ended(c, p.repeat(c.Context(), func() error {
					r, err := a.Report(c.Context())
					if err != nil {
						return err
					}
					return p.ledger(r.Ledger, eyeAgent)
				}), nil)
			}
			src, err := openSource(c.Context(), pid)
			if err != nil {
				return cannotLook(hint(err))
			}
			defer src.Close()
			defer src.Source.Close()
			var s memguard.Sample
			looked := false
			err = p.repeat(c.Context(), func() error {
				if err := src.Survey(&s); err != nil {
					return err
				}
				looked = true
				l := memguard.NewLedger(&s)
				if _, ok := l.RSS.Get(); !ok && len(s.Blind) > 0 {
					return fmt.Errorf("pid %d: %s: %s", pid, s.Blind[0].What, s.Blind[0].Why)
				}
				return p.ledger(l, src.eye())
			})
			if !looked && err != nil {
				return cannotLook(hint(err))
			}
			return ended(c, err, nil)
		},
	}
	pidFlag(c, &pid)
	p.jsonFlag(c)
	p.watchFlags(c)
	return c
}

// ledger prints a ledger, and whose eye it was.
func (p *printer) ledger(l *memguard.Ledger, e eye) error {
	return p.print(struct {
		*memguard.Ledger
		Eye eye `json:"eye"`
	}{l, e}, func(w io.Writer) error {
		if err := p.text().Ledger(w, l); err != nil {
			return err
		}
		return e.write(w)
	})
}
