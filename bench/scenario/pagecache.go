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
	logWrites      = 100 // a second
	logLimitWrites = 500 // of them fill the limit: it takes five seconds
)

var pageCache = lab.Scenario{
	Name: "pagecache",
	Story: "A service logs through the page cache, which fills whatever the limit leaves: usage stands at the limit, and it is no matter, because the kernel drops clean pages when it needs them. " +
		"Who takes usage for need sheds load and burns CPU for nothing.",
	Claim:      "Usage near the limit means that the kill is near.",
	Limit:      256 * mib,
	Duration:   10 * time.Second,
	Survivable: true,
	Best:       "Every unit of work and no more collections than without a guard.",
	Victim: func(ctx context.Context, h *lab.Host) error {
		heap := nodes(share(h.Limit, besideThousandths))
		log, err := newLog()
		if err != nil {
			return err
		}
		defer log.Close()
		failed := make(chan error, 1)
		go func() {
			line := block(h.Limit / logLimitWrites)
			var errs error
			written := 0
			paced(ctx, logWrites, func() {
				// Rotated when it is twice as long as the limit, so that the disk does not fill up.
				if written++; written%(2*logLimitWrites) == 0 {
					_, err := log.Seek(0, 0)
					errs = errors.Join(errs, err)
				}
				if _, err := log.Write(line); err != nil && errs == nil {
					errs = err
				}
			})
			failed <- errs
		}()
		inBursts(ctx, func() { unit(ctx, h, "orders", churn) })
		runtime.KeepAlive(heap)
		return <-failed
	},
}
