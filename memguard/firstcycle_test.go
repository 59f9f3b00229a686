// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/pacer"
)

// Where nothing has been collected when a quarter of the limit is in use, a dry run
// says that it would start a collection, once.
func TestFirstCycles(t *testing.T) {
	t.Parallel()
	off := service{garbage: 1, live: constant(mebi), gogc: -1, limit: 64 * mebi, goLimit: 60 * mebi, other: constant(mebi)}
	for name, c := range map[string]struct {
		change func(v *service)
		want   int
	}{
		"all is kept":          {func(v *service) { v.live = ramp(5 * mebi) }, 1},
		"all is garbage":       {func(v *service) { v.garbage = 5 * mebi }, 1},
		"a small service":      {func(v *service) {}, 0},
		"what grows is not Go": {func(v *service) { v.other = ramp(3 * mebi) }, 0},
		"GOGC=100":             {func(v *service) { v.live, v.gogc = ramp(3*mebi), 100 }, 0},
		"no limit":             {func(v *service) { v.live, v.limit = ramp(5*mebi), 0 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, h := off, handOf(Config{DryRun: true})
			c.change(&v)
			feedAll(h, v, 10, nil)
			gcs := 0
			es, _, _ := h.g.journal.since(0)
			for _, e := range es {
				if e.Action.Name == CollectGarbage {
					assert.Equal(t, Planned, e.Kind)
					assert.True(t, e.Action.DryRun)
					gcs++
				}
			}
			assert.Equal(t, c.want, gcs)
		})
	}
}

// A guard that may act does collect, beside its own goroutine, and once; once more at half of the limit,
// if much has lived.
func TestFirstCycleIsDone(t *testing.T) {
	t.Parallel()
	h := handOf(Config{})
	h.sets, h.known = true, true
	h.reading = pacer.Reading{Time: at(0), Limit: 64 * mebi, Usage: 20 * mebi, Objects: 15 * mebi}
	for range 3 {
		h.firstCycles()
	}
	(<-h.g.finished)()
	for _, r := range []struct{ cycles, usage, live uint64 }{
		{1, 31, 20}, // not half
		{1, 40, 3},  // little has lived
		{2, 40, 20}, // two have told
	} {
		h.reading.Cycles, h.reading.Usage, h.reading.Live = r.cycles, r.usage*mebi, r.live*mebi
		h.firstCycles()
	}
	lines := h.lines(Planned, Applied)
	require.Len(t, lines, 2)
	assert.Equal(t, "planned gc 0 -> 0: "+untold, lines[0])
	assert.Equal(t, "applied gc 0 -> 0: "+untold, lines[1])

	h.reading.Cycles = 1 // and much has lived
	h.firstCycles()
	(<-h.g.finished)()
	h.firstCycles()
	assert.Len(t, h.lines(Planned, Applied), 4)
}
