// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A change is a finding that was raised, moved to another severity, or withdrawn (0).
type change struct {
	at       float64
	id       ID
	severity Severity
}

// A court is a Judge whose every change of mind is written down.
type court struct {
	*Judge
	stands  map[ID]Severity
	changes []change
}

func newCourt() *court { return &court{Judge: NewJudge(), stands: map[ID]Severity{}} }

// hear judges a sample. What Step says of a change must be what Findings show.
func (c *court) hear(t *testing.T, s *Sample) {
	changed := c.Step(s)
	now := map[ID]Severity{}
	for _, f := range c.Findings() {
		require.NotContains(t, now, f.ID, "stands twice")
		now[f.ID] = f.Severity
	}
	require.Equal(t, !maps.Equal(now, c.stands), changed, "at %v s: %v then %v", s.Time.Sub(epoch).Seconds(), c.stands, now)
	for _, d := range docs {
		if now[d.ID] != c.stands[d.ID] {
			c.changes = append(c.changes, change{s.Time.Sub(epoch).Seconds(), d.ID, now[d.ID]})
		}
	}
	c.stands = now
}

// of returns the changes of one finding.
func (c *court) of(id ID) []change {
	return slices.DeleteFunc(slices.Clone(c.changes), func(ch change) bool { return ch.id != id })
}

func TestEveryFindingHasADetectorAndAText(t *testing.T) {
	t.Parallel()
	var watched, told []ID
	for _, w := range NewJudge().watched {
		watched = append(watched, w.id())
	}
	for _, d := range Docs() {
		told = append(told, d.ID)
		for _, s := range []string{d.Means, d.Signal, d.Raised, d.Remedy} {
			assert.NotEmpty(t, s, d.ID)
		}
	}
	assert.ElementsMatch(t, told, watched, "the table of findings and the detectors")
	assert.ElementsMatch(t, told, slices.Collect(maps.Keys(pressures)), "every detector needs its test here")
}

func TestHealthySampleFindsNothing(t *testing.T) {
	t.Parallel()
	c := newCourt()
	for s := range 120 {
		c.hear(t, healthy(float64(s)))
	}
	assert.Empty(t, c.changes)
}

// Pressure rises, stays and falls: one finding, raised soon, at the severity that
// it deserves, withdrawn once, not before ten seconds.
func TestDetectorsForwards(t *testing.T) {
	t.Parallel()
	for id, p := range pressures {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()
			const rise, fall, end = 60, 180, 300
			c, press := newCourt(), p.new()
			worst := Severity(0)
			for s := 0.0; s < end; s++ {
				sample := healthy(s)
				if rise <= s && s < fall {
					press(sample, 1)
				} else {
					press(sample, 0)
				}
				c.hear(t, sample)
				for other := range c.stands {
					require.Contains(t, append(p.also, id), other, "at %v s", s)
				}
				worst = max(worst, c.stands[id])
			}
			changes := c.of(id)
			require.GreaterOrEqual(t, len(changes), 2, "raised and withdrawn: %v", changes)
			first, last := changes[0], changes[len(changes)-1]
			assert.LessOrEqual(t, first.at, rise+p.raised)
			assert.GreaterOrEqual(t, first.at, float64(rise))
			assert.Equal(t, p.severity, worst)
			assert.Zero(t, last.severity, "withdrawn at last")
			assert.LessOrEqual(t, last.at, fall+p.cleared)
			assert.GreaterOrEqual(t, last.at, fall+clearAfter.Seconds()-1)
			assert.LessOrEqual(t, len(changes), 6, "up at most three steps and down again: %v", changes)
		})
	}
}

// A condition that comes and goes at every look is one finding.
func TestDetectorsDoNotFlap(t *testing.T) {
	t.Parallel()
	for id, p := range pressures {
		for _, half := range []float64{1, 4} { // seconds, and looks, between the turns
			c, press := newCourt(), p.new()
			for s := 0.0; s < 300; s++ {
				sample := healthy(s)
				press(sample, float64(int(s/half)%2))
				c.hear(t, sample)
			}
			assert.LessOrEqual(t, len(c.of(id)), 3, "%s, turning every %v s: %v", id, half, c.of(id))
		}
	}
}

