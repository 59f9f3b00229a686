// SPDX-License-Identifier: Apache-2.0

//go:build !memguard_sidecar

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/pacer"
	"github.com/spf13/cobra"
)

func topCommand() *cobra.Command {
	var (
		pid  int
		once bool
		p    printer
		fail failOn
	)
	c := &cobra.Command{
		Use:   "top --pid N",
		Short: "Show a process's memory as it moves",
		Long: `Top shows where the memory of a process is, how long it has, what is wrong, what
its guard has set, the last events, goroutines by what they wait for, the largest
size classes and the last incidents of the sidecar beside it, and renews that until
it is interrupted or the process ends. Where the service serves an agent, it is the service's own
guard that tells; else the process is watched from outside. Nothing here costs
the process a survey of its address space: see memguard explain for that.

On a terminal it is a page, else a line for each look and each event, and with
--json an object for each look: eye, the agent's status, and the new events.`,
		Example: "  memguard top --pid 4711\n  memguard top --pid 4711 --once\n  memguard top --pid 4711 --interval 10s --json | jq .time_to_limit_seconds",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p.out, p.watch = c.OutOrStdout(), !once
			f, err := openFeed(c, pid)
			if err != nil {
				return cannotLook(hint(err))
			}
			defer f.close()
			l := openLooker(pid)
			defer l.close()
			v := view{Eye: f.eye}
			var worst memguard.Severity
			err = p.repeat(c.Context(), func() error {
				if err := v.renew(c.Context(), f); err != nil {
					return err
				}
				l.look(c.Context(), &v.looks)
				for _, finding := range v.Findings {
					worst = max(worst, finding.Severity)
				}
				return p.print(&v, func(w io.Writer) error {
					width, color := terminal(w)
					if once || isTerminal(w) {
						return v.page(w, width, color)
					}
					return v.lines(w)
				})
			})
			return ended(c, err, fail.status(worst))
		},
	}
	pidFlag(c, &pid)
	p.every = time.Second
	c.Flags().Var((*above0)(&p.every), "interval", "time between two looks")
	c.Flags().BoolVar(&once, "once", false, "one look")
	p.jsonFlag(c)
	fail.flag(c)
	return c
}

// feed is where a view comes from: an agent, or a guard of our own.
type feed struct {
	eye    eye
	status func(context.Context) (*agent.Status, error)
	events func(ctx context.Context, after uint64) ([]memguard.Event, error) // at once
	close  func()
}

func openFeed(c *cobra.Command, pid int) (*feed, error) {
	if a := dialAgent(c, pid); a != nil {
		return &feed{eyeAgent, a.Status, func(ctx context.Context, after uint64) ([]memguard.Event, error) {
			es, err := a.Events(ctx, after, 0)
			if errors.Is(err, io.EOF) { // the guard has ended; that its ticks have is to be seen
				err = nil
			}
			return es, err
		}, a.Close}, nil
	}
	src, err := openSource(c.Context(), pid)
	if err != nil {
		return nil, err
	}
	g := memguard.Start(memguard.Config{Source: src.Source})
	return &feed{
		eye: src.eye(),
		status: func(ctx context.Context) (*agent.Status, error) {
			for {
				st := g.Status()
				select {
				case <-g.Done():
					return nil, fmt.Errorf("pid %d: %w", pid, memguard.ErrGone)
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-time.After(time.Millisecond):
				}
				if st.Ticks > 0 {
					return agent.NewStatus(&st, g.Alive()), nil
				}
			}
		},
		events: func(_ context.Context, after uint64) ([]memguard.Event, error) {
			now, cancel := context.WithCancel(context.Background())
			cancel()
			return g.Events(now, after), nil
		},
		close: func() {
			_ = g.Close()
			src.Close()
		},
	}, nil
}

// eventsShown is how many events a page has room for.
const eventsShown = 8

// view is what top shows.
type view struct {
	Eye eye `json:"eye"`
	*agent.Status
	New []memguard.Event `json:"new_events"` // since the last look
	looks

	recent []memguard.Event
	last   uint64 // seq of the last event
}

func (v *view) renew(ctx context.Context, f *feed) (err error) {
	if v.Status, err = f.status(ctx); err != nil {
		return err
	}
	if v.New, err = f.events(ctx, v.last); err != nil {
		return err
	}
	v.recent = append(v.recent, v.New...)
	if n := len(v.recent); n > 0 {
		v.recent, v.last = v.recent[max(n-eventsShown, 0):], v.recent[n-1].Seq
	}
	if v.New == nil {
		v.New = []memguard.Event{}
	}
	return nil
}

// says is an event in words.
func says(e *memguard.Event) string {
	switch e.Kind {
	case memguard.Raised, memguard.Cleared:
		return fmt.Sprintf("%s %s %v: %s", e.Kind, e.Finding.ID, e.Finding.Severity, e.Finding.Summary)
	case memguard.Saved:
		return fmt.Sprintf("%s %s", e.Kind, e.Path)
	case memguard.Lost:
		return fmt.Sprintf("%s %s: %s", e.Kind, e.Blind.What, e.Blind.Why)
	case memguard.Died:
		return fmt.Sprintf("%s: %s", e.Kind, e.Why)
	case memguard.Ended:
		return string(e.Kind)
	}
	a := &e.Action
	s := fmt.Sprintf("%s %s", e.Kind, a.Name)
	switch a.Name {
	case memguard.SetGCPercent:
		s += fmt.Sprintf(" %s -> %s", percent(int(a.From)), percent(int(a.To)))
	case memguard.SetBreaker:
		s += fmt.Sprintf(" %v -> %v", pacer.State(a.From), pacer.State(a.To))
	case memguard.SetMemoryLimit:
		s += fmt.Sprintf(" %s -> %s", limit(a.From), limit(a.To))
	}
	if a.DryRun {
		s += " (dry run)"
	}
	s += ": " + cmp.Or(a.Reason, "no reason given")
	if a.By != "" {
		s += " (by " + a.By + ")"
	}
	return s
}
