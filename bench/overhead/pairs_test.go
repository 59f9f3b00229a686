// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What limiter and ticks cost comes out, though the machine slows down meanwhile.
func TestComparing(t *testing.T) {
	t.Parallel()
	const request, limiter, tick = 100e-6, 3e-6, 150e-6
	at := time.Unix(1e9, 0)
	c := comparing{window: usualWindow}
	for bundle := range 10 {
		slow := 1 + float64(bundle)/10
		var windows []window
		var ticks []time.Time
		for i := range bundleWindows {
			w := window{limited: i%4 == 1 || i%4 == 2, start: at, end: at.Add(4 * time.Millisecond), cpu: slow * usualWindow * request}
			if w.limited {
				w.cpu += usualWindow * limiter
			}
			if i == 3 || i == 9 { // ticks, in a window of either kind
				w.cpu += tick
				ticks = append(ticks, at.Add(time.Millisecond), at.Add(time.Millisecond+time.Microsecond), at.Add(time.Millisecond))
			}
			if i == 14 { // two in one are nobody's
				w.cpu += 10 * tick
				ticks = append(ticks, at, at.Add(3*time.Millisecond))
			}
			at = w.end
			windows = append(windows, w)
		}
		c.bundle(windows, ticks)
	}
	b, err := c.sum(time.Second)
	require.NoError(t, err)
	assert.InDelta(t, 1.45*request, b.Request, 1e-12)
	assert.InDelta(t, limiter, b.Limiter, 1e-12)
	assert.InDelta(t, tick, b.Tick, 1e-12)
	assert.Equal(t, 40, b.Ticks)
	assert.Equal(t, 20, b.Compared)
	assert.Equal(t, 10*bundleWindows*usualWindow, b.Requests)

	c = comparing{window: usualWindow}
	c.bundle(make([]window, bundleWindows), nil)
	_, err = c.sum(time.Second)
	assert.ErrorContains(t, err, "0 ticks")
}
