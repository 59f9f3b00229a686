// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEveryScenarioTellsItsStory(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	sentence := regexp.MustCompile(`^[A-Z0-9"/].*[.]$`)
	seen := map[string]bool{}
	smoke := 0
	for _, s := range All {
		assert.Regexp(t, name, s.Name)
		assert.False(t, seen[s.Name], "two scenarios are called %s", s.Name)
		seen[s.Name] = true
		assert.Regexp(t, sentence, s.Story, s.Name)
		assert.Regexp(t, sentence, s.Claim, s.Name)
		assert.Regexp(t, sentence, s.Best, s.Name)
		assert.NotNil(t, s.Victim, s.Name)
		assert.GreaterOrEqual(t, s.Limit, uint64(64*mib), s.Name)
		if s.Smoke {
			smoke++
		}
	}
	assert.Equal(t, 3, smoke)
}

// Under plain Go and one guard that loses nothing, all of it is to take less
// than ten minutes. Without a load, a run under plain Go ends with the kill: in
// half of the time, on average.
func TestAllOfThemFitIntoTenMinutes(t *testing.T) {
	t.Parallel()
	var all time.Duration
	for _, s := range All {
		if s.Long {
			continue // not one of them
		}
		all += s.Duration + s.Duration/2
		if s.Load != nil {
			all += s.Duration / 2
		}
	}
	assert.Less(t, all, 10*time.Minute)
}

// The stories in numbers: what is to kill is more than the limit, and what an
// oracle could do with is less, whatever the limit.
func TestSizesScaleWithTheLimit(t *testing.T) {
	t.Parallel()
	const all, most = 1.0, 0.9 // of the limit
	for _, c := range []struct {
		what   string
		bytes  func(limit uint64) float64
		lo, hi float64 // of the limit; 0: no bound
	}{
		{"bursts-55: twice the live heap, and the runtime", func(l uint64) float64 { return float64(2*live(l, 55) + 8*mib) }, 1.05, 0},
		{"bursts-55: live heap", func(l uint64) float64 { return float64(live(l, 55)) }, 0, 0.56},
		{"bursts-45: twice the live heap, and the runtime", func(l uint64) float64 { return float64(2*live(l, 45) + 8*mib) }, 0, 0.95},

		{"drip: until the end", func(l uint64) float64 { return dripped(l, gogcOffDrip.Duration) }, 1.3, 0},
		{"drip, kept: until the end", func(l uint64) float64 { return dripped(l, gogcOffDripKept.Duration) }, 1.3, 0},
		{"drip, kept: time to see it", func(l uint64) float64 { return dripped(l, 3*time.Second) }, 0, 0.7},
		{"ballast", func(l uint64) float64 { return float64(ballastBytes(l)) }, 0.85, most},

		{"goroutine-leak: baskets until the end", func(l uint64) float64 {
			return float64(basketBytes(l)) * leakRate * goroutineLeak.Duration.Seconds()
		}, all, 0},
		{"unread-bodies: bodies until the end", func(l uint64) float64 {
			return float64(basketBytes(l)) * unreadRate * unreadBodies.Duration.Seconds()
		}, all, 0},
		{"pipe-leftovers: chunks until the end", func(l uint64) float64 {
			return float64(l/pipeWriters) * pipeRate * pipeLeftovers.Duration.Seconds()
		}, 1.3, 0},

		{"stacks-return: as they are left", func(l uint64) float64 { return float64(returnedGoroutines(l) * returnedStack) }, 2, 0},
		{"stacks-return: shrunk", func(l uint64) float64 { return float64(returnedGoroutines(l) * 4 * kib) }, 0, 0.3},
		{"stacks-parked", func(l uint64) float64 { return float64(parkedGoroutines(l) * parkedStack) }, 1.15, 0},

		{"finalizers: queue at the end", func(l uint64) float64 { return queued(l, finalizerBlocked.Duration) }, 1.3, 0},
		{"cleanups: queue at the end", func(l uint64) float64 { return queued(l, cleanupBlocked.Duration) }, 1.3, 0},

		{"fragmentation: pinned and cache", func(l uint64) float64 { return float64(share(l, fragmentThousandths+cacheThousandths)) }, 1.05, 0},
		{"fragmentation: puts until the end", func(l uint64) float64 {
			return float64(putObjects(l)*cacheObject) * putsPerSecond * fragmentation.Duration.Seconds()
		}, 1.5, 0},
		{"fragmentation: cache", func(l uint64) float64 { return float64(share(l, cacheThousandths)) }, 0, 0.6},

		{"neighbour: both", func(l uint64) float64 { return float64(share(l, spikeThousandths+neighbourThousandths)) }, 1.3, 0},
		{"neighbour: alone", func(l uint64) float64 { return float64(share(l, neighbourThousandths)) }, 0, 0.8},

		{"c-malloc: twice the live heap, and C", func(l uint64) float64 {
			return float64(2*share(l, besideThousandths) + share(l, foreignThousandths))
		}, 1.05, 0},
		{"c-malloc: live heap and C", func(l uint64) float64 { return float64(share(l, besideThousandths+foreignThousandths)) }, 0, 0.8},
		{"pagecache: twice the live heap", func(l uint64) float64 { return float64(2 * share(l, besideThousandths)) }, 0, 0.7},
		{"pagecache: log until the end", func(l uint64) float64 {
			return float64(l/logLimitWrites) * logWrites * pageCache.Duration.Seconds()
		}, 1.5, 0},

		{"overload: at capacity", func(l uint64) float64 { return inFlight(l, capacity) }, 0.5, 0.6},
		{"overload: at twice the capacity", func(l uint64) float64 { return inFlight(l, 2*capacity) }, all, 0},

		{"live-near-limit-40: live heap", func(l uint64) float64 { return float64(nearLimitNodes(l, 40) * treeBytes) }, 0.34, 0.41},
		{"live-near-limit-85: live heap", func(l uint64) float64 { return float64(nearLimitNodes(l, 85) * treeBytes) }, 0.74, 0.86},

		{"slow-leak: until the end", func(l uint64) float64 {
			return float64(share(l, slowLeakPerMyriad)/10)*slowLeak.Duration.Seconds() + float64(share(l, slowBaseThousandths))
		}, all, 0},
		{"slow-leak-control: twice the live heap", func(l uint64) float64 {
			return float64(2 * share(l, slowBaseThousandths+sawtoothThousandths))
		}, 0, most},
	} {
		for limit := uint64(64 * mib); limit <= 1024*mib; limit *= 2 {
			name := fmt.Sprintf("%s at %d MiB", c.what, limit/mib)
			part := c.bytes(limit) / float64(limit)
			assert.Greater(t, part, c.lo, name)
			if c.hi > 0 {
				assert.Less(t, part, c.hi, name)
			}
		}
	}
}

func dripped(limit uint64, d time.Duration) float64 {
	return float64(dripObjects(limit)*dropBytes) * dripUnits * d.Seconds()
}

func queued(limit uint64, d time.Duration) float64 {
	return float64(limit/payloads) * payloadRate * (d - stallAfter).Seconds()
}

func inFlight(limit uint64, perSecond int) float64 {
	return float64(limit/requestsToLimit) * float64(perSecond) * ((holdLeast + holdMost) / 2).Seconds()
}

// The factor in the overload-7x: 4000 requests a second at 128 MiB.
func TestCapacity(t *testing.T) {
	t.Parallel()
	require.Equal(t, 576, capacity)
	assert.InDelta(t, 4000, 7*capacity, 40)
}