// A detector that cannot see holds its last verdict, and says that it is blind.
func TestDetectorsBlind(t *testing.T) {
	t.Parallel()
	for id, p := range pressures {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()
			c, press := newCourt(), p.new()
			isBlind := func() bool { return slices.Contains(c.Blind(), Blind{string(id), p.whyBlind}) }

			for s := 0.0; s < 30; s++ { // nothing was ever seen
				sample := healthy(s)
				press(sample, 1)
				p.blind(sample, 1)
				c.hear(t, sample)
				require.True(t, isBlind(), "at %v s: %v", s, c.Blind())
				require.NotContains(t, c.stands, id, "no verdict without sight")
			}
			for s := 30.0; s < 150; s++ {
				sample := healthy(s)
				press(sample, 1)
				c.hear(t, sample)
				require.False(t, isBlind(), "at %v s", s)
			}
			require.Contains(t, c.stands, id)
			held := c.stands[id]
			for s := 150.0; s < 400; s++ { // the pressure falls, unseen
				sample := healthy(s)
				press(sample, 0)
				p.blind(sample, 0)
				c.hear(t, sample)
				require.True(t, isBlind())
				require.Equal(t, held, c.stands[id], "at %v s: the last verdict stands", s)
			}
			for s := 400.0; s < 500; s++ {
				sample := healthy(s)
				press(sample, 0)
				c.hear(t, sample)
			}
			assert.NotContains(t, c.stands, id, "seen again, and gone")
		})
	}
}

// With nothing known every detector is blind, none of them finds or panics.
func TestNothingKnown(t *testing.T) {
	t.Parallel()
	c := newCourt()
	for s := range 60 {
		c.hear(t, &Sample{Time: at(float64(s))})
		require.Len(t, c.Blind(), len(docs))
	}
	assert.Empty(t, c.changes)
	_, ok := c.TimeLeft()
	assert.False(t, ok)
}

func TestFindingText(t *testing.T) {
	t.Parallel()
	for id, p := range pressures {
		c, press := newCourt(), p.new()
		for s := 0.0; s < 120; s++ {
			sample := healthy(s)
			press(sample, 1)
			c.hear(t, sample)
		}
		i := slices.IndexFunc(c.Findings(), func(f Finding) bool { return f.ID == id })
		require.GreaterOrEqual(t, i, 0, id)
		f := c.Findings()[i]
		assert.Equal(t, id.doc().Remedy, f.Remedy)
		assert.NotEmpty(t, f.Remedy)
		assert.Regexp(t, `^[A-Z0-9].*\.$`, f.Summary, "one sentence")
		assert.NotRegexp(t, `%!|NaN|Inf|\b0 KiB`, f.Summary, "%s: a figure is missing", id)
		assert.NotEmpty(t, f.Evidence, id)
		assert.LessOrEqual(t, f.Since, at(p.raised), id)
		for _, fact := range f.Evidence {
			assert.NotEmpty(t, fact.Name)
			assert.Contains(t, []Unit{UnitBytes, UnitBytesPerSecond, UnitSeconds, UnitPercent, UnitCount}, fact.Unit)
		}
	}
}

// GOGC=off without a limit is no finding where a guard is about to set one.
func TestCollectorOffUnderAGuard(t *testing.T) {
	t.Parallel()
	for paced, want := range map[bool]state{false: found, true: fine} {
		s := healthy(0)
		s.Runtime.GCPercent, s.Runtime.MemoryLimit, s.Paced = Known[int64](-1), Known[uint64](Unlimited), paced
		assert.Equal(t, want, gcOffNoLimit{}.step(s).state, "paced: %v", paced)
	}
}
