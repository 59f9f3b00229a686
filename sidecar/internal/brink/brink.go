// SPDX-License-Identifier: Apache-2.0

// Package brink is there when a memory cgroup reaches its limit, before the kernel
// kills: a process that is about to be killed can be read then. It is for where the
// exit of the process cannot be held (package attach, HoldExit).
//
// # Version 1: the kill is held
//
// With memory.oom_control at 1 the kernel does not kill: who needs memory sleeps
// until there is some (Documentation/admin-guide/cgroup-v1/memory.rst, "OOM
// Control"). [Hold] sets that while the group uses most of its limit, has the process
// read when the limit is reached, and sets it back, whereupon the kernel kills as it
// always would have.
//
// A group that is left at 1 stands still for ever. So the setting never stands without
// somebody who takes it back: a process of its own, the [Keeper], is given the group
// before it is set, and takes it back when the one that set it is gone, however that
// came, or does not do so in time.
//
// It is not free of effects on the service. Only page faults in the program itself
// sleep. A system call that needs memory of the full group fails meanwhile, with ENOMEM
// or EFAULT, where the kernel would have killed; a Go program ends itself when mmap(2)
// does. And a signal whose frame finds no memory on its stack ends the process with
// SIGSEGV; a Go program sends itself SIGURG to preempt its goroutines. That is why it is
// off unless somebody wants it, why it is set near the limit only, and why calls that
// fail have the kill let go too.
//
// # Version 2: a word before the kill
//
// Version 2 has no such setting. [Warn] hears of each time that the group runs into
// its limit (memory.events), which takes no right but to read, and changes nothing.
//
// Two other means were tried and left out. Triggers on memory.pressure
// (Documentation/accounting/psi.rst) fired before none of five kills, down to 5 ms of
// stall in 500 ms, where memory.events told before each of them (TestWarn): without swap
// there is nothing to reclaim, so nobody stalls for long. And memory.high, below the
// limit, wins time only by making the service slow where it still had room; the kernel
// has a thread sleep for up to two seconds at a time (mm/memcontrol.c,
// MEMCG_MAX_HIGH_DELAY_JIFFIES), which setting it back does not end, so that no bound
// can be promised; and it is a setting that systemd and the kubelet write themselves.
package brink

import "errors"

// The ways in which a process was read here, as they stand in attach.How.Way.
const (
	OOMControl   = "oom-control"   // while the kernel's kill was held
	MemoryEvents = "memory-events" // when its group had run into the limit
)

// ErrNot says that the kills of a group cannot be held, or may not be; the text says
// why.
var ErrNot = errors.New("brink: the kernel's kill cannot be held")
