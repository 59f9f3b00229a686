// SPDX-License-Identifier: Apache-2.0

// Package scenario holds the services that the lab brings into trouble with
// their memory: one small program per way in which a Go service dies under a
// memory limit, each with the load that takes it there.
//
// All of them keep to the same rules, so that the outcome of a run is a matter
// of bytes and not of luck:
//
//   - Sizes are shares of the limit, and rates are bytes or units per second of
//     the clock. A slow machine does the same in the same time with more of its
//     CPU; only the scenarios that are about CPU use all cores.
//   - Memory that is to count is written to: the kernel charges pages, not
//     allocations.
//   - A service asks the contender before each unit of work, as an engineer
//     would who has one (Hooks.Enter, Handler, Listener), and does not do what
//     was refused. Where the story is that nothing can be refused, because the
//     memory grows behind the requests, it does not ask for that part.
//   - Best is what a guard with perfect knowledge would reach, worked out from
//     the sizes below it.
package scenario

import "github.com/memguard/memguard-go/bench/lab"

// All are the scenarios of the lab, in the order in which it lists them.
var All = []lab.Scenario{
	bursts55,
	bursts45,
	gogcOffDrip,
	gogcOffDripKept,
	gogcOffBallast,
	goroutineLeak,
	unreadBodies,
	pipeLeftovers,
	stacksReturn,
	stacksParked,
	finalizerBlocked,
	cleanupBlocked,
	fragmentation,
	neighbour,
	neighbourTHP,
	cMalloc,
	shm,
	pageCache,
	overload2x,
	overload3x,
	overload5x,
	overload7x,
	nearLimit40,
	nearLimit75,
	nearLimit85,
	slowLeak,
	slowLeakControl,
	slowLeakLong,
	slowLeakLongControl,
	steady,
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

// share is so many thousandths of the limit.
func share(limit, thousandths uint64) uint64 { return limit / 1000 * thousandths }

// live is so many percent of what the limit leaves beside the runtime itself,
// some 8 MiB whatever the limit. It is for live heaps whose distance from the
// limit decides.
func live(limit, percent uint64) uint64 { return (limit - 8*mib) / 100 * percent }
