// SPDX-License-Identifier: Apache-2.0

package memguard

import "math"

// survival estimates the live heap between two cycles. The runtime says what the
// last one marked; with seconds or minutes from one to the next, that is a
// staircase, whose steps look like any other step. So of what was allocated
// since, as much is taken to live as lived through the last two cycles each: a
// single large allocation that stays says nothing of the next ones. What lived
// through the first cycle alone counts for as much again as was allocated until
// then: a service that has just built what it keeps would seem to go on with it.
type survival struct {
	cycles    uint64
	live      float64 // marked by the last cycle
	allocated float64 // until then
	share     float64 // of what was allocated from the cycle before to the last
	before    float64 // the share until then
	shares    int     // that were seen, 2 at most
	reach     float64 // bytes allocated since for which the share counts
}

// estimate is what a collection now would probably leave of the heap.
func (h *survival) estimate(r *Runtime) Bytes {
	live, ok := r.Live.Get()
	cycles, ok2 := r.Cycles.Get()
	allocated, ok3 := r.Allocated.Get()
	objects, ok4 := r.Objects.Get()
	if !ok || !ok2 || !ok3 || !ok4 {
		return r.Live
	}
	if cycles != h.cycles {
		if since := float64(allocated) - h.allocated; h.cycles > 0 && since > 0 {
			share := min(max((float64(live)-h.live)/since, -1), 1)
			h.before, h.reach = h.share, math.Inf(1)
			if h.shares == 0 {
				h.before, h.reach = share, since
			}
			h.share, h.shares = share, min(h.shares+1, 2)
		}
		h.cycles, h.live, h.allocated = cycles, float64(live), float64(allocated)
	}
	now := h.live + min(h.share, h.before)*min(float64(allocated)-h.allocated, h.reach)
	return Known(uint64(min(max(now, 0), float64(objects))))
}

// keepsAll reports whether next to all that was ever allocated lives, by two
// collections at least.
func (h *survival) keepsAll() bool { return h.cycles > 1 && h.live >= keptAll*h.allocated }

const keptAll = 0.9 // of it; the first requests make garbage, and reading a file does
