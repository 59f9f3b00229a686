// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"cmp"
	"slices"
	"sort"
	"time"
)

// The defaults of a Tracker.
const (
	// DefaultSamples is how many samples in a row must each have more goroutines
	// than the one before. Of noise one run in 9! does.
	DefaultSamples = 9
	// DefaultMinAge is how long that must last.
	DefaultMinAge = 2 * time.Minute
	// DefaultMinGrowth is how many goroutines must have been added: a pool that
	// starts its workers one by one is no leak.
	DefaultMinGrowth = 10
	// provedMany are a leak without growth. A few that nothing can wake are often
	// meant: a service that waits for ever on the Done of context.Background.
	provedMany = 100
)

// Leaks are fast or slow, so counts are kept at three scales: every sample, and
// the lowest of each 8 and of each 64 samples. At 15 s a sample the windows are 3
// minutes, 24 minutes and 3 hours. The lowest is what a load that comes and goes
// leaves behind.
const (
	window    = 12 // counts at each scale
	scales    = 3
	scaleStep = 8
)

// Tracker follows the clusters of one process over time. The zero Tracker is
// ready. It keeps at most 4096 clusters, whatever the number of goroutines, and
// forgets one that was not seen in 12 samples. It is not safe for concurrent use.
type Tracker struct {
	Samples   int           // growth must be seen in that many, 3 to 12; 0 is DefaultSamples
	MinAge    time.Duration // 0 is DefaultMinAge
	MinGrowth int           // 0 is DefaultMinGrowth
	Shapes    []Shape       // looked at before those of [Shapes]

	times    [scales][window]time.Time
	samples  int // so far
	clusters map[Key]*track
	missed   int
}

// track is what is known of one cluster.
type track struct {
	cluster *Cluster            // as last seen, with the creators of the last dump
	counts  [scales][window]int // the oldest is dropped
	low     [scales]int         // since the last count at a scale
	peak    [scales]int         // of the counts that were dropped
	first   time.Time
	seen    time.Time
	stacks  float64   // the part of all stack bytes
	before  []Creator // in the first dump: who has grown since is the leak
	then    int       // goroutines in the first dump
	located int       // dumps with it
	dumps   int       // dumps read while it was suspect, with it or not
	dumped  time.Time // when the last dump with it was read
	proved  int
	growth  growth // the last that was seen
}

// growth is what was seen of it, and how long that counts.
type growth struct {
	scale int
	grown int           // goroutines
	over  time.Duration // in which
	least int           // once there are fewer it is over
	until time.Time     // and if it has not gone on by then: after as long again
}

// period is how many samples there are in one count of a scale.
func period(scale int) int {
	p := 1
	for range scale {
		p *= scaleStep
	}
	return p
}

// Add takes the next snapshot of the process. The time is read from it, so it
// must have one; a snapshot that is not later than the last is ignored, and one
// of a dump also says where goroutines were created. A snapshot of the
// goroutineleak profile is for [Tracker.Prove].
func (t *Tracker) Add(s *Snapshot) {
	if t.samples > 0 && !s.Time.After(t.times[0][window-1]) {
		return
	}
	if t.clusters == nil {
		t.clusters = map[Key]*track{}
	}
	t.missed = s.Beyond
	all := 0.0
	for _, c := range s.Clusters {
		all += float64(stackBytes(c))
	}
	for _, c := range s.Clusters {
		tr := t.clusters[c.Key]
		if tr == nil {
			if len(t.clusters) >= maxClusters {
				t.missed += c.Count
				continue
			}
			tr = &track{cluster: c.clone(), first: s.Time}
			t.clusters[c.Key] = tr
		}
		tr.seen = s.Time
		tr.keep(c)
		tr.stacks = float64(stackBytes(c)) / all
	}
	t.samples++
	for scale := range scales {
		due := t.samples%period(scale) == 0
		if due {
			push(&t.times[scale], s.Time)
		}
		for _, tr := range t.clusters {
			now := 0
			if tr.seen.Equal(s.Time) {
				now = tr.cluster.Count
			}
			if t.samples%period(scale) != 1%period(scale) {
				now = min(now, tr.low[scale])
			}
			if tr.low[scale] = now; due {
				tr.peak[scale] = max(tr.peak[scale], tr.counts[scale][0])
				push(&tr.counts[scale], now)
			}
		}
	}
	oldest := t.times[0][window-min(t.samples, window)]
	for k, tr := range t.clusters {
		if tr.seen.Before(oldest) {
			delete(t.clusters, k)
			continue
		}
		if g, ok := t.grows(tr); ok {
			tr.growth = g
		} else if s.Time.After(tr.growth.until) || tr.counts[0][window-1] < tr.growth.least {
			tr.growth = growth{}
		}
	}
	if s.Format == Dump {
		t.Locate(s)
	}
}

func push[T any](ring *[window]T, v T) {
	copy(ring[:], ring[1:])
	ring[window-1] = v
}

