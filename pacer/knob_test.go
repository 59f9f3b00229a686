// SPDX-License-Identifier: Apache-2.0

package pacer

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type saving struct {
	with, without int64
	turn          int
}

// process is a setting that others save, change and put back, in any order, twice:
// with us and as it would be without us.
type process struct {
	with, without int64
	held          []saving // what they have saved
	turns         int
	random        *rand.Rand
}

func (p *process) turn() {
	p.turns++
	p.held = slices.DeleteFunc(p.held, func(h saving) bool { return p.turns-h.turn >= savedMost })
	switch n := p.random.IntN(4); {
	case n == 0 && len(p.held) > 0:
		i := p.random.IntN(len(p.held))
		p.with, p.without = p.held[i].with, p.held[i].without
		p.held = append(p.held[:i], p.held[i+1:]...)
	case n <= 1 && len(p.held) < 4:
		p.held = append(p.held, saving{p.with, p.without, p.turns})
		fallthrough
	case n == 2:
		v := [...]int64{-1, 300, 400, 1000}[p.random.IntN(4)]
		p.with, p.without = v, v
	}
}

// Whatever others do, also between our look and our change, the baseline is what
// the process would have without us.
func TestKnobKeepsWhatWouldBeThereWithoutUs(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		p := &process{with: 100, without: 100, random: rand.New(rand.NewPCG(seed, 1))}
		k := newKnob(100)
		gap := false // somebody came between our look and our change
		for i := range 200 {
			if p.random.IntN(3) == 0 && !gap {
				p.turn()
			}
			if k.found(p.with) {
				require.Equal(t, p.without, k.baseline, "seed %d, step %d", seed, i)
				continue
			}
			asked := [...]int64{50, 100, 200, k.baseline}[p.random.IntN(4)]
			v := k.distinct(asked)
			require.InDelta(t, asked, v, savedMost)
			if gap = !gap && p.random.IntN(10) == 0; gap {
				p.turn()
			}
			if v != k.now {
				k.found(p.with)
				p.with = v
			}
			k.turn(asked, v)
			if k.now == p.with {
				require.Equal(t, p.without, k.baseline, "seed %d, step %d", seed, i)
			}
		}
	}
}

func TestKnobForgets(t *testing.T) {
	t.Parallel()
	k := newKnob(1 << 40)
	set := func(v int64) { k.turn(v, v); k.keep(false) }
	set(5000)
	k.found(1 << 41) // somebody has replaced 5000, and may hold it
	for v := range int64(100) {
		set(6000 + v)
	}
	assert.Len(t, k.saved, savedMost)
	assert.True(t, k.found(5000))
	assert.EqualValues(t, 1<<40, k.baseline, "what was replaced is remembered the longest")
	assert.True(t, k.found(6099))
	assert.EqualValues(t, 1<<41, k.baseline, "read before it was replaced")
	assert.True(t, k.found(6000))
	assert.EqualValues(t, 6000, k.baseline, "forgotten: somebody's wish")

	for v := range int64(100) {
		k.found(7000 + v)
	}
	assert.Len(t, k.saved, savedMost)
	assert.Equal(t, savedMost, cap(k.saved), "nothing was allocated")
}

func TestKnobDistinct(t *testing.T) {
	t.Parallel()
	k := newKnob(100)
	k.turn(50, 50)
	assert.True(t, k.found(-1))
	assert.EqualValues(t, 49, k.distinct(50), "50 stands for the old baseline")
	k.turn(50, 49)
	assert.EqualValues(t, 49, k.distinct(50), "the same again")
	assert.EqualValues(t, 200, k.distinct(200))
	assert.True(t, k.found(70))
	assert.EqualValues(t, 48, k.distinct(50))
	for _, v := range []int64{-1, 0, 1} {
		k.turn(v, v)
		k.found(80)
		k.found(90)
		assert.Equal(t, v, k.distinct(v), "as it is: there is nothing below")
	}
}
