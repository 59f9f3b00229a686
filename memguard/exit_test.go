// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/pacer"
)

// It is planned once, in a spiral, if that is what is configured; in a dry run
// nothing more.
func TestExitIsPlanned(t *testing.T) {
	t.Parallel()
	for on, want := range map[pacer.OnSpiral]int{pacer.Shed: 0, pacer.Rise: 0, pacer.Exit: 1} {
		h := handOf(Config{DryRun: true, OnSpiral: on})
		h.exit()
		assert.Empty(t, h.lines(Planned), "no spiral")
		h.decision.Spiral, h.decision.Reason = true, "it helps no longer"
		for range 3 {
			h.exit()
		}
		lines := h.lines(Planned, Applied)
		require.Len(t, lines, want, on)
		if want > 0 {
			assert.Equal(t, "planned exit 0 -> 75: it helps no longer", lines[0])
		}
		assert.Nil(t, h.g.exit)
	}
}

// Without a store there is no evidence to wait for.
func TestExitWithoutAStore(t *testing.T) {
	t.Parallel()
	h := handOf(Config{OnSpiral: pacer.Exit})
	h.decision.Spiral, h.decision.Reason = true, "it helps no longer"
	h.exit()
	h.g.locked(<-h.g.finished)
	assert.NotNil(t, h.g.exit, "what the guard's goroutine does next")
	assert.Len(t, h.lines(Planned, Applied), 2)
}

// A spiral that comes and goes with the bursts of a service that would live is not
// the end of it, and one that stands is only after some seconds, unless nothing is left.
func TestExitWaitsUntilASpiralHasStood(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		room   float64 // of 100
		sinks  float64 // each second
		spiral func(second int) bool
		at     int // the second of the exit, -1 never
	}{
		"it stands":         {26, 0, func(int) bool { return true }, 5},
		"it comes and goes": {26, 0, func(n int) bool { return n%8 < 5 }, -1},
		"no room":           {14, 0, func(n int) bool { return n >= 3 }, 3},
		"it sinks":          {26, 3, func(int) bool { return true }, 4},
		"the user's limit":  {51, 0, func(int) bool { return true }, -1},
	} {
		h := handOf(Config{DryRun: true, OnSpiral: pacer.Exit})
		h.reading.Limit = 1000
		exited := -1
		for n := range 60 {
			h.reading.Time, h.decision.Spiral = at(float64(n)), c.spiral(n)
			h.decision.Room = uint64(10 * (c.room - c.sinks*float64(n)))
			if h.exit(); h.exiting && exited < 0 {
				exited = n
			}
		}
		assert.Equal(t, c.at, exited, name)
	}
	h := handOf(Config{DryRun: true, OnSpiral: pacer.Exit})
	h.reading.Limit, h.decision.Room, h.decision.Spiral = 100, 26, true
	for _, jump := range []float64{0, 1, 1e6, -1e6, 1e6, 5, 1e6} { // a clock that jumps is no time
		h.reading.Time = at(jump)
		h.exit()
	}
	assert.False(t, h.exiting)
	h.reading.Time, h.reading.Usage = at(6), 95 // garbage has filled the room
	h.exit()
	assert.True(t, h.exiting)
}

// A disk that hangs does not keep a process from ending itself.
func TestExitOnADiskThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hangs := make(chan struct{})
		_, err := atMost(exitWait, func() (int, error) { <-hangs; return 1, nil })
		assert.ErrorIs(t, err, errLeft)
		close(hangs)
		n, err := atMost(exitWait, func() (int, error) { time.Sleep(exitWait / 2); return 1, nil })
		assert.NoError(t, err)
		assert.Equal(t, 1, n)
		_, err = atMost(exitWait, func() (int, error) { panic("no disk") })
		assert.ErrorContains(t, err, "no disk")
	})
}
