// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"context"
	"fmt"
	"time"
)

// Report is what [Explain] tells: the verdict first, then what proves it.
type Report struct {
	Time     time.Time      `json:"time"`
	PID      int            `json:"pid"`
	Exe      string         `json:"exe,omitempty"`
	Go       string         `json:"go_version,omitempty"` // release that built it; empty if it is not known to be a Go program
	Verdict  string         `json:"verdict"`              // one sentence
	Left     Value[float64] `json:"time_to_limit_seconds"`
	WhyLeft  string         `json:"time_to_limit_why,omitempty"` // why Left is unknown
	Findings []Finding      `json:"findings"`
	Ledger   *Ledger        `json:"ledger"`
	Blind    []Blind        `json:"blind"` // what could not be seen, and why
	Watched  time.Duration  `json:"-"`     // how long was looked
}

// Explain explains the calling process from inside: it sees the runtime's own
// figures too. It looks for the given time (zero is one look), since growth
// takes two looks or more; a context that ends earlier ends the looking, not
// the report.
func Explain(ctx context.Context, look time.Duration) (*Report, error) {
	s := Self()
	defer s.Close()
	return s.Explain(ctx, look)
}

const (
	lookEvery = 100 * time.Millisecond // a trend's points come on time, and one may fail
	// From outside, what is not Go's is known from smaps alone. It is read along
	// with the looks as long as that takes a twentieth of the time at most.
	surveyEvery = 500 * time.Millisecond
	surveyCost  = surveyEvery / 20
)

// Explain explains the process of s, as [Explain] does the calling one. The error
// is [ErrGone] (errors.Is) when the process has ended, even while it was looked
// at, and those of [Source.Survey].
func (s *Source) Explain(ctx context.Context, look time.Duration) (*Report, error) {
	j := NewJudge()
	var sample Sample
	begin := time.Now()
	var surveyed time.Time
	survey := s.runtime == nil && s.eye == nil
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for time.Since(begin) < look && ctx.Err() == nil {
		if err := s.Read(&sample); err != nil {
			return nil, err
		}
		if now := time.Now(); survey && now.Sub(surveyed) >= surveyEvery {
			surveyed = now
			sample.Process.Maps, _ = s.maps() // the last survey says what is wrong with it
			survey = sample.Process.Maps != nil && time.Since(now) < surveyCost
		}
		j.Step(&sample)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	if err := s.Survey(&sample); err != nil {
		return nil, err
	}
	j.Step(&sample)
	return newReport(&sample, j, time.Since(begin)), nil
}

// newReport puts together what is known after the last sample.
func newReport(s *Sample, j *Judge, watched time.Duration) *Report {
	r := &Report{
		Time: s.Time, PID: s.PID, Exe: s.Process.Exe, Go: s.Process.Build,
		Findings: j.Findings(),
		Ledger:   NewLedger(s),
		Blind:    append(append([]Blind{}, s.Blind...), j.Blind()...),
		Watched:  watched,
	}
	r.Left, r.WhyLeft = timeLeft(s, j)
	r.Verdict = r.verdict(s)
	return r
}

// timeLeft is the forecast, or why there is none.
func timeLeft(s *Sample, j *Judge) (left Value[float64], why string) {
	if d, ok := j.TimeLeft(); ok {
		return Known(d.Seconds()), ""
	}
	limit, ok := s.Cgroup.Limit.Get()
	switch _, used := s.Cgroup.undroppable().Get(); {
	case !ok || !used:
		return left, "the cgroup's limit or usage is unknown"
	case limit == Unlimited:
		return left, "there is no memory limit"
	}
	return left, "no growth towards the limit was seen that is long enough for an alarm"
}

// verdict is the report in one sentence: the worst finding, else that nothing is
// wrong and where most of the memory is, or that it grows.
func (r *Report) verdict(s *Sample) string {
	if len(r.Findings) > 0 && r.Findings[0].Severity >= Warning {
		f := r.Findings[0]
		if n := r.count(Warning) - 1; n > 0 {
			return fmt.Sprintf("%s (and %d more)", f.Summary, n)
		}
		return f.Summary
	}
	rss, ok := r.Ledger.RSS.Get()
	if !ok {
		return "Nothing could be said: the process's memory is not readable."
	}
	v := "Nothing wrong found"
	if !s.Runtime.seen() {
		v += " from outside"
	}
	v += ": " + mib(float64(rss)) + " resident"
	limit, isBounded := bounded(s.Cgroup.Limit)
	ws, ok := s.Cgroup.WorkingSet.Get()
	switch {
	case isBounded && ok:
		v += fmt.Sprintf(", the cgroup at %s of %s (%.0f %%)", mib(float64(ws)), mib(float64(limit)), 100*float64(ws)/float64(max(limit, 1)))
	case s.Cgroup.Limit == Known[uint64](Unlimited):
		v += ", no memory limit"
	default:
		v += ", the limit is unknown"
	}
	if big, ok := r.Ledger.largest(); ok {
		n, _ := big.Bytes.Get()
		v += fmt.Sprintf("; most of it is %s (%s)", big.Name, mib(float64(n)))
	}
	for _, f := range r.Findings {
		if f.ID == "oom-forecast" { // info: too early for an alarm
			return v + ". It grows: look for longer to see whether that lasts."
		}
	}
	return v + "."
}

// count is the number of findings of at least the given severity.
func (r *Report) count(least Severity) (n int) {
	for _, f := range r.Findings {
		if f.Severity >= least {
			n++
		}
	}
	return n
}

// largest is the row that holds the most.
func (l *Ledger) largest() (big Row, ok bool) {
	most := int64(0)
	for _, r := range l.Rows {
		if n, known := r.Bytes.Get(); known && n > most {
			big, most, ok = r, n, true
		}
	}
	return big, ok
}

// Worst returns the highest severity among the findings, 0 if there is none.
func (r *Report) Worst() Severity {
	if len(r.Findings) == 0 {
		return 0
	}
	return r.Findings[0].Severity
}
