// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

const (
	spikeThousandths     = 586             // of the limit: 150 of 256 MiB
	neighbourThousandths = 781             // of the limit: 200 of 256 MiB
	neighbourStart       = 4 * time.Second // the spike is long over
	neighbourRamp        = 2 * time.Second
)

var (
	neighbour = neighbourStory("neighbour",
		"A spike takes more than half of the limit, is dropped, and the service falls idle. Without work no collection comes, so Go keeps the memory, and a second process in the same pod, which then needs it, takes both to the end.",
		"RSS falls when the scavenger gives back what a collection has freed.",
		block)
	neighbourTHP = neighbourStory("neighbour-thp",
		"The same on transparent huge pages. What Go gives back of a huge page leaves its RSS, but the kernel charges the whole page to the cgroup until it has the time to split it.",
		"Huge pages keep memory because vm.overcommit_memory=1 disables MADV_FREE.",
		hugeBlock)
)

func neighbourStory(name, story, claim string, alloc func(uint64) []byte) lab.Scenario {
	return lab.Scenario{
		Name:       name,
		Story:      story,
		Claim:      claim,
		Limit:      256 * mib,
		Duration:   9 * time.Second,
		Cause:      []string{"neighbour-pressure", "retained-idle", "scavenge-idle"},
		Survivable: true,
		Best:       "Both live and all work is done: the spike is given back before the neighbour needs it, and a tenth of the limit is left over.",
		Victim: func(ctx context.Context, h *lab.Host) error {
			spike(ctx, share(h.Limit, spikeThousandths), alloc)
			// Idle: what is left of the work makes no collection necessary.
			paced(ctx, 50, func() {
				unit(ctx, h, "pings", func() { newDrop(1, nil) })
			})
			return nil
		},
		Neighbour: func(ctx context.Context, limit uint64) error {
			if !pause(ctx, neighbourStart) {
				return nil
			}
			err := grow(ctx, share(limit, neighbourThousandths), neighbourRamp, newForeign)
			<-ctx.Done()
			return err
		},
	}
}

// spike holds so many bytes of heap for a second.
func spike(ctx context.Context, bytes uint64, alloc func(uint64) []byte) {
	const piece = mib
	var held [][]byte
	for range bytes / piece {
		held = append(held, alloc(piece))
	}
	pause(ctx, time.Second)
	runtime.KeepAlive(held)
}

// grow takes so many bytes in even steps over a time, and holds them until the
// process ends. alloc returns memory whose pages it has written to.
func grow(ctx context.Context, bytes uint64, over time.Duration, alloc func(bytes uint64) error) error {
	const steps = 100
	ramp, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	done := 0
	paced(ramp, steps/over.Seconds(), func() {
		if done++; done > steps {
			cancel()
			return
		}
		if err := alloc(bytes / steps); err != nil {
			failed = errors.Join(failed, err)
			cancel()
		}
	})
	return failed
}
