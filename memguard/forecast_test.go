// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// look is what the forecast said at one sample.
type look struct {
	at       float64
	severity Severity
	left     float64 // seconds; NaN if there was no forecast
}

// watch lives a service under a guard's pace and judge.
func watch(t *testing.T, v service, seconds float64) (looks []look, c *court, killed float64) {
	c = newCourt()
	var p pace
	killed = v.run(seconds, func(s *Sample) time.Duration {
		c.hear(t, s)
		l := look{s.Time.Sub(epoch).Seconds(), c.stands["oom-forecast"], math.NaN()}
		if left, ok := c.TimeLeft(); ok {
			l.left = left.Seconds()
		}
		looks = append(looks, l)
		return p.next(s)
	})
	return looks, c, killed
}

// What leaks is named, in time, and the time left is right.
func TestForecastNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		service service
		lead    float64 // at least so many seconds before the kill it is a warning
		late    float64 // how many times the true remainder a warning may say at most; 0 is 1.3
	}{
		{"leak beside garbage, GOGC=100",
			service{live: constant(60 * mebi).plus(ramp(2.5 * mebi)), garbage: 50 * mebi, limit: 256 * mebi}, 10, 0},
		{"everything leaks: no garbage, the heap doubles between cycles",
			service{live: constant(20 * mebi).plus(ramp(2.5 * mebi)), garbage: 0.1 * mebi, limit: 256 * mebi}, 35, 0},
		{"the same over a large heap",
			service{live: constant(100 * mebi).plus(ramp(2.5 * mebi)), garbage: 0.1 * mebi, limit: 512 * mebi}, 60, 0},
		{"a cycle every 5 to 10 s",
			service{live: constant(60 * mebi).plus(ramp(mebi)), garbage: 8 * mebi, limit: 256 * mebi}, 30, 0},
		{"a cycle every 20 to 30 s",
			service{live: constant(60 * mebi).plus(ramp(mebi / 2)), garbage: 3 * mebi, limit: 256 * mebi}, 60, 0},
		{"leak that begins after a quiet minute",
			service{live: constant(60 * mebi).plus(ramp(5 * mebi).delay(60)), garbage: 30 * mebi, limit: 512 * mebi}, 15, 0},
		{"slow leak under a sawtooth cache",
			service{live: constant(30 * mebi).plus(sawtooth(20*mebi, 8)).plus(ramp(1.1 * mebi)), garbage: 20 * mebi, limit: 256 * mebi}, 24, 2.5},
		{"leak under GOMEMLIMIT",
			service{live: constant(60 * mebi).plus(ramp(2.5 * mebi)), garbage: 50 * mebi, limit: 256 * mebi, goLimit: 230 * mebi}, 25, 0},
		{"C memory",
			service{live: constant(60 * mebi), other: constant(20 * mebi).plus(ramp(2 * mebi)), garbage: 50 * mebi, limit: 256 * mebi}, 20, 0},
		{"GOGC=off: garbage stays",
			service{live: constant(10 * mebi), garbage: 2 * mebi, gogc: -1, limit: 128 * mebi}, 20, 0},
		{"from outside, where garbage cannot be told",
			service{live: constant(60 * mebi).plus(ramp(2.5 * mebi)), garbage: 50 * mebi, limit: 256 * mebi, fromAway: true}, 10, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			looks, court, killed := watch(t, c.service, 400)
			require.False(t, math.IsInf(killed, 0), "the story must end with a kill")
			warned := math.Inf(1)
			for _, l := range looks {
				if l.severity < Warning {
					continue
				}
				warned = min(warned, l.at)
				if truly := killed - l.at; l.left <= forecastWarning.Seconds() {
					const slack = 8 // seconds: the period of the cache; in which tooth it ends is not foreseen
					require.LessOrEqual(t, l.left, max(c.late, 1.3)*truly+slack, "%.1f s before the kill it said %.1f s", truly, l.left)
				}
			}
			assert.LessOrEqual(t, warned, killed-c.lead, "warned %.1f s before the kill", killed-warned)
			last := looks[len(looks)-1]
			assert.Equal(t, Critical, last.severity, "at the end")
			changes := court.of("oom-forecast")
			assert.LessOrEqual(t, len(changes), 6, "%v", changes)
			back := 0
			for i, ch := range changes[1:] {
				if changes[i].severity >= Warning && ch.severity < Warning {
					back++
				}
			}
			// Two teeth of a cache are not told from a steeper leak: then once.
			assert.LessOrEqual(t, back, int(min(c.late, 1)), "taken back: %v", changes)
		})
	}
}

