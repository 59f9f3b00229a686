// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"slices"
	"strings"
)

// summary is what the repeats of one scenario under one guard have in common.
type summary struct {
	scenario ScenarioDoc
	guard    string
	runs     []*Result // that could be made
	failed   []*Result
}

// spread is a figure of several runs: the middle one, and the ends.
type spread struct {
	n              int
	low, mid, high float64
}

// of gathers a figure of the runs. Where it is unknown it is left out.
func of(runs []*Result, value func(*Result) (float64, bool)) (s spread) {
	var all []float64
	for _, r := range runs {
		if v, ok := value(r); ok {
			all = append(all, v)
		}
	}
	if s.n = len(all); s.n == 0 {
		return s
	}
	slices.Sort(all)
	s.low, s.high = all[0], all[s.n-1]
	s.mid = (all[(s.n-1)/2] + all[s.n/2]) / 2
	return s
}

// summaries groups the results, in the order of the index.
func (r *Results) summaries() (all []*summary) {
	find := func(doc ScenarioDoc, guard string) *summary {
		for _, s := range all {
			if s.scenario.Name == doc.Name && s.guard == guard {
				return s
			}
		}
		s := &summary{scenario: doc, guard: guard}
		all = append(all, s)
		return s
	}
	for _, doc := range r.Scenarios {
		for _, g := range r.Guards {
			find(doc, g.Name)
		}
	}
	for _, one := range r.Results {
		doc := ScenarioDoc{Name: one.Scenario}
		if d := r.scenario(one.Scenario); d != nil {
			doc = *d
		}
		s := find(doc, one.Guard)
		if one.Outcome == Failed {
			s.failed = append(s.failed, one)
		} else {
			s.runs = append(s.runs, one)
		}
	}
	return slices.DeleteFunc(all, func(s *summary) bool { return len(s.runs)+len(s.failed) == 0 })
}

// dead is how many of the runs did not stay alive.
func (s *summary) dead() (n int) {
	for _, r := range s.runs {
		if r.Outcome != Alive {
			n++
		}
	}
	return n
}

// toss reports whether repeats of the same thing ended differently.
func (s *summary) toss() bool { return s.dead() > 0 && s.dead() < len(s.runs) }

// odds says how the runs ended: "killed 2 of 3 at 1.3 s (coin toss)".
func (s *summary) odds() string {
	var parts []string
	n := len(s.runs)
	for _, o := range []Outcome{Killed, Died, Alive} {
		var same []*Result
		for _, r := range s.runs {
			if r.Outcome == o {
				same = append(same, r)
			}
		}
		if len(same) == 0 || o == Alive && len(same) < n {
			continue
		}
		text := string(o)
		if n > 1 {
			text += fmt.Sprintf(" %d of %d", len(same), n)
		}
		if o != Alive {
			text += s.when(same)
		}
		parts = append(parts, text)
	}
	if len(s.failed) > 0 {
		parts = append(parts, fmt.Sprintf("failed %d of %d", len(s.failed), n+len(s.failed)))
	}
	text := strings.Join(parts, ", ")
	if s.toss() {
		text += " (coin toss)"
	}
	return text
}

// when says when runs met their first death, how many more there were, and whose.
func (s *summary) when(runs []*Result) string {
	at := of(runs, func(r *Result) (float64, bool) {
		if len(r.Deaths) == 0 {
			return 0, false
		}
		return r.Deaths[0].At, true
	})
	text := ""
	if at.n > 0 {
		text = fmt.Sprintf(" at %.1f s", at.mid)
	}
	times := of(runs, func(r *Result) (float64, bool) {
		n := 0
		for _, d := range r.Deaths {
			if d.Who == victimPart {
				n++
			}
		}
		return float64(n), true
	})
	neighbours := of(runs, func(r *Result) (float64, bool) {
		for _, d := range r.Deaths {
			if d.Who == neighbourPart {
				return 1, true
			}
		}
		return 0, true
	})
	switch {
	case times.mid == 0 && neighbours.mid > 0:
		text += " (the neighbour)"
	case neighbours.mid > 0:
		text += " (both)"
	}
	if times.mid >= 2 {
		text += fmt.Sprintf(", %.0fx", times.mid)
	}
	return text
}

// named says which cause the guard had named before the first death, and how
// long before, in the middle; or what it had to say in runs without a death.
func (s *summary) named() string {
	var causes []string
	ahead := of(s.runs, func(r *Result) (float64, bool) {
		for _, d := range r.Deaths {
			if n := d.cause(s.scenario.Cause); n != nil {
				causes = append(causes, n.Finding)
				return n.Ahead, true
			}
		}
		return 0, false
	})
	if ahead.n == 0 {
		return ""
	}
	slices.Sort(causes)
	text := fmt.Sprintf("%s %.1f s ahead", strings.Join(slices.Compact(causes), " or "), ahead.mid)
	if dead := s.dead(); ahead.n < dead {
		text += fmt.Sprintf(" (%d of %d)", ahead.n, dead)
	}
	return text
}

// cause is the finding that told why, the oldest if there are several: one of
// right, or where the scenario does not say what is right, the most severe. Nil
// if none was named.
func (d *Death) cause(right []string) (best *Named) {
	for i := range d.Named {
		n := &d.Named[i]
		switch {
		case len(right) > 0 && slices.Contains(right, n.Finding):
			return n
		case len(right) > 0 || n.Finding == "oom-forecast": // which says when, not why
		case best == nil || best.Severity != "critical" && n.Severity == "critical":
			best = n
		}
	}
	return best
}

func goodput(r *Result) (float64, bool) { return r.Goodput, true }
