// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"log/slog"

	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
)

// Config says what a [Guard] watches and what it may do. The zero Config guards
// the calling process: it follows the cgroup's limit with the Go memory limit,
// gives memory back where that pays, and keeps what it finds for
// [Guard.Report]. Of another process it only watches.
type Config struct {
	// Source is what is watched; nil is the calling process. It is the guard's from
	// then on: nobody else may use it, and the guard closes it.
	Source *Source

	// Event, if set, is called for everything that changes, in order, from one
	// goroutine. If it panics, the guard goes on without it for that event; while it
	// does not return, at most 1024 events wait for it. [Guard.Events] is the same as
	// a stream.
	Event func(Event)

	// Logger, if set, gets a line for everything that changes.
	Logger *slog.Logger

	// Limit, if not 0, is a memory limit in bytes that the service states itself. The
	// cgroup's counts where that is smaller. Where the cgroup has none, or there is
	// no cgroup (a test, a development machine, a container without one), it is held
	// against what the process has resident (RSS). Nobody enforces it but the guard.
	Limit uint64

	// DryRun plans everything and does nothing: events of kind Planned say what
	// would have been done. Evidence is kept all the same, if there is a store.
	DryRun bool

	// Breaker is the state of the service's circuit breaker; nil is that of
	// MemoryBreaker, and without either none is coupled. It is called at every tick
	// and should return at once. Table is the GC percent for each state; nil is the
	// default one, and a table of zeros couples nothing.
	Breaker pacer.StateFunc
	Table   *pacer.Table

	// MemoryBreaker, if set, is a breaker that the guard tells the level of memory at
	// each tick: what no collection frees and what is not Go's, as a part of the
	// limit. In a dry run it hears nothing and stays closed. An order may force it
	// (SetBreaker). When the last guard that tells it has ended it is closed, unless the
	// service itself has forced it.
	MemoryBreaker *shed.Breaker

	// GCBudget is the share of all CPU that the collector may take before the guard
	// stops asking for more, in (0,1); 0 is a quarter.
	GCBudget float64

	// OnSpiral is what is done when the live heap is so near the limit that
	// collecting helps no longer. The zero value sheds load: Shed refuses what does
	// not fit, and where the memory limit is the user's own and not what the cgroup
	// leaves, a share of all work but that of high priority: it rises by 10 % a
	// second up to 90 % while the collector takes more than GCBudget, and falls by
	// 5 % a second otherwise. Without Shed, MemoryBreaker is half-open meanwhile;
	// without either it is told that nobody sheds. Exit ends the process, with
	// evidence, when a spiral has stood for five seconds, or at once when there is no
	// time: no more than 15 % of the limit is left beside what cannot be freed, usage is at
	// 95 %, the room has sunk by a quarter since the spiral began, or the forecast is
	// half a minute.
	OnSpiral pacer.OnSpiral

	// ClassObjects is how many outstanding objects of one size class that grows are
	// worth a finding (sizeclass-growth), and a line in the log; 0 is 500,000.
	ClassObjects uint64

	// Shed is the service's limiter: the guard tells it how much room there is. An
	// order may have it refuse a part of the work (ShedLoad).
	Shed *shed.Limiter

	// Compact, if set, is called when fragmentation holds memory that no collection
	// frees: the service copies what lives in its large structures and drops the
	// old ones. It runs in a goroutine of its own, once at a time.
	Compact func()

	// Evidence, if set, is where profiles are kept on the way to the limit, and the
	// black box: the last minutes of samples, findings and actions, which survive
	// the kernel's kill.
	Evidence *evidence.Store

	// Recorder, if set, saves the last seconds of the execution trace when a
	// finding is raised, at Warning or above, that a trace explains (gc-pause,
	// gc-death-spiral): once in a minute at most, and not in the tick's goroutine.
	// The guard closes it.
	Recorder *evidence.Recorder
}
