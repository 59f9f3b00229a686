// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/memguard/memguard-go/memguard"
	"github.com/spf13/cobra"
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
` + toolsHelp + `
  memguard sidecar --exe GLOB  watch services, record, take orders, explain their death
  memguard exec -- ./app       run a service so that the sidecar hears what it prints
  memguard incident list       what has died, and how

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
	root.AddCommand(append(tools(), sidecarCommand(), execCommand(), incidentCommand())...)

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
