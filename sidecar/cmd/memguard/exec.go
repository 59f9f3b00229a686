// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
)

// Exit statuses of exec when the command did not run, those of env(1) and sh(1).
const (
	exitNotRunnable = 126
	exitNotFound    = 127
)

// execution is what `memguard exec` is asked for.
type execution struct {
	args    []string
	state   string // directory for the sidecar; empty: none
	summary bool
	keeper  bool
}

func execCommand() *cobra.Command {
	var x execution
	c := &cobra.Command{
		Use:   "exec [--state DIR] [--summary] -- COMMAND [ARG...]",
		Short: "Run a service and read what its collector prints",
		Long: `Exec runs a service with gctrace=1 added to its GODEBUG, and stands between it and
its standard error: the lines about collections are taken out, everything else is
passed on as it is and at once. Standard input and output are the service's own.
Signals are passed on, the exit status is the service's, and a service that a
signal ended ends exec by the same signal. As process 1 of a container exec reaps
what is orphaned. With a terminal it does what a shell does: the service has it,
and Ctrl-C and Ctrl-Z are the service's.

With --state, a sidecar reads there the collections, the last 64 KiB of standard
error, with the beginning of a dump that is longer, and how the service ended. With
--summary, exec says at the end what the collections add up to.

If the service's GODEBUG has a gctrace of its own, its lines stay where they are.

Killed with SIGKILL, exec leaves the service running: a second process, which holds
the pipe and sleeps until then, goes on passing standard error through. Nobody
passes signals on any more. The service has a process group of its own, so who kills
ours with SIGKILL does not reach it.

Under systemd, set KillMode=mixed, or the service gets SIGTERM twice, and
NotifyAccess=all if it notifies; sockets that systemd passes by LISTEN_PID do not
reach it. On a terminal the service sees a pipe as standard error, so it may print
without colours. When whoever reads our standard error stands still, the service runs
on until it has printed a megabyte more; then it waits, its collector included.`,
		Example: "  memguard exec -- ./orders --listen :8080\n  memguard exec --state /run/memguard/exec -- ./orders",
		Args:    cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			x.args = args
			if x.keeper {
				return x.keep()
			}
			if len(args) == 0 || args[0] == "" {
				return errors.New("exec: which command?")
			}
			return x.run(c.ErrOrStderr())
		},
	}
	c.Flags().SetInterspersed(false) // the command's flags are its own
	c.Flags().StringVar(&x.state, "state", "", "keep collections, the last of standard error and the exit status in `DIR` (0700) for a sidecar")
	c.Flags().BoolVar(&x.summary, "summary", false, "when the service has ended, say on standard error what its collections add up to")
	c.Flags().BoolVar(&x.keeper, "keeper", false, "")
	_ = c.Flags().MarkHidden("keeper")
	return c
}

// traced returns the environment with gctrace=1 in GODEBUG, and whether there was
// a gctrace already, which stays as it is.
func traced(env []string) (out []string, theirs bool) {
	const name = "GODEBUG="
	found := false
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name); ok {
			found = true
			for setting := range strings.SplitSeq(v, ",") {
				theirs = theirs || strings.HasPrefix(setting, "gctrace=")
			}
		}
	}
	if theirs {
		return env, true
	}
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name); ok {
			kv = name + strings.TrimPrefix(strings.TrimSuffix(v, ",")+",gctrace=1", ",")
		}
		out = append(out, kv)
	}
	if !found {
		out = append(out, name+"gctrace=1")
	}
	return out, false
}

// died is an exit status as a shell counts it.
func died(signal int) int { return 128 + signal }
