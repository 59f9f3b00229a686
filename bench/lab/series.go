// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// series is a number of runs to be made.
type series struct {
	scenarios []*Scenario
	guards    []*Contender
	repeat    int
	limit     uint64        // 0: the scenario's
	duration  time.Duration // 0: the scenario's
}

// bouts returns the runs in the order in which they are made: the guards of one
// scenario right after each other, since only neighbours in time compare, and
// not always the same one first, since the machine gets warm and others come
// and go.
func (s *series) bouts() (all []bout) {
	for repeat := range s.repeat {
		for i, sc := range s.scenarios {
			for g := range s.guards {
				b := bout{scenario: sc, guard: s.guards[(g+i+repeat)%len(s.guards)], repeat: repeat + 1, limit: s.limit, duration: s.duration}
				if b.limit == 0 {
					b.limit = sc.Limit
				}
				if b.duration == 0 {
					b.duration = sc.Duration
				}
				all = append(all, b)
			}
		}
	}
	return all
}

// listener is told what a series does. Its functions may be nil.
type listener struct {
	begin func(n, of int, b *bout, left time.Duration)
	show  func(moment)
	end   func(*Result) error // an error ends the series
}

// run makes the runs. When ctx ends, those that were made stand, and the error
// is its cause. A run that could not be made is a Result with an Error.
func (s *series) run(ctx context.Context, tell listener) error {
	if _, err := sandbox.Sweep(); err != nil {
		return fmt.Errorf("what an earlier run left cannot be removed: %w", err)
	}
	all := s.bouts()
	left := time.Duration(0)
	for i := range all {
		left += all[i].duration
	}
	for i := range all {
		b := &all[i]
		b.show = tell.show
		if tell.begin != nil {
			tell.begin(i+1, len(all), b, left)
		}
		r, err := b.run(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, sandbox.ErrUnsupported):
			return err
		case err != nil:
			if r == nil {
				r = &Result{Scenario: b.scenario.Name, Guard: b.guard.Name, Repeat: b.repeat, Start: time.Now(), Limit: b.limit, Planned: b.duration.Seconds()}
			}
			r.Outcome, r.Error = Failed, err.Error()
		}
		if tell.end != nil {
			if err := tell.end(r); err != nil {
				return err
			}
		}
		left -= b.duration
	}
	return nil
}
