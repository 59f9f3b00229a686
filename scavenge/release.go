// SPDX-License-Identifier: Apache-2.0

package scavenge

import (
	"errors"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// ErrReleasing says that a release is under way: a second one would do the same
// work again.
var ErrReleasing = errors.New("scavenge: a release is under way")

var releasing sync.Mutex

// Outcome is what a release has cost and gained.
type Outcome struct {
	Took time.Duration

	// What the runtime held of the operating system before and after
	// (/memory/classes/total less heap/released), in bytes. They are known when
	// Measured is true.
	Before, After uint64
	Measured      bool

	Trim Trim
}

// Gained is how many bytes less the runtime holds. It is negative when the service
// has allocated more meanwhile, and unknown when it was not measured. What C gave
// back is not in it.
func (o *Outcome) Gained() (bytes int64, ok bool) {
	return int64(o.Before) - int64(o.After), o.Measured
}

// Trim is what malloc_trim(3) did.
type Trim int

// The outcomes of malloc_trim.
const (
	TrimNotBuiltIn Trim = iota // pure Go, or built without the tag malloc_trim
	TrimNothing                // C's heap had nothing to give
	TrimReleased               // it gave something; the libc does not say how much
)

// String returns the outcome in words.
func (t Trim) String() string {
	switch t {
	case TrimNotBuiltIn:
		return "not built in"
	case TrimNothing:
		return "nothing to give"
	case TrimReleased:
		return "memory released"
	}
	return "unknown"
}

// Release collects, returns all idle memory to the operating system, and says what
// that took and gained. It changes no setting. It blocks for the length of a whole
// collection, so it belongs in a goroutine of its own. The only error is
// [ErrReleasing].
//
// Built with cgo and the tag malloc_trim, it also has glibc return what C has freed.
func Release() (Outcome, error) {
	if !releasing.TryLock() {
		return Outcome{}, ErrReleasing
	}
	defer releasing.Unlock()
	start := time.Now()
	var o Outcome
	before, ok := mapped()
	debug.FreeOSMemory()
	o.Trim = trim()
	after, ok2 := mapped()
	o.Took = time.Since(start)
	o.Before, o.After, o.Measured = before, after, ok && ok2
	return o, nil
}

// mapped is what the runtime holds of the operating system.
func mapped() (bytes uint64, ok bool) {
	m := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(m)
	for i := range m {
		if m[i].Value.Kind() != metrics.KindUint64 {
			return 0, false
		}
	}
	total, released := m[0].Value.Uint64(), m[1].Value.Uint64()
	return total - min(total, released), released <= total
}
