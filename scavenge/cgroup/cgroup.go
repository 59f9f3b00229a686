// SPDX-License-Identifier: Apache-2.0

// Package cgroup reads the memory cgroup of a process, its own or another's,
// on version 1, version 2 and machines that mount both.
//
//	g, err := cgroup.Open("/proc", pid)
//	...
//	defer g.Close()
//	used, err := g.Usage() // every tick: one pread, no allocation
//	r, err := g.Read()     // now and then: everything else
//	if limit, bounded := r.Limit.Value(); bounded { ... }
//
// What could not be read is unknown, never zero, and Reading.Errs says why.
//
// # What the figures mean
//
// The usage of a group counts pages charged to it: anonymous memory, page
// cache, tmpfs and kernel memory of all its processes and of its descendants.
// It is not the sum of the processes' RSS. It runs ahead of memory.stat by up
// to 64 pages per CPU, which the kernel charges in advance (MEMCG_CHARGE_BATCH,
// mm/memcontrol.c).
//
// A limit further up binds as well, and is shared with everything below it:
// see Reading.Levels.
package cgroup

import "errors"

var (
	// ErrNoProcess says that there is no such process, or that it is exiting
	// and no longer says where it stood.
	ErrNoProcess = errors.New("no such process")

	// ErrNoController says that no memory controller accounts for the
	// process, or that its hierarchy is not mounted where it can be seen.
	ErrNoController = errors.New("no memory controller")

	// ErrGone says that the group was removed, or replaced by a new one of
	// the same name. Open finds the one where the process stands now.
	ErrGone = errors.New("cgroup was removed")
)

// Reading is what the kernel says about a memory cgroup at one time. Fields
// are read one after the other, not at one instant.
type Reading struct {
	// Usage is the memory charged now, and Peak the most ever charged, in
	// bytes. Both count page cache that can be dropped.
	Usage Value
	Peak  Value

	// WorkingSet is Usage without inactive file pages, as the kubelet
	// computes it for eviction. The two come from two files: where inactive
	// pages exceed usage it is 0, as there.
	WorkingSet Value

	// Limit is the smallest memory.max of the group and its ancestors, as far
	// as they can be seen; version 1 also knows those that cannot
	// (hierarchical_memory_limit). LimitFrom is the directory of the group
	// that sets it: Dir, an ancestor's, or "" if there is no limit or an
	// ancestor out of sight sets it.
	Limit     Limit
	LimitFrom string

	// High is the smallest memory.high, above which the kernel throttles
	// instead of killing. Version 1 has no such thing: Unlimited.
	High Limit

	// Swap is what is swapped out, in bytes, and SwapLimit how much the group
	// itself may swap. Version 1 limits the sum of memory and swap: SwapLimit
	// is what is left of that when memory stands at its limit.
	Swap      Value
	SwapLimit Limit

	// Levels holds the group and then its ancestors, bottom up, as far as they
	// can be seen. An ancestor's limit binds the ancestor's usage, siblings
	// included.
	Levels []Level

	Stat Stat

	// Events counts what happened in the group and its descendants;
	// LocalEvents in the group alone (memory.events.local, Linux 5.2).
	Events      Events
	LocalEvents Events

	PSI PSI

	// Errs says for each file that could not be read or understood, why.
	Errs []error
}

// Level is one group on the way up from the process.
type Level struct {
	Dir   string
	Usage Value
	Limit Limit
	High  Limit
}

// Room returns how many bytes can at most still be charged before the first
// limit on the way up is hit, and the directory of the group that sets it: ""
// if that is out of sight, where siblings may use what is left. A limit below
// the usage leaves 0. Not ok is where no limit is known, or no usage under it.
func (r *Reading) Room() (n uint64, dir string, ok bool) {
	consider := func(limit Limit, usage Value, from string) {
		most, bounded := limit.Value()
		used, known := usage.Value()
		if !bounded || !known {
			return
		}
		if room := most - min(used, most); !ok || room < n {
			n, dir, ok = room, from, true
		}
	}
	for _, l := range r.Levels {
		consider(l.Limit, l.Usage, l.Dir)
	}
	if r.LimitFrom == "" {
		consider(r.Limit, r.Usage, "")
	}
	return n, dir, ok
}

// workingSet derives it from usage and inactive file pages.
func workingSet(usage Value, stat *Stat) Value {
	used, ok := usage.Value()
	inactive, known := stat.Bytes(InactiveFile)
	if !ok || !known {
		return Value{}
	}
	return ValueOf(used - min(inactive, used))
}
