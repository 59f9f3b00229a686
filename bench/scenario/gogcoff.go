// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"runtime"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

// With GOGC=off the runtime collects for a memory limit and for nothing else:
// not when the heap has grown, and not every two minutes either (runtime/mgc.go,
// gcTrigger.test). Whoever sets it has to set a memory limit too.
const gogcOffClaim = "GOGC=off leaves a collection by threshold: a drip of small objects into an idle service does no harm."

var gogcOffDrip = lab.Scenario{
	Name: "gogc-off-drip",
	Story: "A service with GOGC=off and nothing to do but a drip of 128-byte objects, each dropped at once. " +
		"Nothing is ever collected, so the garbage alone fills the limit within seconds.",
	Claim:      gogcOffClaim,
	Limit:      64 * mib,
	Duration:   8 * time.Second,
	Smoke:      true,
	Cause:      []string{"gc-off-no-limit", "limit-missing"},
	Survivable: true,
	Best:       "Every unit of work, with one collection in several seconds: next to nothing is live.",
	Env:        []string{"GOGC=off"},
	Victim: func(ctx context.Context, h *lab.Host) error {
		dripAndDrop(ctx, h)
		return nil
	},
}

var gogcOffDripKept = lab.Scenario{
	Name: "gogc-off-drip-kept",
	Story: "The same drip, but something keeps each object: a true leak, in the background, where no request can be refused. " +
		"A memory limit makes the collector run ever more often and in vain before the same end.",
	Claim:      gogcOffClaim,
	Limit:      64 * mib,
	Duration:   8 * time.Second,
	Cause:      []string{"sizeclass-growth", "oom-forecast"},
	Survivable: false,
	Best:       "Says in the third second that live memory grows and when it ends, some two seconds ahead, and leaves heap profiles with the line.",
	Env:        []string{"GOGC=off"},
	Victim: func(ctx context.Context, h *lab.Host) error {
		var kept *drop
		paced(ctx, dripUnits, func() {
			for i := range dripObjects(h.Limit) {
				kept = newDrop(i, kept)
			}
			h.Done(1)
		})
		runtime.KeepAlive(kept)
		return nil
	},
}

var gogcOffBallast = lab.Scenario{
	Name: "gogc-off-ballast",
	Story: "The drip beside a ballast: a large allocation that nobody ever touches, from the time when that was the way to make collections rarer. " +
		"It costs the kernel nothing, but GOMEMLIMIT counts it, and a limit for Go's memory that leaves it out of account has the collector run without a break.",
	Claim:      gogcOffClaim,
	Limit:      64 * mib,
	Duration:   8 * time.Second,
	Cause:      []string{"gc-off-no-limit", "limit-missing"},
	Survivable: true,
	Best:       "Every unit of work with one collection in several seconds: the ballast is not there.",
	Env:        []string{"GOGC=off"},
	Victim: func(ctx context.Context, h *lab.Host) error {
		ballast := make([]byte, ballastBytes(h.Limit)) // fresh from the kernel, so the runtime need not write zeros to it
		dripAndDrop(ctx, h)
		runtime.KeepAlive(ballast)
		return nil
	},
}

func ballastBytes(limit uint64) uint64 { return share(limit, 875) }

// drop is one object of the drip.
type drop struct {
	next *drop
	id   uint64
	_    [112]byte
}

const dropBytes = 128

// dripUnits is how many units of work the drip comes in, a second.
const dripUnits = 100

// dripObjects is how many objects there are to a unit: they fill the limit in
// five seconds.
func dripObjects(limit uint64) uint64 { return limit / 5 / dropBytes / dripUnits }

// newDrop allocates an object and writes to it: a page of zeros that nobody
// writes to is not charged. Inlined, it would not allocate where nobody keeps it.
//
//go:noinline
func newDrop(id uint64, next *drop) *drop { return &drop{next: next, id: id} }

func dripAndDrop(ctx context.Context, h *lab.Host) {
	paced(ctx, dripUnits, func() {
		unit(ctx, h, "drip", func() {
			for i := range dripObjects(h.Limit) {
				newDrop(i, nil)
			}
		})
	})
}
