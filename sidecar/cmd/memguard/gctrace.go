// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/memguard/memguard-go/memguard"
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
			width, color := terminal(p.out)
			if werr := p.print(&s, func(w io.Writer) error { return s.WriteText(w, width, color) }); werr != nil {
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

// input opens the file that the arguments name, or standard input.
func input(c *cobra.Command, args []string) (in io.ReadCloser, name string, err error) {
	if len(args) == 0 || args[0] == "-" {
		if isTerminal(c.InOrStdin()) {
			fmt.Fprintln(c.ErrOrStderr(), "reading standard input; Ctrl-D ends it")
		}
		return io.NopCloser(c.InOrStdin()), "standard input", nil
	}
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() { // opening a FIFO waits for its writer
		f, err := os.Open(args[0])
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return nil, "", o.err
		}
		return o.f, args[0], nil
	case <-c.Context().Done():
		return nil, "", fmt.Errorf("interrupted while opening %s", args[0])
	}
}

// grace is how long input may still come after an interrupt. The interrupt of a
// terminal reaches the program at the other end of a pipe too, and what that
// still has to say belongs to the story.
const grace = 500 * time.Millisecond

// untilDone reads from r until ctx ends, and then, after the grace, says that r
// has ended.
func untilDone(ctx context.Context, r io.Reader) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		_, err := io.Copy(pw, r)
		pw.CloseWithError(err) // nil is io.EOF
	}()
	context.AfterFunc(ctx, func() { time.AfterFunc(grace, func() { pw.Close() }) })
	return bufio.NewReaderSize(pr, 64<<10)
}

// worst is the highest severity of findings that have their own type.
func worst[F any](findings []F, severity func(F) string) (most memguard.Severity) {
	for _, f := range findings {
		var s memguard.Severity
		if s.UnmarshalText([]byte(severity(f))) == nil {
			most = max(most, s)
		}
	}
	return most
}
