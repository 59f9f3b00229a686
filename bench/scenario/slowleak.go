// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"runtime"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

const (
	slowBaseThousandths  = 300             // of the limit are live from the start
	sawtoothThousandths  = 100             // of the limit is the cache when it is dropped
	sawtoothPeriod       = 6 * time.Second // from empty to empty
	slowLeakPerMyriad    = 100             // ten-thousandths of the limit leak in a second: 2.5 MiB of 256
	slowerLeakPerMyriad  = 35              // 0.9 MiB
	slowLeakUnits        = 20              // a second, in which leak and cache grow
	slowLeakRequestsRate = 200             // a second
)

const slowLeakClaim = "HeapSys less HeapAlloc above 50 MiB, three times in a row, is a leak."

var slowLeak = lab.Scenario{
	Name: "slow-leak",
	Story: "A hundredth of the limit leaks each second, 2.5 MiB of 256, behind a cache that grows and is dropped every six seconds, so that the graph looks like a saw. " +
		"The leak is in the background: no request that could be refused makes it, and nothing can save this service.",
	Claim:      slowLeakClaim,
	Limit:      256 * mib,
	Duration:   75 * time.Second,
	Cause:      []string{"sizeclass-growth", "oom-forecast"},
	Survivable: false,
	Best:       "Says when half of the way has been gone that live memory grows and when it will end, 29 s ahead at best (before, a cache that fills looks the same), and leaves heap profiles with the line that leaks, the first 40 s ahead.",
	Victim:     sawtooth(slowLeakPerMyriad),
}

var slowLeakLong = lab.Scenario{
	Name:       "slow-leak-long",
	Story:      "The same leak, a third as fast: what a guard says a minute and more before the end is worth a page in the night.",
	Claim:      slowLeakClaim,
	Limit:      256 * mib,
	Duration:   4 * time.Minute,
	Long:       true,
	Cause:      []string{"sizeclass-growth", "oom-forecast"},
	Survivable: false,
	Best:       "Says within 90 s that live memory grows and when it will end, some 80 s ahead, and leaves heap profiles with the line that leaks.",
	Victim:     sawtooth(slowerLeakPerMyriad),
}

var slowLeakLongControl = lab.Scenario{
	Name:       "slow-leak-long-control",
	Story:      "The same service without the leak, as long: who accuses it cannot be believed about the other.",
	Claim:      slowLeakClaim,
	Limit:      256 * mib,
	Duration:   4 * time.Minute,
	Long:       true,
	Survivable: true,
	Best:       "Every unit of work, no finding and no profile.",
	Victim:     sawtooth(0),
}

var slowLeakControl = lab.Scenario{
	Name:       "slow-leak-control",
	Story:      "The same service without the leak: the cache grows and is dropped, and that is all. Who accuses it cannot be believed about the other.",
	Claim:      slowLeakClaim,
	Limit:      256 * mib,
	Duration:   40 * time.Second,
	Survivable: true,
	Best:       "Every unit of work, no finding and no profile.",
	Victim:     sawtooth(0),
}

// sawtooth is the service, with a leak of so many ten-thousandths of the limit in
// a second.
func sawtooth(leakMyriad uint64) func(context.Context, *lab.Host) error {
	return func(ctx context.Context, h *lab.Host) error {
		base := nodes(share(h.Limit, slowBaseThousandths))
		go paced(ctx, slowLeakRequestsRate, func() { unit(ctx, h, "orders", churn) })
		var cache, kept [][]*node
		start, saw := time.Now(), time.Duration(0)
		paced(ctx, slowLeakUnits, func() {
			if now := time.Since(start) / sawtoothPeriod; now != saw {
				cache, saw = nil, now
			}
			cache = append(cache, nodes(share(h.Limit, sawtoothThousandths)/uint64(sawtoothPeriod.Seconds()*slowLeakUnits)))
			if n := share(h.Limit, leakMyriad) / 10 / slowLeakUnits; n > 0 {
				kept = append(kept, nodes(n))
			}
		})
		runtime.KeepAlive(base)
		runtime.KeepAlive(cache)
		runtime.KeepAlive(kept)
		return nil
	}
}
