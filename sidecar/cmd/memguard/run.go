// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// The exit status of every command.
const (
	exitFine    = 0 // looked; nothing at or above --fail-on
	exitFinding = 1 // a finding at or above --fail-on
	exitUsage   = 2 // the command line is wrong
	exitBlind   = 3 // could not look
)

const rootHelp = `memguard explains the memory of Go processes: where every byte is, what is
wrong with it, and how long it has until the kernel's limit.

  memguard explain --pid N     the verdict, the ledger, findings and remedies
  memguard ledger --pid N      where the memory is, and nothing else
  memguard top --pid N         a live page: ledger, time left, findings, events
  memguard inspect --pid N     the Go runtime's own state, from outside
  memguard leak --pid N        which goroutines grow between two looks
  memguard gctrace app.log     what the collector's own lines say
  memguard trace app.trace     an execution trace as the collector's story
  memguard sidecar --exe GLOB  watch services, record, take orders, explain their death
  memguard exec -- ./app       run a service so that the sidecar hears what it prints
  memguard incident list       what has died, and how
  memguard demo                one service lives twice under a real limit: killed, and guarded

Exit status: 0 fine, 1 a finding at or above --fail-on, 2 wrong usage,
3 could not look (no such process, no permission, no such file).`

// status is an error that knows the exit status.
type status struct {
	code int
	err  error // nil: nothing to say
}

func (s *status) Error() string { return fmt.Sprint(s.err) }
func (s *status) Unwrap() error { return s.err }

// cannotLook is what a command returns when it could not do its work.
func cannotLook(err error) error { return &status{exitBlind, err} }

// run is the program.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "memguard",
		Short:         "Explain the memory of Go processes",
		Long:          rootHelp,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(explainCommand(), ledgerCommand(), topCommand(), inspectCommand(), leakCommand(), gctraceCommand(), traceCommand(), incidentCommand(), sidecarCommand(), execCommand(), demoCommand())

	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args = cobra.NoArgs // an unknown shell is wrong usage
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	}

	err := root.ExecuteContext(ctx)
	var s *status
	switch {
	case err == nil:
		return exitFine
	case !errors.As(err, &s):
		fmt.Fprintf(stderr, "memguard: %v\nRun 'memguard help' for the commands and their flags.\n", err)
		return exitUsage
	case s.err != nil:
		say(stderr, s.err)
	}
	return s.code
}

// say prints an error. Those of package memguard begin with the name already.
func say(stderr io.Writer, err error) {
	fmt.Fprintf(stderr, "memguard: %s\n", strings.TrimPrefix(err.Error(), "memguard: "))
}

// failOn is the value of --fail-on.
type failOn struct{ memguard.Severity }

const never = "never"

func (f *failOn) Set(s string) error {
	if s == never {
		f.Severity = memguard.Critical + 1
		return nil
	}
	if f.UnmarshalText([]byte(s)) != nil {
		return fmt.Errorf("want info, warning, critical or never")
	}
	return nil
}

func (f *failOn) String() string {
	if f.Severity > memguard.Critical {
		return never
	}
	return f.Severity.String()
}

func (f *failOn) Type() string { return "severity" }

// status is the error that makes the exit status 1 when the worst finding
// reaches f.
func (f *failOn) status(worst memguard.Severity) error {
	if worst >= f.Severity {
		return &status{exitFinding, nil}
	}
	return nil
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

func (f *failOn) flag(c *cobra.Command) {
	f.Severity = memguard.Critical
	c.Flags().Var(f, "fail-on", "exit with 1 on a finding of this severity or above: info, warning, critical, never")
	_ = c.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions([]string{"info", "warning", "critical", never}, cobra.ShellCompDirectiveNoFileComp))
}

// pidFlag adds --pid.
func pidFlag(c *cobra.Command, pid *int) {
	c.Flags().VarP((*pidValue)(pid), "pid", "p", "process to look at")
	_ = c.MarkFlagRequired("pid")
	_ = c.RegisterFlagCompletionFunc("pid", completePID)
}

// pidValue is the value of --pid.
type pidValue int

func (p *pidValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 {
		return errors.New("want a process id, a number above zero")
	}
	*p = pidValue(n)
	return nil
}

func (p *pidValue) String() string {
	if *p == 0 {
		return ""
	}
	return strconv.Itoa(int(*p))
}

func (p *pidValue) Type() string { return "pid" }

// version is what the binary was built from.
func version() string {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := cmp.Or(bi.Main.Version, "(devel)")
	for _, kv := range bi.Settings {
		if kv.Key == "vcs.revision" && v == "(devel)" {
			v += " " + kv.Value
		}
	}
	return v + " " + bi.GoVersion
}

// printer writes what a command found, as text or as JSON.
type printer struct {
	out   io.Writer
	json  bool
	watch bool
	every time.Duration
}

func (p *printer) jsonFlag(c *cobra.Command) {
	c.Flags().BoolVar(&p.json, "json", false, "print JSON")
}

func (p *printer) watchFlags(c *cobra.Command) {
	c.Flags().BoolVarP(&p.watch, "watch", "w", false, "look again and again until interrupted or the process ends; with --json a line for each look")
	p.every = 2 * time.Second
	c.Flags().Var((*above0)(&p.every), "every", "with --watch: time between two looks")
}

// above0 is the value of a flag for a time above zero.
type above0 time.Duration

func (d *above0) Set(s string) error {
	n, err := time.ParseDuration(s)
	if err == nil && n <= 0 {
		err = errors.New("want a time above zero, such as 2s")
	}
	*d = above0(n)
	return err
}

func (d *above0) String() string { return time.Duration(*d).String() }
func (d *above0) Type() string   { return "duration" }

// text is how to write for whoever reads p.out.
func (p *printer) text() memguard.Text {
	width, color := terminal(p.out)
	return memguard.Text{Width: width, Color: color}
}

// print writes v as JSON, or as text does.
func (p *printer) print(v any, text func(io.Writer) error) error {
	var err error
	if p.json {
		e := json.NewEncoder(p.out)
		if !p.watch {
			e.SetIndent("", "  ")
		}
		err = e.Encode(v)
	} else {
		if p.watch && isTerminal(p.out) {
			fmt.Fprint(p.out, "\x1b[H\x1b[2J") // home and clear
		}
		err = text(p.out)
	}
	if err != nil {
		return cannotLook(fmt.Errorf("writing: %w", err))
	}
	return nil
}

// show writes what lays itself out for a terminal's width.
func (p *printer) show(v interface {
	WriteText(w io.Writer, width int, color bool) error
}) error {
	width, color := terminal(p.out)
	return p.print(v, func(w io.Writer) error { return v.WriteText(w, width, color) })
}

// repeat calls look once, or with --watch until the context ends or look fails.
// That the process ends is the natural end of watching it.
func (p *printer) repeat(ctx context.Context, look func() error) error {
	for {
		if err := look(); err != nil || !p.watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(p.every):
		}
	}
}

// isTerminal reports whether rw, a reader or a writer, is a terminal.
func isTerminal(rw any) bool {
	f, ok := rw.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminal returns the width to write for, and whether w is a terminal that
// takes colours.
func terminal(w io.Writer) (width int, color bool) {
	if !isTerminal(w) {
		return 80, false
	}
	width = 80
	if n, _, err := term.GetSize(int(w.(*os.File).Fd())); err == nil && n > 0 {
		width = min(n, 120)
	}
	return width, os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