// What does not end in a kill is no warning: not at its start, not later.
func TestForecastIsSilent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		service service
		quiet   float64 // from this second on there is not even a remark
	}{
		{"steady, the sawtooth of the collector near the limit",
			service{live: constant(100 * mebi), garbage: 50 * mebi, limit: 256 * mebi}, 0},
		{"steady, a cycle every 20 s",
			service{live: constant(60 * mebi), garbage: 3 * mebi, limit: 256 * mebi}, 0},
		{"steady under GOMEMLIMIT, GOGC=off",
			service{live: constant(60 * mebi), garbage: 30 * mebi, gogc: -1, goLimit: 220 * mebi, limit: 256 * mebi}, 40},
		{"sawtooth cache, the control of the slow leak",
			service{live: constant(30 * mebi).plus(sawtooth(20*mebi, 8)), garbage: 20 * mebi, limit: 256 * mebi}, 30},
		{"sawtooth cache near the limit",
			service{live: constant(80 * mebi).plus(sawtooth(20*mebi, 5)), garbage: 20 * mebi, limit: 256 * mebi}, 30},
		{"load that swings slowly",
			service{live: constant(50 * mebi).plus(swing(20*mebi, 25)), garbage: 30 * mebi, limit: 256 * mebi}, 70},
		{"requests in flight: noise in what the collector marks",
			service{live: constant(60 * mebi).plus(noise(10*mebi, 4)), garbage: 30 * mebi, limit: 256 * mebi}, 5},
		{"warm-up of 10 s",
			service{live: constant(10 * mebi).plus(warmUp(90*mebi, 10)), garbage: 20 * mebi, limit: 512 * mebi}, 80},
		{"warm-up of 30 s",
			service{live: constant(10 * mebi).plus(warmUp(90*mebi, 30)), garbage: 20 * mebi, limit: 512 * mebi}, 110},
		{"warm-up of a minute, few collections",
			service{live: constant(10 * mebi).plus(warmUp(90*mebi, 60)), garbage: 2 * mebi, limit: 512 * mebi}, 200},
		{"second warm-up, later",
			service{live: constant(60 * mebi).plus(warmUp(60*mebi, 15).delay(100)), garbage: 20 * mebi, limit: 512 * mebi}, 200},
		{"one large allocation that stays",
			service{live: constant(40 * mebi).plus(step(60*mebi, 50)), garbage: 20 * mebi, limit: 256 * mebi}, 0},
		{"page cache fills the cgroup",
			service{live: constant(40 * mebi), garbage: 20 * mebi, limit: 256 * mebi,
				file: func(t float64) float64 { return min(2*mebi*t, 100*mebi) }}, 0},
		{"shrinking",
			service{live: constant(100 * mebi).plus(warmUp(-60*mebi, 100)), garbage: 20 * mebi, limit: 256 * mebi}, 40},
		{"from outside, steady",
			service{live: constant(60 * mebi), garbage: 3 * mebi, limit: 256 * mebi, fromAway: true}, 60},
		{"leak without a limit: growth that nobody kills",
			service{live: ramp(2 * mebi), garbage: 20 * mebi}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			looks, court, killed := watch(t, c.service, 300)
			require.True(t, math.IsInf(killed, 0), "the story must not end with a kill")
			for _, l := range looks {
				require.Less(t, l.severity, Warning, "at %.1f s: %.1f s left", l.at, l.left)
				if l.at >= c.quiet {
					require.Zero(t, l.severity, "at %.1f s: %.1f s left", l.at, l.left)
				}
			}
			assert.LessOrEqual(t, len(court.of("oom-forecast")), 4, "%v", court.of("oom-forecast"))
		})
	}
}

