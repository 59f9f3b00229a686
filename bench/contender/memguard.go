// SPDX-License-Identifier: Apache-2.0

package contender

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/memguard/memguard-go/bench/lab"
	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
)

var guard = lab.Contender{
	Name:  "memguard",
	Setup: "memguard.Start(memguard.Config{Evidence: ...}), as the package auto does, and nothing else",
	Start: func(uint64) (lab.Hooks, error) {
		g := memguard.Start(memguard.Config{Event: tell, Evidence: store()})
		return lab.Hooks{Close: g.Close}, nil
	},
}

var guardAndShed = lab.Contender{
	Name:  "memguard-shed",
	Setup: "the same, with a shed.Limiter around the service's handler, listener and units of work, and its hook against fragmentation",
	Start: func(uint64) (lab.Hooks, error) {
		limiter := shed.New(shed.Config{})
		var compact atomic.Pointer[func()]
		g := memguard.Start(memguard.Config{
			Event: tell, Evidence: store(), Shed: limiter,
			Compact: func() {
				if f := compact.Load(); f != nil {
					(*f)()
				}
			},
		})
		return lab.Hooks{
			Enter: func(ctx context.Context, route string) (func(), bool) {
				leave, err := limiter.Enter(ctx, shed.Work{Route: route})
				return leave, err == nil
			},
			Handler:   limiter.Handler,
			Listener:  limiter.Listener,
			ConnState: limiter.ConnState,
			OnCompact: func(f func()) { compact.Store(&f) },
			Close:     g.Close,
		}, nil
	},
}

var guardAndTable = lab.Contender{
	Name:  "memguard-table",
	Setup: "memguard with the breaker of article-table as its Config.Breaker: the same GC percents by state, as far as headroom and GC CPU allow",
	Start: func(limit uint64) (lab.Hooks, error) {
		b, hooks, err := startBreaker(limit, false)
		if err != nil {
			return lab.Hooks{}, err
		}
		g := memguard.Start(memguard.Config{
			Event: tell, Evidence: store(),
			Breaker: func() pacer.State { return pacer.State(b.state.Load()) },
		})
		return lab.Hooks{Close: func() error { return errors.Join(g.Close(), hooks.Close()) }}, nil
	},
}

// store is in the working directory, which is the run's.
func store() *evidence.Store { return &evidence.Store{Dir: filepath.Join(".", "evidence")} }

// tell prints an event for the lab to read: see lab.Event.
func tell(e memguard.Event) {
	id, severity, text := "-", "-", e.Blind.What+": "+e.Blind.Why
	switch e.Kind {
	case memguard.Raised, memguard.Cleared:
		id, severity, text = string(e.Finding.ID), e.Finding.Severity.String(), e.Finding.Summary
	case memguard.Saved:
		text = e.Path
	case memguard.Planned, memguard.Applied, memguard.Undone, memguard.Clamped:
		a := &e.Action
		id, text = string(a.Name), fmt.Sprintf("%d -> %d: %s", a.From, a.To, a.Reason)
		if n, ok := a.Gained.Get(); ok {
			text += fmt.Sprintf(" (took %v, gained %.1f MiB)", a.Took, float64(n)/(1<<20))
		}
		text = strings.ReplaceAll(text, fmt.Sprint(int64(math.MaxInt64)), "none")
	}
	fmt.Fprintf(os.Stderr, "event %d %s %s %s %s\n", e.Time.UnixNano(), e.Kind, id, severity, text)
}
