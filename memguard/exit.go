// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"os"

	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/pacer"
)

// ExitStatus is the exit status of a process that ends itself because collecting
// helps no longer (see [Config.OnSpiral]): EX_TEMPFAIL of sysexits(3), which no Go
// program has by accident.
const ExitStatus = 75

// exitRoom is the share of the kernel's limit that is left at most to a process
// that ends itself.
const exitRoom = 0.5

// exit ends the process, if that is what is to be done in a spiral, once evidence
// is saved: it would be killed anyway, later and without a word.
func (h *hand) exit() {
	if !h.decision.Spiral || h.governor.OnSpiral != pacer.Exit || h.exiting || h.reading.Limit == Unlimited {
		return
	}
	room := h.decision.Room
	if float64(room) > exitRoom*float64(h.reading.Limit) {
		return // it spirals under a limit of the user's own: nobody will kill it
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
			saved, err = p.profiles.Capture(evidence.Plan{Why: string(Exit), Series: at, Number: 1, Score: 99, Heap: true, Goroutines: room > 32<<20})
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
				fmt.Fprintf(os.Stderr, "memguard: exit status %d: %s\n", ExitStatus, a.Reason)
				p.close()
				os.Exit(ExitStatus)
			}
		}
	})
}
