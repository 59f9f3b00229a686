// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
	"github.com/memguard/memguard-go/scavenge"
)

// handOf is a hand whose samples the test makes, of a guard that does not run.
func handOf(cfg Config) *hand {
	g := &Guard{source: new(Source), judge: NewJudge(), standing: map[ID]Finding{}, journal: newJournal(), busy: map[string]bool{},
		finished: make(chan func()), done: make(chan struct{})}
	g.proof = newProof(&cfg, g)
	g.hand = newHand(&cfg, g)
	return g.hand
}

// feedAll has the hand act on all that a service lives through, a tick each 50 ms.
func feedAll(h *hand, v service, seconds float64, each func(s *Sample)) {
	v.run(seconds, func(s *Sample) time.Duration {
		s.Runtime.StackScan = Known[uint64](1 << 20)
		s.Runtime.GCCPU, s.Runtime.CPU = Known(0.0), Known(0.0)
		if h.breaker != nil {
			h.state.Store(uint32(h.breaker())) // as poll does
		}
		h.step(s)
		if each != nil {
			each(s)
		}
		return 50 * time.Millisecond
	})
}

// lines are the events of the kinds, in short.
func (h *hand) lines(kinds ...EventKind) (lines []string) {
	es, _, _ := h.g.journal.since(0)
	for _, e := range es {
		if slices.Contains(kinds, e.Kind) {
			lines = append(lines, fmt.Sprintf("%s %s %d -> %d: %s", e.Kind, e.Action.Name, e.Action.From, e.Action.To, e.Action.Reason))
		}
	}
	return lines
}

// The memory limit is what the cgroup leaves: what else grows there is taken off
// it, and comes back when that shrinks.
func TestHandFollowsWhatTheCgroupLeaves(t *testing.T) {
	t.Parallel()
	h := handOf(Config{DryRun: true})
	limits := map[int]int64{}
	others := stream(func(t float64) float64 {
		if t >= 10 && t < 30 {
			return 320 * mebi
		}
		return 20 * mebi
	})
	feedAll(h, service{live: constant(200 * mebi), other: others, garbage: 50 * mebi, limit: 1024 * mebi}, 50, func(s *Sample) {
		limits[int(s.Time.Sub(at(0)).Seconds())] = h.wanted.MemoryLimit
	})
	assert.Less(t, limits[9], int64(1024*mebi))
	assert.Greater(t, limits[9], int64(750*mebi))
	assert.InDelta(t, 300*mebi, limits[9]-limits[29], 80*mebi, "follows what is not Go's")
	assert.InDelta(t, limits[9], limits[49], 80*mebi, "and back")
	for _, line := range h.lines(Applied, Undone) {
		t.Errorf("in a dry run: %s", line)
	}
	assert.LessOrEqual(t, h.changes, uint64(12))
}

// What is unknown decides nothing: the last decision stands.
func TestHandBlind(t *testing.T) {
	t.Parallel()
	h := handOf(Config{DryRun: true})
	v := service{live: constant(200 * mebi), garbage: 50 * mebi, limit: 512 * mebi}
	feedAll(h, v, 5, nil)
	stands, events := h.wanted, h.g.journal.next
	require.Less(t, stands.MemoryLimit, int64(512*mebi))
	for name, blind := range map[string]func(s *Sample){
		"no cgroup":  func(s *Sample) { s.Cgroup = Cgroup{} },
		"no limit":   func(s *Sample) { s.Cgroup.Limit = Bytes{} },
		"no usage":   func(s *Sample) { s.Cgroup.Usage = Bytes{} },
		"no runtime": func(s *Sample) { s.Runtime = Runtime{} },
		"no RSS":     func(s *Sample) { s.Process = Process{} },
		"no cycles":  func(s *Sample) { s.Runtime.Cycles = Count{} },
		"no goal":    func(s *Sample) { s.Runtime.Goal = Bytes{} },
		"nothing":    func(s *Sample) { *s = Sample{Time: s.Time} },
	} {
		v.run(2, func(s *Sample) time.Duration {
			blind(s)
			s.Time = s.Time.Add(time.Hour)
			h.step(s)
			return time.Second
		})
		assert.False(t, h.known, name)
		assert.Equal(t, stands, h.wanted, name)
	}
	assert.Equal(t, events, h.g.journal.next)
	first := handOf(Config{DryRun: true})
	first.step(&Sample{Time: at(0)})
	assert.Equal(t, first.applier.Baseline(), first.wanted, "nothing was ever known")
	assert.Zero(t, first.changes)
}

