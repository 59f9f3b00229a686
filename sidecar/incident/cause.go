// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"fmt"
	"syscall"

	"github.com/memguard/memguard-go/memguard"
)

// Cause says how a process ended.
type Cause string

// The causes, the worst first.
const (
	OOMKill       Cause = "oom-kill"          // by the kernel, for the limit of its own cgroup
	OOMAncestor   Cause = "oom-kill-ancestor" // by the kernel, for the limit of a cgroup above its own
	OOMMachine    Cause = "oom-kill-machine"  // by the kernel, because the machine had no memory left
	OOMSuspected  Cause = "oom-suspected"     // near its limit, and then nothing more
	GoOutOfMemory Cause = "go-out-of-memory"  // the operating system refused memory to the Go runtime
	GaveUp        Cause = "gave-up"           // its guard ended it: collecting helped no longer
	GoPanic       Cause = "go-panic"
	GoFatal       Cause = "go-fatal-error"    // any other that Go cannot recover from: a concurrent map write, a deadlock
	Signalled     Cause = "signal"            // by a signal, and not for lack of memory as far as the kernel counts
	ExitFailure   Cause = "exit-status"       // by itself, with a status other than 0
	Restarted     Cause = "machine-restarted" // the machine was started anew since
	OtherDeath    Cause = "other-death"       // not near its limit, and not as it meant to
	NotKnown      Cause = "unknown"           // nobody saw how, or whether
	StillRunning  Cause = "running"
	Replaced      Cause = "replaced"   // it did not end, but runs another program by now
	CleanExit     Cause = "clean-exit" // as it meant to
)

// Severity ranks a cause as a finding: an end for lack of memory, also a suspected
// one, is critical, any other end that was not meant is a warning, and the rest is 0.
func (c Cause) Severity() memguard.Severity {
	switch c {
	case OOMKill, OOMAncestor, OOMMachine, OOMSuspected, GoOutOfMemory, GaveUp:
		return memguard.Critical
	case StillRunning, Replaced, CleanExit:
		return 0
	}
	return memguard.Warning
}

// memory reports whether it was for lack of memory, so that it matters who held it.
func (c Cause) memory() bool { return c.Severity() == memguard.Critical }

// signals are Linux's, on amd64 and arm64 (signal(7)).
var signals = [...]string{
	1: "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1", "SIGSEGV",
	"SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU",
	"SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
}

func signalName(n int) string {
	if n > 0 && n < len(signals) {
		return signals[n]
	}
	return fmt.Sprintf("signal %d", n)
}

// sigkill is what the kernel kills with.
const sigkill = int(syscall.SIGKILL)
