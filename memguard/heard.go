// SPDX-License-Identifier: Apache-2.0

package memguard

import "sync"

// heard counts, of each limiter and breaker, the guards of this process that tell it of
// the memory. Where a guard is started before its predecessor is closed, that must not
// tell what both use that nobody knows any more.
var heard = hearers{by: map[any]int{}}

type hearers struct {
	mu sync.Mutex
	by map[any]int
}

func (h *hearers) begin(it any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.by[it]++
}

// end does what is due when the last one has ended, before another may begin.
func (h *hearers) end(it any, last func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.by[it]--; h.by[it] <= 0 {
		delete(h.by, it)
		last()
	}
}