// keep takes the figures of a cluster, but not its strings: those of the first
// snapshot stay, so that no later one is held in memory.
func (tr *track) keep(c *Cluster) {
	own := tr.cluster
	own.Count, own.Locked, own.Depth = c.Count, c.Locked, c.Depth
	if len(own.Stack) == len(c.Stack) {
		for i := range own.Stack {
			own.Stack[i].Line = c.Stack[i].Line
		}
	}
	if len(c.Labels) > 0 && len(own.Labels) == 0 {
		own.Labels = c.clone().Labels
	}
}

// Missed is how many goroutines of the last snapshot are in clusters past the
// bound, which nobody follows.
func (t *Tracker) Missed() int { return t.missed }

// Len is how many clusters are followed.
func (t *Tracker) Len() int { return len(t.clusters) }

// Locate takes from a dump what profiles do not have: the go statements of the
// clusters, and how long they wait.
func (t *Tracker) Locate(dump *Snapshot) {
	for _, tr := range t.clusters {
		if tr.suspect() {
			tr.dumps++
		}
	}
	for _, c := range dump.Clusters {
		tr := t.clusters[c.Key]
		if tr == nil {
			continue
		}
		if tr.before == nil {
			tr.before, tr.then = c.Created, c.Count
		}
		tr.located++
		tr.cluster.Created = rank(c.Created, tr.before)
		tr.cluster.Waits = c.Waits
		tr.dumped = dump.Time
		if c.Proved > 0 {
			tr.proved = c.Proved
		}
	}
}

// suspect says that there is a verdict of a cluster, or would be.
func (tr *track) suspect() bool { return tr.growth.grown > 0 || tr.proved >= provedMany }

// mixed says that goroutines of several places have the stack, and that only one
// dump was seen of them: which grow is not known.
func (tr *track) mixed() bool { return tr.located < 2 && len(tr.before) > 1 }

// unlocated says that a dump would tell where the goroutines of a suspect cluster
// come from, and none has. It does not ask for a third.
func (t *Tracker) unlocated() bool {
	for _, tr := range t.clusters {
		if tr.suspect() && (tr.dumps == 0 || tr.dumps < 2 && tr.mixed() && tr.cluster.Count > tr.then) {
			return true
		}
	}
	return false
}

// rank puts the creators that have grown most first.
func rank(now, before []Creator) []Creator {
	grown := func(c Creator) int {
		for _, b := range before {
			if b.Frame == c.Frame {
				return c.Count - b.Count
			}
		}
		return c.Count
	}
	now = slices.Clone(now)
	sort.SliceStable(now, func(i, j int) bool {
		a, b := now[i], now[j]
		return cmp.Or(cmp.Compare(grown(b), grown(a)), cmp.Compare(b.Count, a.Count)) < 0
	})
	return now
}

// Prove takes what the goroutineleak profile says. A cluster that it does not
// have is not proved, or not any more.
func (t *Tracker) Prove(leaked *Snapshot) {
	for _, tr := range t.clusters {
		tr.proved = 0
	}
	for _, c := range leaked.Clusters {
		if tr := t.clusters[c.Key]; tr != nil {
			tr.proved = c.Proved
		}
	}
}

// grows looks for growth at each scale, the finest first.
func (t *Tracker) grows(tr *track) (growth, bool) {
	need := min(max(cmp.Or(t.Samples, DefaultSamples), 3), window)
	for scale := range scales {
		have := min(t.samples/period(scale), window)
		counts, times := tr.counts[scale][window-have:], t.times[scale][window-have:]
		run := rising(counts)
		switch {
		case run >= need && times[have-1].Sub(times[have-run]) >= cmp.Or(t.MinAge, DefaultMinAge):
			counts, times = counts[have-run:], times[have-run:]
		case have == window && times[have-1].Sub(times[0]) >= cmp.Or(t.MinAge, DefaultMinAge) && risen(counts):
		default:
			continue
		}
		// What has been there before is no growth.
		peak := tr.peak[scale]
		for _, n := range tr.counts[scale][:window-len(counts)] {
			peak = max(peak, n)
		}
		last := len(counts) - 1
		grown, over := counts[last]-counts[0], times[last].Sub(times[0])
		if slices.Min(counts[2*len(counts)/3:]) > peak && grown >= cmp.Or(t.MinGrowth, DefaultMinGrowth) {
			return growth{scale, grown, over, counts[last] - grown/2, times[last].Add(over)}, true
		}
	}
	return growth{}, false
}

// rising is how many of the last counts each are above the one before.
func rising(counts []int) (n int) {
	for n = min(1, len(counts)); n < len(counts); n++ {
		if i := len(counts) - n; counts[i] <= counts[i-1] {
			break
		}
	}
	return n
}

// risen says that counts grow under the noise of a load: nine of ten pairs rise
// (Kendall's tau is 0.8; of noise one window in 47000 has that), and
// the last third is above the first. Of a plateau or a sawtooth neither is so.
func risen(counts []int) bool {
	pairs, up := 0, 0
	for i := range counts {
		for k := range i {
			pairs++
			if counts[i] > counts[k] {
				up++
			}
		}
	}
	third := len(counts) / 3
	return 10*up >= 9*pairs && slices.Min(counts[len(counts)-third:]) > slices.Max(counts[:third])
}
