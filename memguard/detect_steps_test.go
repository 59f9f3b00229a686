// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// judged feeds samples of each second to a new court.
func judged(t *testing.T, from, to float64, sample func(s *Sample, t float64)) *court {
	c := newCourt()
	for s := from; s < to; s++ {
		one := healthy(s)
		sample(one, s)
		c.hear(t, one)
	}
	return c
}

// A finding grows worse at once, and better only after ten seconds.
func TestSeverityGoesUpAtOnceAndDownSlowly(t *testing.T) {
	t.Parallel()
	stall := func(from, to float64) func(s *Sample, t float64) {
		return func(s *Sample, t float64) {
			s.Cgroup.ActiveFile = Known[uint64](640 * mebi)
			add(s, 20*mebi)
			if from <= t && t < to {
				s.Cgroup.Pressure = Known(50.0)
			}
		}
	}
	c := judged(t, 0, 60, stall(20, 40))
	assert.Equal(t, []change{{0, "pagecache-pressure", Info}, {20, "pagecache-pressure", Warning}, {49, "pagecache-pressure", Info}}, c.changes)
	// It stays what it was since its beginning, with today's figures.
	f := c.Findings()[0]
	assert.Equal(t, at(0), f.Since)
	assert.Contains(t, f.Evidence, Fact{"time stalled", 0, UnitPercent})
}

func TestFindingsAreSortedBySeverity(t *testing.T) {
	t.Parallel()
	c := judged(t, 0, 30, func(s *Sample, t float64) {
		s.Runtime.Unused = Known[uint64](200 * mebi)                                            // warning
		s.Runtime.GCPercent, s.Runtime.MemoryLimit = Known[int64](-1), Known[uint64](Unlimited) // critical
		s.Cgroup.OOMKills = Known[uint64](3)                                                    // before we looked: info
		add(s, 20*mebi)
	})
	var got []Severity
	for _, f := range c.Findings() {
		got = append(got, f.Severity)
	}
	assert.Equal(t, []Severity{Critical, Warning, Info}, got)
}

func TestOOMKillIsNewsForTenMinutes(t *testing.T) {
	t.Parallel()
	kills := func(s *Sample, t float64) {
		n := uint64(2)
		if t >= 100 {
			n = 3
		}
		s.Cgroup.OOMKills = Known(n)
	}
	c := judged(t, 0, 100, kills)
	assert.Equal(t, []change{{0, "oom-kill", Info}}, c.changes, "somebody else's, before")
	assert.Contains(t, c.Findings()[0].Summary, "before: 2 in all")

	c = judged(t, 0, 1000, kills)
	assert.Equal(t, []change{{0, "oom-kill", Info}, {100, "oom-kill", Critical}, {709, "oom-kill", Info}}, c.changes)
	assert.Contains(t, c.Findings()[0].Summary, "1 while we watched, 3 in all")

	// The process is moved: what was killed in the other cgroup is not news.
	c = judged(t, 0, 60, func(s *Sample, t float64) {
		if t >= 30 {
			s.Cgroup.Path, s.Cgroup.OOMKills = "/other", Known[uint64](9)
		}
	})
	assert.Equal(t, []change{{30, "oom-kill", Info}}, c.changes)

	// The cgroup is made anew under the same name, and counts from zero: one kill is news.
	c = judged(t, 0, 60, func(s *Sample, t float64) {
		s.Cgroup.OOMKills = Known[uint64](4)
		if t >= 30 {
			s.Cgroup.OOMKills = Known[uint64](0)
		}
		if t >= 50 {
			s.Cgroup.OOMKills = Known[uint64](1)
		}
	})
	assert.Equal(t, []change{{0, "oom-kill", Info}, {39, "oom-kill", 0}, {50, "oom-kill", Critical}}, c.changes)
}

func TestLimitMissingWarnsWhenTheGoalDoesNotFit(t *testing.T) {
	t.Parallel()
	withGoal := func(goal uint64) Severity {
		c := judged(t, 0, 5, func(s *Sample, _ float64) {
			s.Runtime.MemoryLimit = Known[uint64](Unlimited)
			s.Runtime.Goal = Known(goal)
		})
		return c.stands["limit-missing"]
	}
	// Used without page cache 268 MiB, of which 210 are objects or idle heap: room for a goal of 966.
	assert.Equal(t, Info, withGoal(240*mebi))
	assert.Equal(t, Info, withGoal(960*mebi))
	assert.Equal(t, Warning, withGoal(970*mebi))
	assert.Equal(t, Warning, withGoal(Unlimited), "a goal beyond all does not overflow")
}

func TestLimitAboveCgroupCountsWhatIsNotGo(t *testing.T) {
	t.Parallel()
	c := judged(t, 0, 5, func(s *Sample, _ float64) { add(s, 110*mebi) })
	assert.Empty(t, c.changes, "900 MiB, 110 and 10 of kernel memory fit into 1024")
	c = judged(t, 0, 5, func(s *Sample, _ float64) { add(s, 200*mebi) })
	assert.Equal(t, Warning, c.stands["limit-above-cgroup"])
	assert.Contains(t, c.Findings()[0].Summary, "not Go's are more than its limit")
	c = judged(t, 0, 5, func(s *Sample, _ float64) { s.Runtime.MemoryLimit = Known[uint64](Unlimited - 1) })
	assert.Equal(t, Warning, c.stands["limit-above-cgroup"], "a huge limit does not overflow")
}

