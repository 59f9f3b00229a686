// SPDX-License-Identifier: Apache-2.0

package memguard

// Before the first collection nobody knows what of the heap is garbage. With GOGC=off
// that can last until the limit is reached, and what grows would be told from a drip
// of garbage a moment before the end. So the guard starts a collection where none has
// completed and a quarter of the limit is in use; and one more at half of it if a good
// part has lived through the first, for it takes two to tell what grows from what was
// built once. That is all in a process's life: by then GOGC=100 would have collected
// more often.
const (
	firstCycleAt  = 4 // at this part of the limit
	secondCycleAt = 2
	firstCycleOf  = 8  // part of the limit that the heap must have
	secondCycleOf = 16 // and of that, what must have lived
)

const untold = "no collection has told yet what of the heap is garbage"

// firstCycles starts these collections.
func (h *hand) firstCycles() {
	r := &h.reading
	if !h.known || r.Limit == Unlimited || h.seenTo > r.Cycles {
		return
	}
	heap, at, least := r.Objects, r.Limit/firstCycleAt, r.Limit/firstCycleOf
	switch r.Cycles {
	case 0:
	case 1:
		heap, at, least = r.Live, r.Limit/secondCycleAt, r.Limit/secondCycleOf
	default:
		return
	}
	if r.Usage < at || heap-min(heap, r.Untouched) < least { // an untouched ballast holds nothing
		return
	}
	h.seenTo = r.Cycles + 1
	a := Action{Name: CollectGarbage, Reason: untold, DryRun: !h.sets}
	h.g.note(Event{Time: r.Time, Kind: Planned, Action: a})
	if h.sets {
		h.begin(a)
	}
}