// The breaker's state drives the GC percent by the table. What does not fit is
// clamped, and each clamp is told once, with its reason.
func TestHandCouplesTheBreaker(t *testing.T) {
	t.Parallel()
	state := pacer.Closed
	h := handOf(Config{DryRun: true, Breaker: func() pacer.State { return state }})
	light := service{live: constant(100 * mebi), garbage: 50 * mebi, limit: 1024 * mebi}
	for _, c := range []struct {
		state pacer.State
		want  int
	}{{pacer.Closed, 100}, {pacer.HalfOpen, 50}, {pacer.Open, 200}, {pacer.Closed, 100}} {
		state = c.state
		feedAll(h, light, 5, nil)
		assert.Equal(t, c.want, h.wanted.GCPercent, c.state)
	}
	assert.Equal(t, []string{
		"planned gc-percent 100 -> 50: the breaker's state",
		"planned gc-percent 50 -> 200: the breaker's state",
		"planned gc-percent 200 -> 100: the breaker's state",
	}, slices.DeleteFunc(h.lines(Planned, Clamped), func(s string) bool { return !strings.Contains(s, "gc-percent") }))

	h = handOf(Config{DryRun: true, Breaker: func() pacer.State { return state }, Table: &pacer.Table{Closed: 20, HalfOpen: 100, Open: 300}})
	heavy := service{live: constant(600 * mebi), garbage: 50 * mebi, limit: 1024 * mebi}
	for _, state = range []pacer.State{pacer.Open, pacer.HalfOpen, pacer.Closed, pacer.Open} {
		feedAll(h, heavy, 5, nil)
		assert.LessOrEqual(t, h.wanted.GCPercent, 60, "600 MiB more than that do not fit")
	}
	clamps := h.lines(Clamped)
	require.Len(t, clamps, 3, "%q", clamps)
	for i, from := range []string{"300", "100", "300"} {
		assert.Regexp(t, "^clamped gc-percent "+from+` -> \d+: the heap would not fit under the limit$`, clamps[i])
	}
	assert.EqualValues(t, 3, h.clamps)
}

// Clocks jump. Nothing is told that did not happen, and the settings stay sane.
func TestHandOutlivesAClockJump(t *testing.T) {
	t.Parallel()
	h := handOf(Config{DryRun: true, Breaker: func() pacer.State { return pacer.Closed }, Compact: func() {}})
	v := service{live: constant(200 * mebi), garbage: 50 * mebi, limit: 512 * mebi}
	feedAll(h, v, 5, nil)
	stands, changes := h.wanted, h.changes
	for _, jump := range []time.Duration{24 * time.Hour, -48 * time.Hour, time.Nanosecond, math.MaxInt64 / 4, -math.MaxInt64 / 4, 0} {
		v.run(1, func(s *Sample) time.Duration {
			s.Time = s.Time.Add(5*time.Second + jump)
			h.step(s)
			return 50 * time.Millisecond
		})
		assert.InDelta(t, stands.MemoryLimit, h.wanted.MemoryLimit, 60*mebi, jump)
		assert.Equal(t, stands.GCPercent, h.wanted.GCPercent, jump)
	}
	assert.LessOrEqual(t, h.changes-changes, uint64(12))
	feedAll(h, service{live: constant(100 * mebi), other: constant(250 * mebi), limit: 512 * mebi}, 5, nil)
	assert.Less(t, h.wanted.MemoryLimit, stands.MemoryLimit-50*mebi, "it still follows")
}

// Load is refused in a spiral, and told once; when it is over, that too.
func TestHandTellsWhenLoadShouldBeRefused(t *testing.T) {
	t.Parallel()
	h := handOf(Config{DryRun: true})
	s := &Sample{Time: at(0)}
	for _, spiral := range []bool{false, true, true, false, false, true} {
		h.decision.Spiral, h.decision.Reason = spiral, "it helps no longer"
		h.shed(s)
	}
	assert.Equal(t, []string{
		"planned shed 0 -> 1: it helps no longer",
		"planned shed 1 -> 0: there is room again",
		"planned shed 0 -> 1: it helps no longer",
	}, h.lines(Planned))
}

// A dry run plans what would be done, word for word, and changes nothing.
func TestProcessHandDryRunPlansTheSame(t *testing.T) {
	found := pacer.NewApplier().Current()
	v := service{
		live: constant(200 * mebi), garbage: 50 * mebi, limit: 1024 * mebi,
		other: func(t float64) float64 { return 20*mebi + 10*mebi*t },
	}
	breaker := func() (s pacer.State, f pacer.StateFunc) {
		n := 0
		return s, func() pacer.State { n++; return pacer.State(n / 100 % 3) }
	}
	live := func(dry bool) []string {
		_, f := breaker()
		h := handOf(Config{DryRun: dry, Breaker: f})
		feedAll(h, v, 20, nil)
		if dry {
			assert.Equal(t, found, pacer.NewApplier().Current(), "nothing is changed")
		} else {
			assert.Equal(t, h.wanted, pacer.NewApplier().Current(), "what is wanted is set")
			assert.Less(t, h.wanted.MemoryLimit, int64(900*mebi))
		}
		lines := h.lines(Applied, Planned, Clamped)
		h.undo()
		assert.Equal(t, found, pacer.NewApplier().Current(), "and undone")
		if dry {
			assert.Empty(t, h.lines(Undone, Applied))
		} else {
			assert.NotEmpty(t, h.lines(Undone))
		}
		for i := range lines {
			_, lines[i], _ = strings.Cut(lines[i], " ") // planned or applied
		}
		return lines
	}
	acts := live(false)
	assert.Greater(t, len(acts), 4)
	assert.Equal(t, acts, live(true))
}

