// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// The exit status of every command.
const (
	exitFine        = 0
	exitFailed      = 1   // --fail-on: a run failed
	exitUsage       = 2   // the command line is wrong
	exitCannot      = 3   // could not do it: no memory cgroup may be made, a file cannot be read
	exitInterrupted = 130 // by Ctrl-C, as a shell would say it
)

const mainHelp = `oomlab runs services that get into trouble with their memory, under a real limit
that the kernel enforces by killing, and shows which guard keeps them alive.

  oomlab list                  the scenarios and the guards
  oomlab run --smoke           a first impression, in under 90 seconds
  oomlab run bursts --guard plain,memguard --repeat 3 --json out
  oomlab report out            table and HTML page of earlier runs
  oomlab compare before after  what changed, and what is noise

Exit status: 0 fine, 1 a run failed (see run --fail-on), 2 wrong usage,
3 could not (no memory cgroup may be made, no such results), 130 interrupted.`

// status is an error that knows the exit status.
type status struct {
	code int
	err  error // nil: nothing to say
}

func (s *status) Error() string { return fmt.Sprint(s.err) }
func (s *status) Unwrap() error { return s.err }

func cannot(err error) error { return &status{exitCannot, err} }

// Main is the lab's program: it runs the command line args (without the
// program's name) and returns the exit status.
//
// A run starts copies of the program; in these Main plays the part that they are
// to play, whatever the arguments.
func Main(args []string, scenarios []Scenario, contenders ...Contender) int {
	if IsChild() {
		return child(scenarios, contenders)
	}
	return command(args, os.Stdout, os.Stderr, scenarios, contenders)
}

func command(args []string, stdout, stderr io.Writer, scenarios []Scenario, contenders []Contender) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait
	root := &cobra.Command{
		Use:           "oomlab",
		Short:         "Reproduce out-of-memory kills, and see who survives them",
		Long:          mainHelp,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(listCommand(scenarios, contenders), runCommand(scenarios, contenders), reportCommand(), compareCommand())
	err := root.ExecuteContext(ctx)
	var s *status
	switch {
	case err == nil:
		return exitFine
	case errors.Is(err, sandbox.ErrUnsupported):
		say(stderr, err)
		fmt.Fprintln(stderr, "Making one takes root, or a delegated part of the tree on cgroup v2: systemd-run --user --scope -p Delegate=yes")
		return exitCannot
	case !errors.As(err, &s):
		say(stderr, err)
		fmt.Fprintln(stderr, "Run 'oomlab help' for the commands and their flags.")
		return exitUsage
	case s.err != nil:
		say(stderr, s.err)
	}
	return s.code
}

func say(stderr io.Writer, err error) {
	fmt.Fprintf(stderr, "oomlab: %s\n", strings.TrimPrefix(err.Error(), "lab: "))
}

// version is what the binary was built from.
func version() string {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return bi.Main.Version + " " + bi.GoVersion
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminal returns the width to write for, and whether w takes colours.
func terminal(w io.Writer) (width int, color bool) {
	if !isTerminal(w) {
		return 100, false
	}
	width = 80
	if n, _, err := term.GetSize(int(w.(*os.File).Fd())); err == nil && n > 0 {
		width = min(n, 140)
	}
	return width, os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
