// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
)

const helpless = "it helps no longer"

// spiralFor has the hand live through seconds in a spiral, or out of one.
func spiralFor(h *hand, s *Sample, spiral bool, seconds int, each func()) {
	h.known, h.decision.Spiral, h.decision.Reason, h.decision.GCShare = true, spiral, helpless, 0.1
	if spiral {
		h.decision.GCShare = 0.4
	}
	for range seconds {
		s.Time = s.Time.Add(time.Second)
		h.shed(s)
		if each != nil {
			each()
		}
	}
}

// refusedOf is how many of a hundred units of work the limiter refuses.
func refusedOf(t *testing.T, l *shed.Limiter) (n int) {
	for range 100 {
		leave, err := l.Enter(context.Background(), shed.Work{Route: "r"})
		if err != nil {
			require.ErrorIs(t, err, shed.ErrRefused)
			n++
			continue
		}
		leave()
	}
	return n
}

// In a spiral the limiter refuses a share of the work, whatever it knows of the
// memory: the spiral may be under a limit of the user's own. The share rises while the
// spiral stands, and falls slowly afterwards; only then it is over.
func TestSpiralSheds(t *testing.T) {
	t.Parallel()
	l := shed.New(shed.Config{})
	h, s := handOf(Config{Shed: l}), &Sample{Time: at(0)}
	spiralFor(h, s, false, 3, nil)
	assert.Zero(t, refusedOf(t, l))
	spiralFor(h, s, true, 1, nil)
	assert.Equal(t, 10, refusedOf(t, l))
	s.Time = s.Time.Add(10 * time.Millisecond)
	h.shed(s)
	assert.Equal(t, 10, refusedOf(t, l), "a step a second, however often it looks")
	before := 10
	spiralFor(h, s, true, 20, func() {
		assert.GreaterOrEqual(t, l.Refusing(), before)
		before = l.Refusing()
	})
	assert.Equal(t, 90, refusedOf(t, l), "what passes shows whether it helps")
	h.decision.GCShare = 0.2
	s.Time = s.Time.Add(time.Second)
	h.shed(s)
	assert.Equal(t, 85, refusedOf(t, l), "the spiral stands, but the collector is within its budget")
	spiralFor(h, s, true, 1, nil)
	assert.Equal(t, []string{"applied shed 0 -> 1: " + helpless}, h.lines(Applied, Planned))

	spiralFor(h, s, false, 4, nil)
	assert.Equal(t, 70, refusedOf(t, l), "not all at once: the spiral would be back with the load")
	assert.Len(t, h.lines(Applied, Planned), 1, "it sheds still")
	spiralFor(h, s, true, 1, nil)
	assert.Equal(t, 80, refusedOf(t, l))
	spiralFor(h, s, false, 20, nil)
	assert.Zero(t, refusedOf(t, l))
	assert.Equal(t, []string{"applied shed 0 -> 1: " + helpless, "applied shed 1 -> 0: there is room again"}, h.lines(Applied, Planned))
	assert.Empty(t, h.lines(Lost))

	// What cannot be seen is not refused for.
	spiralFor(h, s, true, 5, nil)
	h.known = false
	for range 20 {
		s.Time = s.Time.Add(time.Second)
		h.shed(s)
	}
	assert.Zero(t, refusedOf(t, l))
}

// Under the kernel's limit the limiter knows by itself what it may admit: it is told,
// and no more is refused. Under an order's limit it does not know.
func TestSpiralUnderTheKernelsLimit(t *testing.T) {
	t.Parallel()
	l := shed.New(shed.Config{})
	h, s := handOf(Config{Shed: l}), &Sample{Time: at(0)}
	h.governor.Baseline.MemoryLimit, h.decision.MemoryLimit = pacer.NoLimit, 200*mebi
	spiralFor(h, s, true, 5, nil)
	assert.Zero(t, l.Refusing())
	assert.Equal(t, []string{"applied shed 0 -> 1: " + helpless}, h.lines(Applied, Planned))
	h.orders.put(SetMemoryLimit, &standingOrder{})
	spiralFor(h, s, true, 5, nil)
	assert.Equal(t, 50, l.Refusing())
	h.orders.put(SetMemoryLimit, nil)
	spiralFor(h, s, true, 5, nil)
	assert.Equal(t, 25, l.Refusing())
}

// Close takes it back. What the service refuses by itself stays.
func TestSpiralShedsUntilTheGuardEnds(t *testing.T) {
	t.Parallel()
	l := shed.New(shed.Config{})
	l.Refuse(5)
	h, s := handOf(Config{Shed: l}), &Sample{Time: at(0)}
	spiralFor(h, s, true, 7, nil)
	assert.Equal(t, 70, l.Refusing())
	h.undo()
	assert.Equal(t, 5, l.Refusing())
	assert.Equal(t, []string{"undone shed 1 -> 0: the guard ends"}, h.lines(Undone))
}

