// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"time"
)

// DefaultHold is how long the death of a target may be held up so that it can be
// read: below what a supervisor notices, and well within the two seconds after
// which the kernel takes the memory of what it killed for lack of memory
// (mm/oom_kill.c, OOM_REAPER_DELAY).
const DefaultHold = 700 * time.Millisecond

// ErrHold is that a target's exit cannot be held.
var ErrHold = errors.New("attach: the exit cannot be held")

// Death is how a target ended, and its state at that moment.
type Death struct {
	Time     time.Time     // when the kernel began to end it
	Signal   int           // that ended it, 0 if it left by itself
	Code     int           // its exit status if it left by itself
	Held     time.Duration // how long its end was held up
	Snapshot *Snapshot     // nil if Why says so
	Why      error         // why there is no snapshot, or none of some parts
}
