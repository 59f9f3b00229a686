// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// Two units at a time, over after a millisecond, allocate 100 KiB each. Every
// collection finds 9 MiB more reachable than stays, for that was allocated while it
// marked. Then they are sixteen, of 4 MiB each, and longer at work.
func TestUnitTakesNoMoreThanItAllocates(t *testing.T) {
	t.Parallel()
	for _, known := range []bool{true, false} {
		c := newCore()
		m := Memory{Limit: 256 * mib, Usage: 200 * mib, Must: 100 * mib, Margin: 10 * mib, Allocated: 100 * mib}
		now := time.Duration(0)
		c.update(now, m)
		r := c.route("work")
		var inFlight []int64
		ms := 0
		run := func(forMS, most, leaves int, each uint64) {
			for range forMS {
				ms++
				now += time.Millisecond
				if len(inFlight) > 0 && ms%leaves == 0 {
					c.leave(r, inFlight[0])
					inFlight = inFlight[1:]
				}
				for len(inFlight) < most {
					if reason := c.admit(now, r, Normal); reason != "" {
						break
					}
					inFlight = append(inFlight, c.epoch)
					m.Allocated += each
				}
				if ms%10 != 0 {
					continue
				}
				if ms%30 == 0 {
					m.Cycles++
					m.Must = 109*mib + uint64(len(inFlight))*each
				}
				if !known {
					m.Allocated = 0
				}
				c.update(now, m)
			}
		}
		run(3060, 2, 1, 100<<10)
		if !known {
			assert.Greater(t, c.takes(r), 2.*mib, "what the bound is for")
			continue
		}
		assert.Less(t, c.takes(r), 200.*1024)
		assert.Greater(t, r.cost, 2.*mib, "which it leaves alone")
		run(1000, 16, 10, 4*mib)
		assert.Greater(t, c.takes(r), 2.*mib, "it follows")
	}
}
