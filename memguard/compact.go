// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"time"
)

// Span waste is memory that only the service can free: it holds the survivors
// that pin the spans. Its hook is called when that waste is worth it.
const (
	compactWaste = 0.15 // of the limit, or of what the runtime holds where there is none
	compactNear  = 0.50 // of the limit is held by what no collection frees
	compactLeast = 32 << 20
	compactRest  = 2 * time.Second // after one that helped; four times as long after each that did not
	compactMost  = 10 * time.Minute
	compactHelps = 0.25 // of the waste must have gone by the next cycle but one
)

// compaction is what the last call of the hook has brought.
type compaction struct {
	at     time.Time // it ended
	cycles uint64    // then
	waste  uint64    // before
	rest   time.Duration
	judged bool
}

// unfragment calls the service's hook when span waste is what fills the memory.
func (h *hand) unfragment(s *Sample) {
	if h.compact == nil || !h.known || s.Runtime.Cycles.v == 0 {
		return
	}
	r, c := &h.reading, &h.compacted
	if !c.at.IsZero() && !c.judged {
		if r.Cycles < c.cycles+2 { // the old structure is garbage until then
			return
		}
		c.judged = true
		if float64(r.Unused) > (1-compactHelps)*float64(c.waste) {
			c.rest = min(4*max(c.rest, compactRest), compactMost)
		} else {
			c.rest = compactRest
		}
	}
	of, near := r.Mapped, true
	if r.Limit != Unlimited {
		of = r.Limit
		near = float64(r.Must()+h.notGos()) >= compactNear*float64(r.Limit)
	}
	if !near || r.Unused < compactLeast || float64(r.Unused) < compactWaste*float64(of) || s.Time.Sub(c.at) < c.rest {
		return
	}
	a := Action{Name: Compact, DryRun: h.dry, Reason: fmt.Sprintf("%s of span waste that no collection frees", mib(float64(r.Unused)))}
	if !h.dry && h.g.busy[string(Compact)] {
		return
	}
	h.g.note(Event{Time: s.Time, Kind: Planned, Action: a})
	if h.dry {
		*c = compaction{at: s.Time, cycles: r.Cycles, waste: r.Unused, rest: max(c.rest, compactRest)}
		return
	}
	h.callCompact(a)
}

// callCompact calls the hook in a goroutine of its own. It is not ours and may
// never return: then it is not called again, and nobody waits for it. If it
// panics, that has not helped.
func (h *hand) callCompact(a Action) {
	before, rest := h.reading.Unused, h.compacted.rest
	h.compacted = compaction{at: time.Now(), rest: min(4*max(rest, compactRest), compactMost), judged: true}
	h.g.aside(string(Compact), false, func() func() {
		start := time.Now()
		h.compact()
		a.Took = time.Since(start)
		return func() {
			h.compacted = compaction{at: time.Now(), cycles: h.reading.Cycles, waste: before, rest: rest}
			h.g.note(Event{Kind: Applied, Action: a})
		}
	})
}