func TestGCOffWithoutACgroupLimitIsAWarning(t *testing.T) {
	t.Parallel()
	c := judged(t, 0, 5, func(s *Sample, _ float64) {
		s.Runtime.GCPercent, s.Runtime.MemoryLimit = Known[int64](-1), Known[uint64](Unlimited)
		s.Cgroup.Limit = Known[uint64](Unlimited)
	})
	assert.Equal(t, map[ID]Severity{"gc-off-no-limit": Warning}, c.stands)
	c = judged(t, 0, 5, func(s *Sample, _ float64) { s.Runtime.GCPercent = Known[int64](-1) })
	assert.Empty(t, c.stands, "GOGC=off under GOMEMLIMIT is a choice")
}

// Half of a heap under GOGC=100 is idle after every collection. That is no
// retained memory; what is left after a spike is.
func TestRetainedIdle(t *testing.T) {
	t.Parallel()
	afterCycle := func(s *Sample, _ float64) {
		s.Runtime.Objects, s.Runtime.Live, s.Runtime.Goal = Known[uint64](400*mebi), Known[uint64](400*mebi), Known[uint64](800*mebi)
		s.Runtime.Free = Known[uint64](400 * mebi)
		s.Cgroup.Limit = Known[uint64](Unlimited)
		add(s, 20*mebi)
	}
	assert.Empty(t, judged(t, 0, 120, afterCycle).changes)

	spike := func(s *Sample, t float64) {
		s.Runtime.Objects, s.Runtime.Live, s.Runtime.Goal = Known[uint64](20*mebi), Known[uint64](20*mebi), Known[uint64](40*mebi)
		s.Runtime.Cycles, s.Runtime.Allocated = Known[uint64](77), Known[uint64](9000*mebi)
		if 10 <= t && t < 110 {
			s.Runtime.Free = Known[uint64](500 * mebi)
		}
		add(s, 20*mebi)
	}
	c := judged(t, 0, 150, spike)
	assert.Equal(t, []change{{10, "retained-idle", Info}, {70, "retained-idle", Warning}, {119, "retained-idle", 0}}, c.changes)

	// Nothing will collect: the goal says nothing.
	off := judged(t, 0, 20, func(s *Sample, t float64) {
		spike(s, t)
		s.Runtime.GCPercent, s.Runtime.MemoryLimit, s.Runtime.Goal = Known[int64](-1), Known[uint64](Unlimited), Known[uint64](1<<62)
	})
	assert.Contains(t, off.stands, ID("retained-idle"))
}

func TestNonGoGrowth(t *testing.T) {
	t.Parallel()
	// A model that is loaded once is a remark at most.
	c := judged(t, 0, 200, func(s *Sample, t float64) { add(s, uint64(warmUp(100*mebi, 10)(t))) })
	for _, ch := range c.of("nongo-growth") {
		assert.Less(t, ch.severity, Warning)
	}
	assert.NotContains(t, c.stands, ID("nongo-growth"))

	// A large buffer of Go's that is written little by little is Go's.
	c = judged(t, 0, 100, func(s *Sample, t float64) {
		s.Runtime.Objects = Known[uint64](480 * mebi)
		add(s, 0)
		untouched := Known(uint64(300*mebi - 3*mebi*t))
		rss, _ := minus(s.Process.RSS, untouched).Get()
		s.Process.RSS = Known(uint64(rss))
	})
	assert.Empty(t, c.of("nongo-growth"))
}

func TestSeverityText(t *testing.T) {
	t.Parallel()
	for severity, name := range map[Severity]string{Info: "info", Warning: "warning", Critical: "critical"} {
		text, err := json.Marshal(severity)
		require.NoError(t, err)
		assert.Equal(t, `"`+name+`"`, string(text))
		var back Severity
		require.NoError(t, json.Unmarshal(text, &back))
		assert.Equal(t, severity, back)
	}
	assert.Equal(t, "Severity(0)", Severity(0).String())
	assert.Equal(t, "Severity(9)", Severity(9).String())
	for _, bad := range []string{`""`, `"INFO"`, `"fatal"`, `2`} {
		s := Warning
		require.Error(t, json.Unmarshal([]byte(bad), &s), bad)
		assert.Equal(t, Warning, s, "left as it was")
	}
	assert.Less(t, Info, Warning)
	assert.Less(t, Warning, Critical)
}

func TestFactText(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]Fact{
		"RSS 1024 MiB":       {"RSS", 1 << 30, UnitBytes},
		"RSS 1.5 MiB":        {"RSS", 1.5 * mebi, UnitBytes},
		"RSS 12 KiB":         {"RSS", 12 << 10, UnitBytes},
		"RSS -8.0 MiB":       {"RSS", -8 * mebi, UnitBytes},
		"slope 2.5 MiB/s":    {"slope", 2.5 * mebi, UnitBytesPerSecond},
		"time left 1m30s":    {"time left", 90.2, UnitSeconds},
		"share unused 43 %":  {"share unused", 43.2, UnitPercent},
		"goroutines 10000":   {"goroutines", 10000, UnitCount},
		"of no unit 3":       {"of no unit", 3, ""},
		"time left 292h0m0s": {"time left", 292 * 3600, UnitSeconds},
	} {
		assert.Equal(t, want, f.String())
	}
}
