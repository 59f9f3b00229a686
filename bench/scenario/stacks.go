// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"sync"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

// A goroutine whose stack has grown keeps it until a collection finds less than
// a quarter of it in use, and then loses half of it (runtime/stack.go,
// shrinkstack). Stacks are not heap: they hardly move the heap goal.
const (
	returnedRate  = 8000 // a second at 256 MiB: all are there after 1.5 s
	returnedDepth = 48   // 50 KiB, so a stack of returnedStack
	returnedStack = 64 * kib
	parkedRate    = 1500 // a second at 256 MiB
	parkedDepth   = 24   // 26 KiB, so a stack of parkedStack
	parkedStack   = 32 * kib
)

// returnedGoroutines and parkedGoroutines are how many there are to be.
func returnedGoroutines(limit uint64) uint64 { return 12000 * limit / (256 * mib) }
func parkedGoroutines(limit uint64) uint64   { return 10000 * limit / (256 * mib) }

var stacksReturn = lab.Scenario{
	Name: "stacks-return",
	Story: "12,000 goroutines (at 256 MiB) go through a deep recursion, return, and wait for their next job. " +
		"Each keeps its 64 KiB of stack until collections halve it, and with so little heap no collection comes.",
	Claim:      "A stack stays big for as long as the goroutine lives.",
	Limit:      256 * mib,
	Duration:   6 * time.Second,
	Smoke:      true,
	Cause:      []string{"stack-bloat"},
	Survivable: true,
	Best:       "Every goroutine: parked at 2 KiB, all of them take a tenth of the limit. The collections that shrink them have to come in time.",
	Victim: func(ctx context.Context, h *lab.Host) error {
		spawn(ctx, returnedRate*h.Limit/(256*mib), returnedGoroutines(h.Limit), func() (leave func(), ok bool) {
			return h.Hooks.Enter(ctx, "jobs")
		}, func(leave func()) {
			descend(returnedDepth, func() {})
			leave()
			h.Done(1)
			<-ctx.Done()
		})
		return nil
	},
}

var stacksParked = lab.Scenario{
	Name: "stacks-parked",
	Story: "10,000 goroutines (at 256 MiB) wait at the bottom of a recursion: 24 KiB in use on 32 KiB of stack, which no collection shrinks. " +
		"All of them together need more than the limit.",
	Claim:      "Stacks can be found in the heap profile (pprof -alloc_space).",
	Limit:      256 * mib,
	Duration:   9 * time.Second,
	Cause:      []string{"stack-bloat", "goroutine-leak", "goroutine-growth"},
	Survivable: true,
	Best:       "Some 8,000 goroutines (at 256 MiB), and no more: the rest is refused.",
	Victim: func(ctx context.Context, h *lab.Host) error {
		spawn(ctx, parkedRate*h.Limit/(256*mib), parkedGoroutines(h.Limit), func() (leave func(), ok bool) {
			return h.Hooks.Enter(ctx, "sessions")
		}, func(leave func()) {
			defer leave()
			descend(parkedDepth, func() {
				h.Done(1)
				<-ctx.Done()
			})
		})
		return nil
	},
}

// spawn starts goroutines that run do, rate in a second and most in all, as far
// as enter lets them, and returns when ctx has ended and all of them have too.
func spawn(ctx context.Context, rate, most uint64, enter func() (leave func(), ok bool), do func(leave func())) {
	starting, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	paced(starting, float64(rate), func() {
		leave, ok := enter()
		if !ok {
			pause(ctx, time.Millisecond)
			return
		}
		wg.Go(func() { do(leave) })
		if most--; most == 0 {
			stop()
		}
	})
	wg.Wait()
}

// descend uses a little over 1 KiB of stack for each of depth calls, and calls
// at from the deepest.
//
//go:noinline
func descend(depth int, at func()) byte {
	var frame [kib]byte
	frame[depth] = byte(depth)
	if depth == 0 {
		at()
		return frame[0]
	}
	return descend(depth-1, at) + frame[depth]
}
