// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"io"

	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

func runSeries(ctx context.Context, s *series, dir, page, failOn string, stdout, stderr io.Writer) error {
	results := newResults(s)
	if dir != "" {
		if err := makeDir(dir); err != nil {
			return cannot(err)
		}
	}
	p := newProgress(stderr)
	cut := s.run(ctx, listener{
		begin: p.begin,
		show:  p.show,
		end: func(r *Result) error {
			p.end(r)
			results.add(r)
			if dir == "" {
				return nil
			}
			return results.writeLast(dir)
		},
	})
	p.clear()
	if cut != nil {
		if errors.Is(cut, context.Canceled) {
			cut = errInterrupted
		}
		results.Cut = cut.Error()
	}
	if errors.Is(cut, sandbox.ErrUnsupported) && len(results.Results) == 0 {
		return cut
	}
	if err := results.deliver(dir, page, stdout, stderr); err != nil {
		return cannot(errors.Join(cut, err))
	}
	switch {
	case errors.Is(cut, errInterrupted):
		return &status{exitInterrupted, cut}
	case cut != nil:
		return cannot(cut)
	case results.failed(failOn):
		return &status{exitFailed, nil}
	}
	return nil
}

var errInterrupted = errors.New("interrupted; nothing is left behind")

// deliver writes what a series found to everybody who wants it.
func (r *Results) deliver(dir, page string, stdout, stderr io.Writer) error {
	if dir != "" {
		if err := r.writeLast(dir); err != nil {
			return err
		}
	}
	if page != "" {
		if err := r.writePage(page); err != nil {
			return err
		}
	}
	people := stdout
	if !isTerminal(stdout) {
		if err := r.writeBench(stdout); err != nil {
			return err
		}
		people = stderr
	}
	width, color := terminal(people)
	return r.writeTable(people, width, color)
}

// failed reports whether --fail-on is to make the exit status 1.
func (r *Results) failed(on string) bool {
	for _, one := range r.Results {
		if on != failNever && one.Outcome == Failed {
			return true
		}
		if on == failKilled && one.Outcome != Alive && one.Guard != baseline {
			if doc := r.scenario(one.Scenario); doc != nil && doc.Survivable {
				return true
			}
		}
	}
	return false
}

// baseline is the guard that is none: nobody blames it for a kill.
const baseline = "plain"

func (i *Index) scenario(name string) *ScenarioDoc {
	for k := range i.Scenarios {
		if i.Scenarios[k].Name == name {
			return &i.Scenarios[k]
		}
	}
	return nil
}
