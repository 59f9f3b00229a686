// SPDX-License-Identifier: Apache-2.0

package incident

import "time"

// The shortest and the longest wait, without its random part.
const (
	firstBackoff = time.Second
	mostBackoff  = 5 * time.Minute
)

// backoff says how long to wait after a failure: twice as long each time, up to a
// bound, and up to half as much again, so that many who failed together do not come
// again together. Only a success makes it shorter.
type backoff struct{ base time.Duration }

// failed returns the next wait; random is in [0, 1).
func (b *backoff) failed(random float64) time.Duration {
	b.base = min(max(2*b.base, firstBackoff), mostBackoff)
	return b.base + time.Duration(random*float64(b.base)/2)
}

func (b *backoff) succeeded() { b.base = 0 }
