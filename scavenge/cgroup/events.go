// SPDX-License-Identifier: Apache-2.0

package cgroup

// Events counts what happened at the boundaries of a group since it was made.
//
// In version 2 this is memory.events: descendants are counted in. Version 1
// counts the group alone, and has three of them: Max is the times that the
// limit of memory or that of memory plus swap was hit (memory.failcnt,
// memory.memsw.failcnt; unknown where the kernel does not count it), OOMKill and UnderOOM come from memory.oom_control.
type Events struct {
	Low          Value // reclaimed although below memory.low
	High         Value // went over memory.high and was throttled
	Max          Value // was about to go over the limit
	OOM          Value // could not get below the limit
	OOMKill      Value // processes killed by the kernel
	OOMGroupKill Value // times that the whole group was killed
	UnderOOM     Value // version 1: 1 while tasks wait in an out-of-memory state
}

// parseEvents fills e from memory.events or memory.events.local; lines of
// kernels to come are passed over. It returns the number of lines that are not
// a name and a number.
func parseEvents(text []byte, e *Events) (bad int) {
	for rest := text; len(rest) > 0; {
		var line []byte
		line, rest = cutLine(rest)
		key, n, ok := cutKey(line)
		if !ok {
			bad++
			continue
		}
		switch string(key) {
		case "low":
			e.Low = ValueOf(n)
		case "high":
			e.High = ValueOf(n)
		case "max":
			e.Max = ValueOf(n)
		case "oom":
			e.OOM = ValueOf(n)
		case "oom_kill":
			e.OOMKill = ValueOf(n)
		case "oom_group_kill":
			e.OOMGroupKill = ValueOf(n)
		case "under_oom":
			e.UnderOOM = ValueOf(n)
		}
	}
	return bad
}
