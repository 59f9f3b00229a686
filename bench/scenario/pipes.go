// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"io"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

// pipeWriters is how many abandoned writers fill the limit. Each holds its chunk
// of the export and some 4 KiB of stack and pipe.
const pipeWriters = 4000

const pipeRate = 500 // exports per second

var pipeLeftovers = lab.Scenario{
	Name: "pipe-leftovers",
	Story: "An export is written into an io.Pipe by a goroutine of its own. The reader gives up after the first bytes and does not close its end, " +
		"so the writer stays for good, with the chunk that it was about to write.",
	Claim:      `"io: read/write on closed pipe" in the log is the sign of goroutines that were left over.`,
	Limit:      128 * mib,
	Duration:   11 * time.Second,
	Cause:      []string{"goroutine-leak", "goroutine-growth"},
	Survivable: true,
	Best:       "Every unit of orders, and exports refused once their writers hold their part of the memory: the writer is the unit of work, and it never ends.",
	Victim: func(ctx context.Context, h *lab.Host) error {
		go paced(ctx, healthyRate, func() { unit(ctx, h, "orders", churn) })
		var failed error
		paced(ctx, pipeRate, func() {
			leave, ok := h.Hooks.Enter(ctx, "exports")
			if !ok {
				pause(ctx, time.Millisecond)
				return
			}
			r, w := io.Pipe()
			go func() {
				defer leave()
				_, _ = w.Write(block(h.Limit / pipeWriters)) // for ever
			}()
			var head [64]byte
			if _, err := r.Read(head[:]); err != nil {
				failed = err
			}
			h.Done(1) // and no r.Close: here is the bug
		})
		return failed
	},
}
