// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/prometheus/client_golang/prometheus"

// descs are all of the descriptions below.
var descs []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("memguard_"+name, help, labels, nil)
	descs = append(descs, d)
	return d
}

// ofTarget describes what there is of each target.
func ofTarget(name, help string, labels ...string) *prometheus.Desc {
	return desc("target_"+name, help, append([]string{"target"}, labels...)...)
}

// The sidecar itself.
var (
	buildInfo = desc("build_info",
		"1, with the version of the sidecar, the revision that it was built from and the Go release that built it as labels.", "version", "revision", "goversion")
	reloadOK = desc("config_last_reload_successful",
		"1 if the configuration was good when it was last read, 0 if it was not and the one before is in force.")
	reloaded = desc("config_last_reload_success_timestamp_seconds",
		"Unix time at which the configuration in force was read.")
	targetsDropped = desc("targets_dropped",
		"Targets of which nothing is shown here because there are too many.")
	eventsMissed = desc("events_missed_total",
		"Events that came faster than they could be counted here.")
	webhookPosted = desc("webhook_posted_total",
		"Incidents that a webhook was told of, by the host of its URL.", "host")
	webhookFailed = desc("webhook_failed_attempts_total",
		"Attempts to tell a webhook of an incident that failed, by the host of its URL.", "host")
	webhookDropped = desc("webhook_dropped_total",
		"Incidents that a webhook was never told of, by the host of its URL.", "host")
	webhookPending = desc("webhook_pending",
		"Incidents that a webhook has yet to be told of, by the host of its URL.", "host")
)

// How a target is watched.
var (
	up = ofTarget("up",
		"1 while a process of the target runs, 0 while none does.")
	startTime = ofTarget("start_time_seconds",
		"Unix time at which the target's process was started.")
	restarts = ofTarget("restarts_total",
		"Times that a process of the target came after one that had ended.")
	eye = ofTarget("eye",
		"Whose figures of the target are shown: 1 for its own guard (agent), the runtime read from outside (attach), or the kernel alone.", "eye")
	sourceState = ofTarget("source_state",
		"State of each way to see the target: 1 for the one that it is in.", "source", "state")
	lastLook = ofTarget("last_look_timestamp_seconds",
		"Unix time of the look that the target's figures are of.")
	blind = ofTarget("blind_spots",
		"Things that could not be seen of the target at that look, detectors that lacked them included.")
)

// Where the target's memory is.
var (
	rss = ofTarget("resident_memory_bytes",
		"Resident memory of the target's process.")
	ledger = ofTarget("ledger_bytes",
		"Resident memory of the target's process by owner; the rows and the residual add up to it. Negative for go/untouched: counted in other rows, but never faulted in.", "row")
	cgroupLedger = ofTarget("cgroup_ledger_bytes",
		"Memory charged to the target's cgroup by kind; the rows and the residual add up to its usage.", "row")
	cgroupUsage = ofTarget("cgroup_usage_bytes",
		"Memory charged to the target's cgroup, page cache included.")
	cgroupUndroppable = ofTarget("cgroup_undroppable_bytes",
		"Memory charged to the target's cgroup that the kernel cannot take back by dropping page cache: what counts towards a kill.")
	cgroupLimit = ofTarget("cgroup_limit_bytes",
		"Smallest memory limit among the target's cgroup and its ancestors; +Inf if there is none.")
	cgroupHeadroom = ofTarget("cgroup_headroom_bytes",
		"Memory limit less what the kernel cannot take back: room until the kernel kills.")
	timeToLimit = ofTarget("time_to_limit_seconds",
		"Forecast of the time until memory that cannot be freed reaches the limit, at the present growth. Absent while it does not grow towards it.")
)

// What is wrong, and what came of it.
var (
	findings = ofTarget("findings",
		"Findings of docs/findings.md by id: 1 for the severity at which one stands now, else 0.", "id", "severity")
	incidents = ofTarget("incidents_total",
		"Ends of the target's processes that an incident was written for, by cause.", "cause")
)

// What is done about it. Absent where the target has no guard of its own.
var (
	actions = ofTarget("actions_total",
		"Actions that the target's own guard was seen to take, by name.", "action")
	dryRun = ofTarget("dry_run",
		"1 if the target's own guard only plans, in a dry run or beside another one of its process, 0 if it acts.")
	gcPercent = ofTarget("gc_target_percent",
		"GC percent (GOGC): baseline is the service's own, wanted is what the guard sets, or in a dry run would. +Inf is off.", "setting")
	memoryLimit = ofTarget("memory_limit_bytes",
		"Go memory limit (GOMEMLIMIT): baseline is the service's own, wanted is what the guard sets, or in a dry run would. +Inf is none.", "setting")
	unfreeable = ofTarget("go_unfreeable_bytes",
		"Go memory that no collection frees, as of the last one.")
	spiral = ofTarget("gc_death_spiral",
		"1 while collecting harder helps no longer, because what must stay is too near the limit.")
	changes = ofTarget("setting_changes_total",
		"Changes of the GC percent and the Go memory limit by the target's own guard, or in a dry run planned.")
	releases = ofTarget("releases_total",
		"Completed returns of idle memory to the operating system (debug.FreeOSMemory).")
	breaker = ofTarget("breaker_state",
		"State of the target's circuit breaker: 1 for the one it is in. Absent without a breaker.", "state")
	clamps = ofTarget("breaker_clamps_total",
		"Times that the GC percent of the breaker's state was not given, because it did not fit under the limit or the GC CPU budget. Absent without a breaker.")
	memoryBreaker = ofTarget("memory_breaker_state",
		"State of the breaker that the target's own guard opens on memory pressure, and that orders may force: 1 for the one it is in. Absent without one.", "state")
	orders = ofTarget("orders",
		"Orders from outside that stand: each ends by itself.")
	shedOrdered = ofTarget("shed_ordered_ratio",
		"Part of the work that the target's limiter refuses by order. Absent without a limiter.")
	shedBraking = ofTarget("shed_braking",
		"1 while usage is at the limit and the target's limiter admits nothing but probes. Absent without a limiter.")
	shedHeld = ofTarget("shed_held_bytes",
		"Memory that work in flight holds, by the limiter's learned costs. Absent without a limiter.")
	shedAdmitted = ofTarget("shed_admitted_total",
		"Units of work that the target's limiter admitted. Absent without a limiter.")
	shedRefused = ofTarget("shed_refused_total",
		"Units of work that the target's limiter refused for lack of memory. Absent without a limiter.")
)
