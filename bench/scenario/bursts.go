// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

var (
	bursts55 = bursts(55,
		"Twice the live heap is more than the limit, so the collector that nobody told of the limit starts too late.",
		"Every unit of work: live heap and runtime are 58 % of the limit, and the rest is room for garbage.")
	bursts45 = bursts(45,
		"Twice the live heap still fits: the control, in which no contender may be killed or lose work.",
		"Every unit of work, as without any guard.")
)

func bursts(percent uint64, why, best string) lab.Scenario {
	return lab.Scenario{
		Name: fmt.Sprintf("bursts-%d", percent),
		Story: fmt.Sprintf("A service whose live heap takes %d %% of what its limit leaves beside the runtime has bursts of JSON work on all cores, 300 ms on and 200 ms off. ", percent) +
			why,
		Claim:      "GOGC=100 does not mean that a collection comes at twice the heap: under bursts of short-lived objects the heap runs past its goal.",
		Limit:      256 * mib,
		Duration:   10 * time.Second,
		Cause:      []string{"limit-missing", "limit-above-cgroup", "gc-overshoot"},
		Survivable: true,
		Best:       best,
		Victim: func(ctx context.Context, h *lab.Host) error {
			heap := nodes(live(h.Limit, percent))
			inBursts(ctx, func() { unit(ctx, h, "orders", churn) })
			runtime.KeepAlive(heap)
			return nil
		},
	}
}

// inBursts calls do on all cores, 300 ms on and 200 ms off, until ctx ends.
func inBursts(ctx context.Context, do func()) {
	const on, period = 300 * time.Millisecond, 500 * time.Millisecond
	start := time.Now()
	onAllCores(ctx, func() {
		if at := time.Since(start) % period; at >= on {
			pause(ctx, period-at)
			return
		}
		do()
	})
}