// What somebody has ordered holds alone, and the guard's own share is not what it
// goes back to.
func TestSpiralShedsBesideAnOrder(t *testing.T) {
	t.Parallel()
	l := shed.New(shed.Config{})
	h, s := handOf(Config{Shed: l}), &Sample{Time: at(0)}
	spiralFor(h, s, true, 5, nil)
	require.Equal(t, 50, l.Refusing())
	h.hold(&standingOrder{action: Action{Name: ShedLoad, To: 20, Until: at(1 << 20)}})
	spiralFor(h, s, true, 5, nil)
	assert.Equal(t, 20, l.Refusing())
	h.hold(&standingOrder{action: Action{Name: ShedLoad, To: 30, Until: at(1 << 20)}})
	assert.Equal(t, 30, l.Refusing())
	h.takeBack(ShedLoad, "", "")
	assert.Zero(t, l.Refusing(), "neither the guard's nor the first order's")
	spiralFor(h, s, true, 2, nil)
	assert.Equal(t, 20, l.Refusing(), "it begins anew")
	spiralFor(h, s, false, 5, nil)
	assert.Zero(t, l.Refusing())
}

// Without a limiter the memory breaker lets a few pass while the spiral stands; where
// the level of memory has opened it, it stays open.
func TestSpiralTripsTheMemoryBreaker(t *testing.T) {
	t.Parallel()
	b := shed.NewBreaker(shed.BreakerConfig{CoolDown: time.Hour})
	h, s := handOf(Config{MemoryBreaker: b}), &Sample{Time: at(0)}
	spiralFor(h, s, true, 3, nil)
	assert.Equal(t, shed.HalfOpen, b.State())
	assert.Equal(t, []string{"applied shed 0 -> 1: " + helpless}, h.lines(Applied, Planned))
	b.Observe(1)
	spiralFor(h, s, true, 2, nil)
	assert.Equal(t, shed.Open, b.State())
	b.Reset()
	spiralFor(h, s, true, 1, nil)
	assert.Equal(t, shed.HalfOpen, b.State())
	spiralFor(h, s, false, 2, nil)
	assert.Equal(t, shed.Closed, b.State())
	assert.Equal(t, []string{"applied shed 0 -> 1: " + helpless, "applied shed 1 -> 0: there is room again"}, h.lines(Applied, Planned))

	spiralFor(h, s, true, 1, nil)
	h.hold(&standingOrder{action: Action{Name: SetBreaker, To: int64(pacer.Open), Until: at(1 << 20)}})
	spiralFor(h, s, true, 2, nil)
	assert.Equal(t, shed.Open, b.State(), "what was ordered")
	h.takeBack(SetBreaker, "", "")
	assert.Equal(t, shed.Closed, b.State())
	spiralFor(h, s, true, 1, nil)
	assert.Equal(t, shed.HalfOpen, b.State())
	h.undo()
	assert.Equal(t, shed.Closed, b.State())
}

// Where there is nobody who could shed, that is said, once: it is not applied. In a
// dry run nothing is lost, and for another OnSpiral nothing is shed.
func TestSpiralWithNobodyToShed(t *testing.T) {
	t.Parallel()
	run := func(cfg Config) (h *hand, lost []Blind) {
		h = handOf(cfg)
		s := &Sample{Time: at(0)}
		for range 3 {
			spiralFor(h, s, true, 2, nil)
			spiralFor(h, s, false, 2, nil)
		}
		es, _, _ := h.g.journal.since(0)
		for _, e := range es {
			if e.Kind == Lost {
				lost = append(lost, e.Blind)
			}
		}
		return h, lost
	}
	h, lost := run(Config{})
	assert.Equal(t, []Blind{{"shed", errNobody.Error()}}, lost)
	assert.Len(t, h.lines(Planned), 6)
	assert.Empty(t, h.lines(Applied))

	l := shed.New(shed.Config{})
	h, lost = run(Config{Shed: l, DryRun: true})
	assert.Empty(t, lost)
	assert.Len(t, h.lines(Planned), 6)
	assert.Empty(t, h.lines(Applied))
	for _, on := range []pacer.OnSpiral{pacer.Rise, pacer.Exit} {
		h, lost = run(Config{Shed: l, OnSpiral: on})
		assert.Empty(t, lost)
		assert.Empty(t, h.lines(Planned, Applied))
	}
	assert.Zero(t, l.Refusing())
}