// What somebody else sets meanwhile is what the process goes back to. It is not
// told as the guard's doing, and not fought.
func TestProcessHandRespectsSomebodyElse(t *testing.T) {
	user := pacer.NewApplier().Current()
	defer func() { pacer.NewApplier().Apply(user) }()
	h := handOf(Config{})
	v := service{live: constant(200 * mebi), garbage: 50 * mebi, limit: 1024 * mebi}
	feedAll(h, v, 3, nil)
	ours := h.wanted.MemoryLimit
	require.Less(t, ours, int64(pacer.NoLimit))
	changes := h.changes

	foreign := func(s pacer.Setting) { require.True(t, pacer.NewApplier().Apply(s)) }
	foreign(pacer.Setting{GCPercent: 63, MemoryLimit: ours})
	feedAll(h, v, 3, nil)
	assert.Equal(t, 63, h.wanted.GCPercent)
	assert.Equal(t, 63, pacer.NewApplier().Current().GCPercent)
	assert.Equal(t, changes, h.changes, "%q", h.lines(Applied))

	foreign(pacer.Setting{GCPercent: 63, MemoryLimit: 400 * mebi})
	feedAll(h, v, 3, nil)
	assert.EqualValues(t, 400*mebi, pacer.NewApplier().Current().MemoryLimit, "lower than what the cgroup leaves: the user's wish")
	assert.Equal(t, changes, h.changes, "%q", h.lines(Applied))
	h.undo()
	assert.Equal(t, pacer.Setting{GCPercent: 63, MemoryLimit: 400 * mebi}, pacer.NewApplier().Current())
	assert.Empty(t, h.lines(Undone), "nothing of the guard's was left")
}

// Of two guards one sets; the other says that it does not. When the first has
// gone a third may.
func TestProcessTwoGuards(t *testing.T) {
	found := pacer.NewApplier().Current()
	first, second := Start(Config{}), Start(Config{})
	assert.True(t, first.hand.sets)
	assert.False(t, second.hand.sets)
	es, _, _ := second.journal.since(0)
	require.NotEmpty(t, es)
	assert.Equal(t, Blind{"settings", "another guard of this process changes them: this one only plans"}, es[0].Blind)
	assert.False(t, first.Status().DryRun)
	assert.True(t, second.Status().DryRun, "it sets nothing, and says so")
	_, err := second.Do(Order{Action: SetGCPercent, To: 50, Reason: "a test"})
	assert.ErrorIs(t, err, ErrOrder)
	_, err = first.Do(Order{Action: SetGCPercent, To: 50, Reason: "a test"})
	assert.NoError(t, err)
	require.NoError(t, second.Close())
	assert.Equal(t, 50, pacer.NewApplier().Current().GCPercent, "the second does not undo what the first did")
	require.NoError(t, first.Close())
	assert.Equal(t, found, pacer.NewApplier().Current())
	third := Start(Config{})
	assert.True(t, third.hand.sets)
	require.NoError(t, third.Close())
	assert.Equal(t, found, pacer.NewApplier().Current())
}

// The first rung of the releaser's ladder is a line in the log, and nothing that is
// planned, in a guard that acts.
func TestTheLogRungIsNoRelease(t *testing.T) {
	t.Parallel()
	for _, dry := range []bool{false, true} {
		h := handOf(Config{DryRun: dry})
		s := healthy(0)
		s.Runtime.Live, s.Runtime.Objects = Known[uint64](820*mebi), Known[uint64](830*mebi)
		add(s, 20*mebi)
		h.fill(s)
		h.give(s)
		assert.Equal(t, scavenge.Log, h.plan.Grade)
		es, _, _ := h.g.journal.since(0)
		require.Len(t, es, 1)
		assert.Equal(t, Planned, es[0].Kind)
		assert.Equal(t, Log, es[0].Action.Name)
		assert.Equal(t, dry, es[0].Action.DryRun)
		level, _, _ := es[0].logged()
		assert.Equal(t, slog.LevelInfo, level)
	}
}

