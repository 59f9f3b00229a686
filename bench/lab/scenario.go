// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Scenario is a service that gets into trouble with its memory, and the load
// that brings it there. Its functions run in processes of their own, each a
// fresh copy of the lab's program. All sizes and rates scale with the limit
// that they are given.
type Scenario struct {
	Name  string // as on the command line: lower case, with hyphens
	Story string // what happens and why it kills, in two or three sentences
	Claim string // the statement about the Go runtime that it puts to the test; empty if none

	Limit    uint64        // of the memory cgroup, in bytes, if the user names none
	Duration time.Duration // of a run that nothing ends

	// Smoke puts it into the quick subset, which shows real kills within 90 s.
	Smoke bool

	// Long leaves it out where all scenarios are run: it is run when it is named.
	Long bool

	// Survivable says whether a guard with perfect knowledge would stay alive,
	// and Best what it would reach: work done, or how early it would say why not.
	Survivable bool
	Best       string

	// Cause has the IDs of the findings that name the cause, any of which will do.
	// If it is empty, what a guard says is shown and not judged.
	Cause []string

	Env []string // of the victim, beyond the lab's own: GOGC=off

	// Victim is the service. It runs inside the memory cgroup, under the
	// contender whose hooks the Host holds, until ctx ends or the kernel kills it.
	// Its working directory is its own, empty when the run begins, kept over its
	// lives and removed with the run.
	Victim func(ctx context.Context, h *Host) error

	// Load drives the service from outside the cgroup. It is nil when the victim
	// drives itself and reports its work with Host.Done.
	Load func(ctx context.Context, c *Client) error

	// Neighbour is a second, unguarded process in the same cgroup; nil if there is none.
	Neighbour func(ctx context.Context, limit uint64) error
}

// Host is what the lab gives to a victim.
type Host struct {
	Limit uint64 // of the memory cgroup, in bytes
	Hooks Hooks  // of the contender; its functions are never nil

	// Serve listens on the loopback address that the load was told, and serves h
	// through the contender's hooks until ctx ends.
	Serve func(ctx context.Context, h http.Handler) error

	// Done reports n finished units of work, for a victim that drives itself.
	Done func(n int)
}

// Hooks is what a contender offers to the service's own code. The lab fills in
// what it leaves nil with functions that let everything pass.
type Hooks struct {
	// Enter asks to begin a unit of work on a route. It may wait for a short time
	// until there is room. If it says no, the work is refused; otherwise leave is
	// to be called when the work has ended.
	Enter func(ctx context.Context, route string) (leave func(), ok bool)

	Handler   func(http.Handler) http.Handler // around the whole service
	Listener  func(net.Listener) net.Listener
	ConnState func(net.Conn, http.ConnState) // of the http.Server; may be nil

	// OnCompact registers what the service can do against its own fragmentation:
	// copy what lives and drop the old structure.
	OnCompact func(compact func())

	Close func() error
}

// Contender is a way to keep a service alive: what a user would add to it.
type Contender struct {
	Name    string
	Version string // of the library, from the build info; empty for what is in this module
	Setup   string // how it was set up, and on whose word: one line, for the report

	Env func(limit uint64) []string // of the victim's process, e.g. GOMEMLIMIT; may be nil

	// Start runs first in the victim's process; nil where the environment is all.
	Start func(limit uint64) (Hooks, error)
}
