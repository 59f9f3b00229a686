// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// ErrRefused is what every [*Refusal] is, in the sense of errors.Is.
var ErrRefused = errors.New("refused for lack of memory")

// Reason says why work was refused.
type Reason string

// The reasons.
const (
	Budget    Reason = "budget"     // what is in flight holds the memory that there is for work
	Share     Reason = "share"      // the route holds its share, and the others want theirs
	SlowStart Reason = "slow-start" // more at once than was ever seen to fit
	Brake     Reason = "brake"      // the usage is at the limit
	Ordered   Reason = "ordered"    // somebody wants a part of the work refused: see Limiter.Refuse
)

// passes reports whether it may be over in a moment.
func (r Reason) passes() bool { return r != Share && r != Ordered }

// retryAfter is when to try again: about a second, less if all that is to be
// waited for is a collection, and not for all at once.
func (r Reason) retryAfter() time.Duration {
	after := time.Second
	if r == Brake {
		after /= 4
	}
	return after/2 + rand.N(after)
}

// Refusal is the error of work that was not admitted.
type Refusal struct {
	Route      string
	Reason     Reason
	RetryAfter time.Duration // when to try again; it varies, lest all come back at once
}

func (r *Refusal) Error() string {
	if r.Reason == Ordered {
		return fmt.Sprintf("shed: %s: refused by order", r.Route)
	}
	return fmt.Sprintf("shed: %s: %v (%s)", r.Route, ErrRefused, r.Reason)
}

// Is makes every refusal an ErrRefused.
func (r *Refusal) Is(target error) bool { return target == ErrRefused }