// What of Go's memory is swapped out was touched, and comes back. Where swap is not
// known, nothing is taken for never touched.
func TestSwappedOutIsNotUntouched(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		swap, cgroup           Bytes
		wantUntouched, wantOut uint64
	}{
		"none":                  {Known[uint64](0), Known[uint64](0), 60, 0},
		"a part":                {Known[uint64](20 * mebi), Known[uint64](30 * mebi), 40, 20},
		"more than is missing":  {Known[uint64](200 * mebi), Bytes{}, 0, 60},
		"not known":             {Bytes{}, Bytes{}, 0, 0},
		"the cgroup's own none": {Bytes{}, Known[uint64](0), 60, 0},
		"somebody's":            {Bytes{}, Known[uint64](1), 0, 0},
	} {
		h, s := handOf(Config{DryRun: true}), healthy(0)
		mapped, _ := s.Runtime.mapped().Get()
		s.Process.RSS, s.Process.Shared = Known(mapped-60*mebi), Known[uint64](0)
		s.Cgroup.Usage = Known(mapped + 40*mebi) // with 60 MiB of page cache: 40 MiB of others
		s.Process.Swap, s.Cgroup.Swap = c.swap, c.cgroup
		h.fill(s)
		require.True(t, h.known, name)
		assert.Equal(t, c.wantUntouched*mebi, h.reading.Untouched, name)
		assert.Equal(t, c.wantOut*mebi, h.reading.Swapped, name)
		assert.EqualValues(t, 40*mebi, h.notGos(), name)
	}
}

// The level of memory moves the memory breaker, and that the GC percent, by the
// table: what the table proposes beyond the room is clamped.
func TestMemoryMovesTheBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := shed.NewBreaker(shed.BreakerConfig{})
		h := handOf(Config{MemoryBreaker: b})
		burst := stream(func(t float64) float64 {
			if t >= 10 && t < 20 {
				return 110 * mebi
			}
			return 0
		})
		v := service{live: constant(100 * mebi).plus(burst), garbage: 20 * mebi, limit: 256 * mebi, goLimit: 235 * mebi}
		states, percent := map[int]pacer.State{}, map[int]int{}
		start := time.Now()
		killed := v.run(40, func(s *Sample) time.Duration {
			time.Sleep(s.Time.Sub(epoch) - time.Since(start))
			h.fill(s)
			h.observe()
			h.pace() // it only plans: it has not claimed the settings
			now := int(s.Time.Sub(epoch).Seconds())
			states[now], percent[now] = h.reading.State, h.decision.GCPercent
			return 50 * time.Millisecond
		})
		require.True(t, math.IsInf(killed, 0))
		assert.Equal(t, pacer.Closed, states[9])
		assert.Equal(t, pacer.Open, states[15])
		assert.Equal(t, pacer.Closed, states[39])
		assert.Less(t, percent[15], 100, "open proposes 200, and that does not fit")
		var moves []string
		for _, line := range h.lines(Applied) {
			if strings.Contains(line, "breaker") {
				moves = append(moves, line)
			}
		}
		require.Len(t, moves, 3, "%q", moves)
		assert.Regexp(t, `^applied breaker 0 -> 2: what cannot be freed is 9\d % of the limit$`, moves[0])
		assert.Regexp(t, `^applied breaker 2 -> 1: `, moves[1])
		assert.Regexp(t, `^applied breaker 1 -> 0: `, moves[2])

		// Without a limit there is nothing that it should open for; what is not known
		// it is not told.
		s := healthy(50)
		s.Cgroup.Limit = Known[uint64](Unlimited)
		h.fill(s)
		assert.Zero(t, h.level())
	})
}

// Whose breaker the pacer goes by: the service's own where there are two. A table of
// zeros couples none.
func TestWhichBreakerMovesThePacer(t *testing.T) {
	t.Parallel()
	b := shed.NewBreaker(shed.BreakerConfig{})
	b.Force(shed.Open)
	v := service{live: constant(100 * mebi), garbage: 50 * mebi, limit: 1024 * mebi}
	proposed := func(cfg Config) (pacer.State, int) {
		cfg.MemoryBreaker, cfg.DryRun = b, true
		h := handOf(cfg)
		feedAll(h, v, 2, nil)
		return h.reading.State, h.decision.Proposed
	}
	state, percent := proposed(Config{})
	assert.Equal(t, pacer.Open, state)
	assert.Equal(t, 200, percent)
	state, percent = proposed(Config{Breaker: func() pacer.State { return pacer.HalfOpen }})
	assert.Equal(t, pacer.HalfOpen, state)
	assert.Equal(t, 50, percent)
	_, percent = proposed(Config{Table: &pacer.Table{}})
	assert.Equal(t, pacer.NewApplier().Baseline().GCPercent, percent)
}
