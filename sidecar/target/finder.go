// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"slices"

	"github.com/memguard/memguard-go/memguard"
)

// Finder finds the processes that rules match.
type Finder struct {
	rules []Rule
	finder
}

// NewFinder returns a Finder of these rules. Its error joins a *[RuleError] for
// everything that is wrong with them.
func NewFinder(rules []Rule) (*Finder, error) {
	if err := check(rules); err != nil {
		return nil, err
	}
	return &Finder{rules: slices.Clone(rules)}, nil
}

// Scan looks through all processes once. It returns those that match, lowest pid
// first, each once: the first rule that matches has it. A second process of the same
// rule follows under the same name. What could not be looked at is one Blind for
// each rule and reason, as of now: it comes again with every scan while it lasts.
//
// A scan costs what has changed, not what is there: a process is judged when it is
// new, for its first 15 seconds, and then about every 20 (it may exec another
// program, move to another cgroup, get other labels); that it listens is looked at
// each time. Who matched by its port keeps matching when it closes the listener, as
// a service does that shuts down.
//
// The caller itself, memguard's other commands and Kubernetes' pause process match
// rules for a pid, a command or an executable, but not rules without: who asks
// for a whole cgroup, port or label does not mean them.
//
// Scan is not for concurrent use.
func (f *Finder) Scan(ctx context.Context) ([]Found, []memguard.Blind) { return f.scan(ctx) }

// Alive reports whether the process still runs. A zombie does not.
func (id Identity) Alive() bool { return id.alive() }

// StartTicks is when the process started, in ticks since boot: what belongs into an
// [Identity] beside its pid. A zombie still has it.
func StartTicks(pid int) (uint64, error) { return start(pid) }
