// SPDX-License-Identifier: Apache-2.0

package prommetrics

import (
	"github.com/memguard/memguard-go/memguard"
	"github.com/prometheus/client_golang/prometheus"
)

// kinds are those of the guard's events.
var kinds = []memguard.EventKind{
	memguard.Raised, memguard.Cleared, memguard.Planned, memguard.Applied, memguard.Undone,
	memguard.Clamped, memguard.Lost, memguard.Saved, memguard.Died, memguard.Ended,
}

// descs are all of the descriptions below.
var descs []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("memguard_"+name, help, labels, nil)
	descs = append(descs, d)
	return d
}

// The guard itself.
var (
	lastTick = desc("guard_last_tick_timestamp_seconds",
		"Unix time of the guard's last tick. A guard that is alive ticks once a second at least; its start if it never did.")
	ticks = desc("guard_ticks_total",
		"Looks that the guard has taken: one a second at rest, up to 100 a second near the limit.")
	events = desc("guard_events_total",
		"Events by kind: findings raised and cleared, actions planned, applied, undone and clamped, sight lost, evidence saved, a predecessor found to have died, end of the watched process.", "kind")
	blind = desc("guard_blind_spots",
		"Things that the guard could not see at its last tick, detectors that lacked them included.")
	dryRun = desc("guard_dry_run",
		"1 if the guard only plans, in a dry run or beside another one of its process, 0 if it acts.")
)

// Where the memory is.
var (
	ledger = desc("ledger_bytes",
		"Resident memory of the process by owner; the rows and the residual add up to RSS. Negative for go/untouched: counted in other rows, but never faulted in.", "row")
	cgroupLedger = desc("cgroup_ledger_bytes",
		"Memory charged to the cgroup by kind; the rows and the residual add up to its usage.", "row")
	cgroupUsage = desc("cgroup_usage_bytes",
		"Memory charged to the process's cgroup, page cache included.")
	cgroupUndroppable = desc("cgroup_undroppable_bytes",
		"Memory charged to the process's cgroup that the kernel cannot take back by dropping page cache: what counts towards a kill.")
	cgroupLimit = desc("cgroup_limit_bytes",
		"Smallest memory limit among the process's cgroup and its ancestors; +Inf if there is none.")
	cgroupHeadroom = desc("cgroup_headroom_bytes",
		"Memory limit less what the kernel cannot take back: room until the kernel kills.")
	timeToLimit = desc("time_to_limit_seconds",
		"Forecast of the time until memory that cannot be freed reaches the limit, at the present growth. Absent while it does not grow towards it.")
	must = desc("go_unfreeable_bytes",
		"Go memory that no collection frees, as of the last one: live heap, span waste, stacks and metadata, less what was never faulted in.")
)

// What is wrong.
var findings = desc("findings",
	"Findings of docs/findings.md by id: 1 for the severity at which one stands now, else 0.", "id", "severity")

// What is done about it.
var (
	gcPercent = desc("gc_target_percent",
		"GC percent (GOGC): baseline is the service's own, wanted is what the guard sets, or in a dry run would. +Inf is off.", "setting")
	memoryLimit = desc("memory_limit_bytes",
		"Go memory limit (GOMEMLIMIT): baseline is the service's own, wanted is what the guard sets, or in a dry run would. +Inf is none.", "setting")
	changes = desc("setting_changes_total",
		"Changes of the GC percent and the Go memory limit by the guard, or in a dry run planned.")
	spiral = desc("gc_death_spiral",
		"1 while collecting harder helps no longer, because what must stay is too near the limit.")
	breaker = desc("breaker_state",
		"State of the service's circuit breaker: 1 for the one it is in. Absent without a breaker.", "state")
	memoryBreaker = desc("memory_breaker_state",
		"State of the breaker that the guard moves by the level of memory: 1 for the one it is in. Absent without one.", "state")
	standing = desc("order_standing",
		"1 while an order of somebody's holds a setting (GC percent, memory limit, memory breaker, shed level), 0 while the guard decides.", "action")
	clamps = desc("breaker_clamps_total",
		"Times that the GC percent of the breaker's state was not given, because it did not fit under the limit or the GC CPU budget.")
	grade = desc("release_grade",
		"How far the releaser goes at present to give memory back: 1 for the grade it is at.", "grade")
	releases = desc("releases_total",
		"Completed returns of idle memory to the operating system (debug.FreeOSMemory).")
	releasesPaid = desc("releases_effective_total",
		"Completed returns of idle memory that gained what they were begun for.")
	releaseSeconds = desc("release_duration_seconds_total",
		"Time spent in returning idle memory, a whole collection each time.")
	releaseGained = desc("release_gained_bytes",
		"Memory returned so far, less what was allocated while it was returned: may fall.")
)

// What the service's limiter does. Absent without one.
var (
	shedLimited = desc("shed_limited",
		"1 if the limiter knows a limit and admits by it, 0 if it admits everything.")
	shedRoom = desc("shed_room_bytes",
		"Memory that the limit leaves for work, connections and garbage.")
	shedBudget = desc("shed_budget_bytes",
		"Memory that work and connections may hold.")
	shedWindow = desc("shed_window_bytes",
		"Part of the room that slow start has opened.")
	shedHeld = desc("shed_held_bytes",
		"Memory that work in flight holds, by the learned costs.")
	shedBraking = desc("shed_braking",
		"1 while usage is at the limit and nothing but probes is admitted.")
	shedBrakes = desc("shed_brakes_total",
		"Times that usage came to the limit and admission stopped.")
	shedRefusePercent = desc("shed_refuse_percent",
		"Percent of the work, but for that of high priority, that is refused by order, whatever the memory.")
	shedWaiting = desc("shed_waiting",
		"Units of work that wait for room.")
	shedConnections = desc("shed_connections",
		"Open connections of the limiter's listeners.")
	shedConnectionsRefused = desc("shed_connections_refused_total",
		"Connections that were closed at once for lack of memory.")
	shedConnectionsClosed = desc("shed_connections_closed_total",
		"Idle connections that were closed to make room for new ones.")
	shedInFlight = desc("shed_in_flight",
		"Units of work in flight, by route.", "route")
	shedCost = desc("shed_unit_cost_bytes",
		"Memory that a unit of work of a route holds, as learned. Absent until it is.", "route")
	shedAdmitted = desc("shed_admitted_total",
		"Units of work that were admitted, by route.", "route")
	shedRefused = desc("shed_refused_total",
		"Units of work that were refused, for lack of memory or by order, by route.", "route")
)
