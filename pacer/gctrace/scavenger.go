// SPDX-License-Identifier: Apache-2.0

package gctrace

import "math"

// scavenger follows what went back to the operating system and what did not.
//
// Since Go 1.14 the lines do not print how much heap is retained (not returned
// to the operating system), but they bound it from below. Let live be the live
// heap of the last cycle and U the printed utilization. What was marked stays
// until the next cycle, so the heap in spans is at least live, and
//
//	retained >= 100*live/(U+1)    because U is rounded down
//	retained >= peak - released   because heap address space is never given up:
//	                              there is at least as much as the largest heap was
//
// The second bound also counts heap pages that serve as goroutine stacks now:
// they are retained, though not as heap. Up to Go 1.13 the line prints the
// figure itself (consumed). Idle is what is retained beyond live, and excess
// what is retained beyond need, a tenth over the larger of the last cycle's
// goal and heap: the background scavenger leaves that much alone by design
// (retainExtraPercent in runtime/mgcscavenge.go).
type scavenger struct {
	lines, forced int
	returned      uint64
	last          Scavenge // that prints a state, if lines > 0
	pending       uint64   // ScvgReleased: the ScvgHeap line of the same scavenge comes next
	liveKnown     bool

	retained, idle, idleMost Opt[uint64] // at least

	// The article's pattern, as far as traces show it: lines in a row that
	// returned next to nothing while idle was over idleBytes; and of these,
	// lines in a row while excess was, too.
	idling, longestIdling     idleRun
	needless, longestNeedless idleRun
}

// idleRun is a run of scavenger lines.
type idleRun struct {
	lines    int
	line     int // of the stream, where it began
	returned uint64
	from, to uint64 // retained, at least, at the first and the last line
	idle     uint64 // smallest idle memory on the way
	excess   uint64 // smallest excess on the way
}

const (
	idleBytes = 50 * mib
	idleLines = 3
)

func (s *scavenger) restart() {
	s.lost()
	s.idling, s.needless = idleRun{}, idleRun{}
}

// lost forgets what a line that could not be read may have changed.
func (s *scavenger) lost() {
	s.liveKnown = false
	s.pending = 0
	s.retained, s.idle = Opt[uint64]{}, Opt[uint64]{}
}

func (s *scavenger) add(rec *Scavenge, last *Cycle, peak uint64) {
	s.lines++
	if rec.Forced && rec.Form != ScvgReleased {
		s.forced++
	}
	returned, known := rec.Returned().Get()
	s.returned = saturate(s.returned, returned)
	if rec.Form == ScvgReleased {
		s.pending = returned
		return
	}
	if !known { // ScvgHeap: a line before it says what was returned, if anything was
		returned, s.pending = s.pending, 0
	}
	s.last = *rec
	s.bound(rec, last.HeapLive, peak)
	retained := s.retained.v
	idle, ok := s.idle.Get()
	if ok {
		s.idleMost = Some(max(idle, s.idleMost.v))
	}
	need := float64(max(last.HeapGoal, last.HeapEnd)) * 1.1
	excess := uint64(max(float64(retained)-need, 0))
	if !ok || rec.Forced || idle < idleBytes || returned > idle/100 {
		s.idling, s.needless = idleRun{}, idleRun{}
		return
	}
	one := idleRun{lines: 1, line: rec.Line, returned: returned, from: retained, to: retained, idle: idle, excess: excess}
	if s.idling.add(one); s.idling.lines >= s.longestIdling.lines {
		s.longestIdling = s.idling
	}
	if excess < idleBytes {
		s.needless = idleRun{}
		return
	}
	if s.needless.add(one); s.needless.lines >= s.longestNeedless.lines {
		s.longestNeedless = s.needless
	}
}

// add appends one line.
func (r *idleRun) add(one idleRun) {
	if r.lines == 0 {
		*r = one
		return
	}
	r.lines++
	r.returned = saturate(r.returned, one.returned)
	r.to = one.to
	r.idle = min(r.idle, one.idle)
	r.excess = min(r.excess, one.excess)
}

// bound sets retained and idle from a line that prints a state.
func (s *scavenger) bound(rec *Scavenge, live, peak uint64) {
	s.retained, s.idle = Opt[uint64]{}, Opt[uint64]{}
	if !s.liveKnown {
		s.retained = rec.Consumed
		return
	}
	released := rec.Released.v
	if consumed, ok := rec.Consumed.Get(); ok {
		s.retained = rec.Consumed
		s.idle = Some(minus(consumed, live+mib))
		return
	}
	byUtil := live / uint64(rec.Util.v+1) * 100
	byPeak := minus(peak, released+kib)
	s.retained = Some(max(byUtil, byPeak, live))
	s.idle = Some(max(minus(byUtil, live), minus(byPeak, live+mib)))
}

// minus returns a-b, or 0 if b is larger.
func minus(a, b uint64) uint64 { return a - min(a, b) }

// saturate returns a+b, or the largest number if that is too large.
func saturate(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}
