// SPDX-License-Identifier: Apache-2.0

package exectrace

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/exp/trace"
)

// However many changes of phase, the timeline stays short, without a gap, and
// keeps the time of every phase.
func TestTimelineIsBounded(t *testing.T) {
	t.Parallel()
	var l timeline
	var want PhaseTimes
	now := time.Duration(0)
	for i := range 200_000 {
		step := time.Duration(1 + i*7919%1000)
		if i%1000 == 0 {
			step = time.Millisecond // some long ones stay themselves
		}
		want[l.open.Phase] += step
		now += step
		l.to(now, Phase((int(l.open.Phase)+1+i%3)%NumPhases), Some(uint64(i)), Opt[uint64]{})
		require.Less(t, len(l.segs), maxSegments)
	}
	l.close(now)
	assert.Equal(t, want, l.totals)
	r := &Report{Span: now, Phases: l.totals, Timeline: l.segs}
	check(t, r)
	merged := 0
	for _, s := range l.segs {
		merged += s.Merged
	}
	assert.Equal(t, 200_000, merged)
	var changes uint64
	for _, tr := range l.transitions() {
		assert.NotEqual(t, tr.From, tr.To)
		changes += tr.Count
	}
	assert.Equal(t, uint64(200_000), changes)
}

func TestCurveIsBounded(t *testing.T) {
	t.Parallel()
	var c curve
	var lo, hi uint64 = 1 << 60, 0
	for i := range 100_000 {
		v := uint64(i * 7919 % 100_003)
		lo, hi = min(lo, v), max(hi, v)
		c.heap(time.Duration(i)*time.Millisecond, v)
		require.LessOrEqual(t, len(c.points), maxPoints)
	}
	gotLo, gotHi := uint64(1<<60), uint64(0)
	for i, p := range c.points {
		if i > 0 {
			require.Less(t, c.points[i-1].At, p.At)
		}
		require.Zero(t, p.At%c.width)
		gotLo, gotHi = min(gotLo, p.Min.v), max(gotHi, p.Max.v)
	}
	assert.Equal(t, lo, gotLo, "no low is lost")
	assert.Equal(t, hi, gotHi, "no peak is lost")
	assert.Greater(t, len(c.points), maxPoints/4, "no more is merged than must be")
}

// Payers beyond the limit are summed, the ones that paid most stay, and
// whoever is paying now stays too.
func TestPayersAreBounded(t *testing.T) {
	t.Parallel()
	var ta tally[trace.GoID]
	var want Payer
	var held *payer
	for i := range 5 * maxPayers {
		p := ta.get(trace.GoID(i), func() Payer { return Payer{Goroutine: int64(i), Name: fmt.Sprint(i)} })
		if i == 0 {
			held = p
			held.busy++
		}
		p.Count++
		p.Wall += time.Duration(i % 1000)
		want.Count++
		want.Wall += time.Duration(i % 1000)
		require.LessOrEqual(t, len(ta.payers), maxPayers)
	}
	assert.False(t, held.folded)
	assert.Same(t, held, ta.payers[0])
	top := ta.top()
	require.Len(t, top, topPayers+1)
	var got Payer
	for i, p := range top {
		got.Count += p.Count
		got.Wall += p.Wall
		if i < topPayers {
			assert.GreaterOrEqual(t, p.Wall, time.Duration(996), "the worst come first") // some 20 of each
		}
	}
	assert.Equal(t, want, got)
	assert.NotZero(t, top[topPayers].Other)
}

func TestPausesAreBounded(t *testing.T) {
	t.Parallel()
	var p pauses
	for i := range 10 * maxPauses {
		p.add(Pause{Start: time.Duration(i), Length: time.Duration(i * 7919 % 65536), Reason: "r"})
		require.Less(t, len(p.longest), 2*maxPauses)
	}
	list, reasons := p.lists()
	require.Len(t, list, maxPauses)
	require.Len(t, reasons, 1)
	assert.Equal(t, uint64(10*maxPauses), reasons[0].Count)
	assert.Equal(t, uint64(9*maxPauses), p.dropped)
	longest := time.Duration(0)
	for _, s := range list {
		longest = max(longest, s.Length)
	}
	assert.Equal(t, reasons[0].Max, longest)
}

func TestCyclesAreBounded(t *testing.T) {
	t.Parallel()
	s := newStory()
	for range maxCycles + 10 {
		s.openCycle()
		s.now += time.Millisecond
		s.markEnd()
		s.closeCycle(true)
	}
	s.started = true
	r := s.report()
	check(t, r)
	assert.Equal(t, uint64(10), r.CyclesDropped)
	assert.Equal(t, uint64(maxCycles+10), r.Peak.SweepsCut)
}

func FuzzRead(f *testing.F) {
	for _, release := range recordings {
		f.Add(gunzip(f, release+".tiny.gz"))
	}
	f.Add([]byte("go 1.26 trace\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Read(bytes.NewReader(b), Options{})
		if r == nil {
			require.Error(t, err)
		} else {
			check(t, r)
		}
		if err != nil {
			ours(t, err)
		}
	})
}
