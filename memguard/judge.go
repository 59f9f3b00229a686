// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"sort"
	"time"

	"github.com/memguard/memguard-go/memguard/leak"
)

// clearAfter is how long a condition must be gone before its finding is
// withdrawn or weakened: what comes and goes with every collection is one
// finding, not one a second.
const clearAfter = 10 * time.Second

// state is what a detector says of one sample.
type state int8

const (
	fine   state = iota // looked, nothing wrong
	found               // wrong, and the facts prove it
	unseen              // could not look: the last verdict stands
)

// verdict is a detector's answer to one sample. It holds figures, not text, so
// that a tick allocates nothing; say turns it into a sentence when it is shown.
type verdict struct {
	state    state
	severity Severity
	facts    [6]Fact
	n        int
	why      string // of unseen
	atOnce   bool   // of fine: an alarm is withdrawn without waiting
}

// add appends one figure of evidence.
func (v *verdict) add(name string, value float64, unit Unit) {
	if v.n < len(v.facts) {
		v.facts[v.n] = Fact{name, value, unit}
		v.n++
	}
}

// fact returns the value of the named figure, 0 if the verdict has none.
func (v *verdict) fact(name string) float64 {
	for _, f := range v.facts[:v.n] {
		if f.Name == name {
			return f.Value
		}
	}
	return 0
}

// detector watches for one kind of finding.
type detector interface {
	id() ID
	// step judges one sample. It takes the time from the sample, keeps what it
	// needs of it, allocates nothing and has no effect.
	step(s *Sample) verdict
	// say puts a verdict that was found into one sentence.
	say(v *verdict) string
}

// Judge holds samples against all detectors. The zero Judge is not usable; see
// [NewJudge]. It is not safe for concurrent use.
type Judge struct {
	watched []watched
}

// watched is one detector with its standing verdict.
type watched struct {
	detector
	standing verdict
	since    time.Time // when standing was first found
	seen     time.Time // when it was last confirmed
	blind    string    // why the detector could not look at the last sample
}

// NewJudge returns a Judge that has seen nothing.
func NewJudge() *Judge {
	detectors := []detector{
		new(oomKill), new(oomForecast), new(gcOffNoLimit), new(limitAboveCgroup), new(limitMissing),
		new(nonGoGrowth), new(spanFragmentation), new(stackBloat), new(thpRefill), new(retainedIdle),
		new(gcPause), new(pagecachePressure), new(lazyFree),
		new(gcDeathSpiral), new(gcStorm), new(gcOvershoot), new(sizeclassGrowth), new(scavengeIdle), new(neighbourPressure),
		&queueStall{kind: leak.Finalizers}, &queueStall{kind: leak.Cleanups}, new(finalizerSlow),
		new(goroutineLeak), new(goroutineGrowth), new(stackPinned),
	}
	j := &Judge{watched: make([]watched, len(detectors))}
	for i, d := range detectors {
		j.watched[i].detector = d
	}
	return j
}

// Step judges one sample. It reports whether the findings changed: one was
// raised, withdrawn, or moved to another severity. A detector that is blind
// holds its last verdict.
func (j *Judge) Step(s *Sample) (changed bool) {
	for i := range j.watched {
		changed = j.watched[i].step(s) || changed
	}
	return changed
}

func (w *watched) step(s *Sample) (changed bool) {
	v := w.detector.step(s)
	w.blind = ""
	stands := w.standing.state == found
	switch {
	case v.state == unseen:
		w.blind = v.why
		return false
	case v.state == found && (!stands || v.severity >= w.standing.severity):
		changed = !stands || v.severity > w.standing.severity
		if !stands {
			w.since = s.Time
		}
	case !stands:
		return false
	case !(v.atOnce && w.standing.severity >= Warning) && s.Time.Sub(w.seen) < clearAfter && !s.Time.Before(w.seen):
		return false // gone or weaker, but not for long enough
	default:
		changed = true
	}
	w.standing, w.seen = v, s.Time
	return changed
}

// Findings returns what stands now, the most severe first.
func (j *Judge) Findings() []Finding {
	fs := []Finding{}
	for i := range j.watched {
		w := &j.watched[i]
		if w.standing.state != found {
			continue
		}
		fs = append(fs, Finding{
			ID:       w.id(),
			Severity: w.standing.severity,
			Since:    w.since,
			Summary:  w.say(&w.standing),
			Evidence: append([]Fact(nil), w.standing.facts[:w.standing.n]...),
			Remedy:   w.remedy(),
		})
	}
	sort.SliceStable(fs, func(a, b int) bool { return fs[a].Severity > fs[b].Severity })
	return fs
}

// remedy is the detector's own, if it knows one for this very case, or the table's.
func (w *watched) remedy() string {
	if d, ok := w.detector.(interface{ remedy() string }); ok {
		if r := d.remedy(); r != "" {
			return r
		}
	}
	return w.id().doc().Remedy
}

// Blind returns the detectors that could not look at the last sample, and why.
func (j *Judge) Blind() []Blind {
	var bs []Blind
	for i := range j.watched {
		if w := &j.watched[i]; w.blind != "" {
			bs = append(bs, Blind{What: string(w.id()), Why: w.blind})
		}
	}
	return bs
}

// TimeLeft is the forecast of [oom-forecast]: the time until what cannot be freed
// reaches the limit, false when it does not grow or the limit is far.
func (j *Judge) TimeLeft() (time.Duration, bool) {
	for i := range j.watched {
		if d, ok := j.watched[i].detector.(*oomForecast); ok {
			return d.left, d.left > 0
		}
	}
	return 0, false
}

// clearly is the verdict of a detector that looked and saw nothing wrong.
func clearly() verdict { return verdict{state: fine} }

// blindly is the verdict of a detector that could not look.
func blindly(why string) verdict { return verdict{state: unseen, why: why} }
