// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"

	"github.com/memguard/memguard-go/sidecar/attach/internal/goexe"
	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
	"github.com/memguard/memguard-go/sidecar/attach/internal/procmem"
)

// Why a process cannot be read. Compare with errors.Is.
var (
	// ErrGone: the process does not exist, has ended, or runs another program by now.
	ErrGone = procmem.ErrGone
	// ErrNotGo: the process does not run a Go program.
	ErrNotGo = goexe.ErrNotGo
	// ErrUnknownLayout: there is no table for the Go release or architecture, and
	// the program has no debugging information that would tell; or a stripped
	// program's variables were not found.
	ErrUnknownLayout = layout.ErrUnknown
	// ErrSelfCheck: the memory does not look as the layout says. See [SelfCheckError].
	ErrSelfCheck = errors.New("the runtime's structures are not where they should be")
	// ErrPermission: the kernel refuses. See [PermissionError].
	ErrPermission = errors.New("not allowed to read the process")
)

// Rule is a rule of the kernel by which a process may not be read (ptrace(2),
// "Ptrace access mode checking").
type Rule string

// The rules.
const (
	RuleUID      Rule = "uid"      // another user's process
	RuleCaps     Rule = "caps"     // the target has capabilities that the reader has not
	RuleDumpable Rule = "dumpable" // the target is not dumpable: its file is not readable, or it changed its user
	RuleYama     Rule = "yama"     // kernel.yama.ptrace_scope
	RuleUnknown  Rule = "unknown"  // seccomp, a security module, or a user namespace
)

// PermissionError is an [ErrPermission] with the rule, as far as it can be told.
type PermissionError struct {
	PID   int
	Rule  Rule
	Why   string // one sentence
	Fix   string // what helps, on a host and in Kubernetes
	Cause error
}

func (e *PermissionError) Error() string {
	return fmt.Sprintf("attach: pid %d: %v (%s): %s; %s", e.PID, e.Cause, e.Rule, e.Why, e.Fix)
}

func (e *PermissionError) Unwrap() []error { return []error{ErrPermission, e.Cause} }

// SelfCheckError is an [ErrSelfCheck] with what did not hold.
type SelfCheckError struct {
	GoVersion string
	Layout    string
	Failed    []string
}

func (e *SelfCheckError) Error() string {
	return fmt.Sprintf("attach: %v: %s read by the %s: %s", ErrSelfCheck, e.GoVersion, e.Layout, e.Failed)
}

func (e *SelfCheckError) Unwrap() error { return ErrSelfCheck }
