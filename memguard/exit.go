// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/pacer"
)

// ExitStatus is the exit status of a process that ends itself because collecting
// helps no longer (see [Config.OnSpiral]): EX_TEMPFAIL of sysexits(3), which no Go
// program has by accident.
const ExitStatus = 75

const (
	// exitRoom is the share of the kernel's limit that is left at most to a process
	// that ends itself.
	exitRoom = 0.5
	// A spiral that comes with a burst is over before the process is: it must have
	// stood for exitSure. That is too long where no more than exitLeast of the limit is
	// left beside what cannot be freed (by 12 % of it the heap may run past its goal,
	// overMost in the pacer, and evidence needs room too), where garbage has filled the
	// room up to exitFull, where the room has sunk by a quarter since the spiral began,
	// or where it is forecast to end within forecastCritical.
	exitSure  = 5 * time.Second
	exitLeast = 0.15
	exitFull  = 0.95
	exitSunk  = 0.75
	// exitWait is how long evidence is waited for: the disk may hang.
	exitWait = 2 * time.Second
)

// spun is what has been seen of the spiral that stands.
type spun struct {
	at     time.Time
	stood  time.Duration
	most   uint64    // room, in bytes
	lately [2]uint64 // the most of it in the last second and in this one: what a cycle marks wavers
	turned time.Duration
}

// step takes a look at a spiral. A clock that jumps is no time.
func (s *spun) step(now time.Time, room uint64) {
	if !s.at.IsZero() {
		s.stood += min(max(now.Sub(s.at), 0), tickRest)
	}
	if s.stood-s.turned >= time.Second {
		s.lately, s.turned = [2]uint64{s.lately[1]}, s.stood
	}
	s.at, s.most, s.lately[1] = now, max(s.most, room), max(s.lately[1], room)
}

// sinks reports whether there is less room than there was.
func (s *spun) sinks() bool {
	return float64(max(s.lately[0], s.lately[1])) < exitSunk*float64(s.most)
}

// exit ends the process, if that is what is to be done in a spiral, once evidence
// is saved: it would be killed anyway, later and without a word.
func (h *hand) exit() {
	if !h.decision.Spiral {
		h.spun = spun{}
		return
	}
	room := h.decision.Room
	h.spun.step(h.reading.Time, room)
	if h.governor.OnSpiral != pacer.Exit || h.exiting || h.reading.Limit == Unlimited {
		return
	}
	left := float64(room) / float64(max(h.reading.Limit, 1))
	if left > exitRoom {
		return // it spirals under a limit of the user's own: nobody will kill it
	}
	full := float64(h.reading.Usage) >= exitFull*float64(h.reading.Limit)
	end, grows := h.g.judge.TimeLeft()
	if h.spun.stood < exitSure && left > exitLeast && !full && !h.spun.sinks() && !(grows && end < forecastCritical) {
		return
	}
	h.exiting = true
	a := Action{Name: Exit, To: ExitStatus, Reason: h.decision.Reason, DryRun: h.dry}
	h.g.note(Event{Time: h.reading.Time, Kind: Planned, Action: a})
	if h.dry {
		return
	}
	p, at := &h.g.proof, h.reading.Time
	h.g.aside(string(Exit), false, func() func() {
		var saved evidence.Captured
		var err error
		if p.profiles != nil {
			saved, err = atMost(exitWait, func() (evidence.Captured, error) {
				return p.profiles.Capture(evidence.Plan{Why: string(Exit), Series: at, Number: 1, Score: 99, Heap: true, Goroutines: room > 32<<20})
			})
		}
		return func() {
			for _, path := range saved.Paths {
				p.saved(Finding{}, path, nil, "")
			}
			if err != nil {
				p.lost("profiles", err)
			}
			h.g.note(Event{Kind: Applied, Action: a})
			h.g.exit = func() {
				p.close()
				// Whoever reads standard error may hang as well as a disk.
				_, _ = atMost(exitWait, func() (int, error) {
					return fmt.Fprintf(os.Stderr, "memguard: exit status %d: %s\n", ExitStatus, a.Reason)
				})
				os.Exit(ExitStatus)
			}
		}
	})
}

// atMost does what may hang, and waits for it for so long. What has not ended by then
// is left under way.
func atMost[T any](wait time.Duration, do func() (T, error)) (v T, err error) {
	type result struct {
		v   T
		err error
	}
	ended := make(chan result, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				ended <- result{err: fmt.Errorf("panic: %v", p)}
			}
		}()
		v, err := do()
		ended <- result{v, err}
	}()
	select {
	case r := <-ended:
		return r.v, r.err
	case <-time.After(wait):
		return v, fmt.Errorf("%w after %v", errLeft, wait)
	}
}

var errLeft = errors.New("left under way")