// Ten minutes of a healthy service: nothing that a person would be called for.
func TestHealthyServiceIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]service{
		"default GOGC, GOMEMLIMIT set": {live: constant(120 * mebi), garbage: 100 * mebi, goLimit: 460 * mebi, limit: 512 * mebi},
		"default GOGC, no GOMEMLIMIT":  {live: constant(120 * mebi), garbage: 100 * mebi, limit: 512 * mebi},
		"few collections, large heap":  {live: constant(500 * mebi), garbage: 8 * mebi, goLimit: 1800 * mebi, limit: 2048 * mebi},
		"a collection each second":     {live: constant(200 * mebi), garbage: 204 * mebi, goLimit: 900 * mebi, limit: 1024 * mebi},
		"load by day and night": {live: constant(80 * mebi).plus(swing(60*mebi, 300)).plus(noise(8*mebi, 7)), garbage: 60 * mebi,
			goLimit: 900 * mebi, limit: 1024 * mebi},
		"no limit": {live: constant(120 * mebi), garbage: 100 * mebi},
		"warm-up, cache, noise": {live: warmUp(100*mebi, 20).plus(sawtooth(30*mebi, 11)).plus(noise(8*mebi, 9)), garbage: 60 * mebi,
			other: warmUp(60*mebi, 8), goLimit: 900 * mebi, limit: 1024 * mebi},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, court, killed := watch(t, v, 600)
			require.True(t, math.IsInf(killed, 0))
			for _, ch := range court.changes {
				assert.Less(t, ch.severity, Warning, "%v", ch)
			}
			assert.LessOrEqual(t, len(court.changes), 12, "remarks come and go: %v", court.changes)
		})
	}
}

// An alarm is withdrawn at once when what it was about has been freed.
func TestForecastIsWithdrawnWithItsCause(t *testing.T) {
	t.Parallel()
	j := NewJudge()
	at := time.Unix(1_700_000_000, 0)
	look := func(usage uint64) (worst Severity) {
		at = at.Add(500 * time.Millisecond)
		s := Sample{Time: at}
		s.Cgroup = Cgroup{Limit: Known[uint64](1000 * mebi), Usage: Known(usage), ActiveFile: Known[uint64](0), InactiveFile: Known[uint64](0)}
		j.Step(&s)
		for _, f := range j.Findings() {
			worst = max(worst, f.Severity)
		}
		return worst
	}
	used := uint64(300 * mebi)
	for range 50 {
		used += 10 * mebi
		look(used)
	}
	require.Equal(t, Critical, look(used))
	_, forecast := j.TimeLeft()
	assert.True(t, forecast)

	for range 30 { // the window still holds the growth
		if look(300*mebi) == 0 {
			break
		}
	}
	_, forecast = j.TimeLeft()
	assert.False(t, forecast)
	assert.Empty(t, j.Findings())
}

// With GOGC=off nothing is collected before the limit is near, and all that grows until
// then might be garbage. The two collections that a guard starts tell.
func TestForecastWithTheCollectorOff(t *testing.T) {
	t.Parallel()
	off := service{garbage: 1, gogc: -1, limit: 64 * mebi, goLimit: 0.96 * 64 * mebi, other: constant(mebi), paced: true, told: true}
	for _, c := range []struct{ rate, lead float64 }{{12.8, 1.4}, {10, 1.5}, {2, 12}, {1, 25}, {0.5, 50}} {
		v := off
		v.live = ramp(c.rate * mebi)
		first, _, killed := alarms(v, 300)
		require.False(t, math.IsInf(killed, 0))
		assert.GreaterOrEqual(t, killed-first, c.lead, "%v MiB/s: killed at %.1f s", c.rate, killed)

		v.live, v.garbage = constant(mebi), c.rate*mebi
		first, _, killed = alarms(v, 300)
		assert.True(t, math.IsInf(killed, 0))
		assert.True(t, math.IsInf(first, 0), "%v MiB/s of garbage: accused at %.1f s", c.rate, first)
	}
}

// The memory limit of a guard may be higher than the cgroup's, by what was never faulted
// in: the collector is not without a limit for that.
func TestGarbageUnderAGuardIsNoneThatStays(t *testing.T) {
	t.Parallel()
	s := healthy(0)
	s.Runtime.GCPercent, s.Runtime.MemoryLimit = Known[int64](-1), Known(s.Cgroup.Limit.v+1)
	all, _, _ := unfreeable(s, s.Runtime.Live)
	s.Paced = true
	must, needs, ok := unfreeable(s, s.Runtime.Live)
	require.True(t, ok)
	assert.Equal(t, all-s.Runtime.idle().v, must)
	assert.InDelta(t, 1, needs, 0)
}
