// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"runtime"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

const (
	besideThousandths  = 312              // of the limit are live heap: 80 of 256 MiB
	foreignThousandths = 469              // of the limit come from elsewhere: 120 of 256 MiB
	foreignRamp        = 10 * time.Second // in so much time
)

var cMalloc = lab.Scenario{
	Name: "c-malloc",
	Story: "A C library in the process takes 47 % of the limit within ten seconds, beside a live Go heap of 31 % and bursts of JSON work. " +
		"Neither GOGC nor a fixed GOMEMLIMIT knows of it, and Go's garbage has the room that is no longer there. " +
		"To the kernel, a C heap is anonymous memory that Go did not map: so is this, and no C compiler is needed.",
	Claim:      "The C library keeps what was freed, because free of a large chunk does not unmap it.",
	Limit:      256 * mib,
	Duration:   12 * time.Second,
	Smoke:      true,
	Cause:      []string{"nongo-growth"},
	Survivable: true,
	Best:       "Every unit of work: live heap and C heap are 78 % of the limit.",
	Victim:     besideForeign(newForeign),
}

var shm = lab.Scenario{
	Name:       "shm",
	Story:      "The same growth as a file in /dev/shm: shared memory belongs to the cgroup that touched it first, is in nobody's heap, and cannot be dropped without swap.",
	Claim:      "It cannot be a leak, because the heap profile shows less than 10 MB.",
	Limit:      256 * mib,
	Duration:   12 * time.Second,
	Cause:      []string{"nongo-growth"},
	Survivable: true,
	Best:       "Every unit of work: live heap and file are 78 % of the limit.",
	Victim: func(ctx context.Context, h *lab.Host) error {
		file, err := newShm()
		if err != nil {
			return err
		}
		defer file.Close()
		var piece []byte
		return besideForeign(func(bytes uint64) error {
			if uint64(len(piece)) != bytes {
				piece = block(bytes)
			}
			_, err := file.Write(piece)
			return err
		})(ctx, h)
	},
}

// besideForeign is a service with a live heap and bursts of JSON work, in which
// memory grows that is not Go's.
func besideForeign(alloc func(bytes uint64) error) func(context.Context, *lab.Host) error {
	return func(ctx context.Context, h *lab.Host) error {
		heap := nodes(share(h.Limit, besideThousandths))
		failed := make(chan error, 1)
		go func() { failed <- grow(ctx, share(h.Limit, foreignThousandths), foreignRamp, alloc) }()
		inBursts(ctx, func() { unit(ctx, h, "orders", churn) })
		runtime.KeepAlive(heap)
		return <-failed
	}
}
