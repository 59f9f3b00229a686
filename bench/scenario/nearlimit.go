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
	nearLimit40 = nearLimit(40, "Twice the live heap still fits, but not what is allocated while so many small objects are marked: until the next collection it counts as live.",
		"Every unit of work that the cores have time for.")
	nearLimit75 = nearLimit(75, "A collector that keeps to the limit has a quarter of the room that it would take unasked.",
		"Alive, with half of the work: a fifth of the limit is room for garbage, and each collection of it marks three quarters.")
	nearLimit85 = nearLimit(85, "What is left is room for less than a tenth of a second: the collector runs without a break, and when its CPU limiter stops it at half of the CPU, the heap runs on past the limit.",
		"Alive, with hardly any work: spans and metadata take half of what the live heap leaves, and whoever allocates has to stand still while the rest is cleared.")
)

func nearLimit(percent uint64, why, best string) lab.Scenario {
	return lab.Scenario{
		Name:       fmt.Sprintf("live-near-limit-%d", percent),
		Story:      fmt.Sprintf("A live heap of small linked objects takes %d %% of what the limit leaves beside the runtime, and workers on all cores allocate as fast as they can. ", percent) + why,
		Claim:      "A lower GC percent, or a memory limit, makes any heap fit.",
		Limit:      256 * mib,
		Duration:   8 * time.Second,
		Cause:      []string{"gc-death-spiral", "gc-storm"},
		Survivable: true,
		Best:       best,
		Victim: func(ctx context.Context, h *lab.Host) error {
			heap := newTree(nearLimitNodes(h.Limit, percent))
			onAllCores(ctx, func() {
				unit(ctx, h, "queries", func() { newTree(2047).count() })
			})
			runtime.KeepAlive(heap)
			return nil
		},
	}
}

func nearLimitNodes(limit, percent uint64) uint64 { return live(limit, percent) / treeBytes }

// tree is 48 bytes with two pointers to follow: what makes marking slow.
type tree struct {
	left, right *tree
	_           [4]uint64
}

const treeBytes = 48

// newTree is a balanced tree of n nodes.
func newTree(n uint64) *tree {
	if n == 0 {
		return nil
	}
	left := (n - 1) / 2
	return &tree{left: newTree(left), right: newTree(n - 1 - left)}
}

func (t *tree) count() uint64 {
	if t == nil {
		return 0
	}
	return 1 + t.left.count() + t.right.count()
}
