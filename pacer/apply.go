// SPDX-License-Identifier: Apache-2.0

package pacer

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
)

// NoLimit is the Setting.MemoryLimit of a process without one (GOMEMLIMIT=off).
const NoLimit = math.MaxInt64

// Setting is what the pacer may change in the runtime.
type Setting struct {
	GCPercent   int   // GOGC; -1 is off
	MemoryLimit int64 // GOMEMLIMIT in bytes; NoLimit is none
}

// Applier changes the settings of the running process and puts them back. It is
// the only one here that does. Its methods must not be called at the same time.
//
// What it found is the baseline: GOGC and GOMEMLIMIT of the environment, or what
// the service or a library (automemlimit) has set by then. If somebody changes a
// setting later, that is the new baseline of it. But who saves a setting and puts
// it back, as in
//
//	defer debug.SetGCPercent(debug.SetGCPercent(-1))
//
// may have saved what the Applier set, and wants by that what would have stood there
// without it: the baseline of that time is the baseline again, however long it took.
//
// A change costs a lock of the heap and a few hundred nanoseconds and stops
// nothing; it takes effect at once, also on a cycle under way (setGCPercent and
// setMemoryLimit in runtime/mgcpacer.go). The exception is switching the
// collector off: SetGCPercent(-1) waits until a cycle under way has marked, which
// under load takes as long as a whole cycle.
type Applier struct {
	percent, limit knob
	gogc           [1]metrics.Sample
}

// NewApplier takes the settings that it finds as the baseline.
func NewApplier() *Applier {
	a := &Applier{gogc: [1]metrics.Sample{{Name: "/gc/gogc:percent"}}} // since Go 1.21
	found := a.read()
	a.percent, a.limit = newKnob(int64(found.GCPercent)), newKnob(found.MemoryLimit)
	return a
}

// read returns the settings of the process. There is no way to read GOGC from
// the debug package without setting it.
func (a *Applier) read() Setting {
	metrics.Read(a.gogc[:])
	s := Setting{GCPercent: -1, MemoryLimit: debug.SetMemoryLimit(-1)}
	if n := a.gogc[0].Value.Uint64(); n <= math.MaxInt32 {
		s.GCPercent = int(n) // off is MaxUint64
	}
	return s
}

// Baseline returns the settings that the process goes back to. It looks whether
// somebody has changed one meanwhile, which is then the baseline: a [Governor]
// wants to know before its next step.
func (a *Applier) Baseline() Setting {
	a.adopt()
	return Setting{int(a.percent.baseline), a.limit.baseline}
}

// Current returns what was applied last, or by somebody else since.
func (a *Applier) Current() Setting {
	a.adopt()
	return Setting{int(a.percent.asked), a.limit.asked}
}

// adopt takes notice of what somebody else has set.
func (a *Applier) adopt() (foreign bool) {
	found := a.read()
	percent, limit := a.percent.found(int64(found.GCPercent)), a.limit.found(found.MemoryLimit)
	return percent || limit
}

// Apply changes what differs from s. If somebody else has changed a setting since
// the last call it changes nothing and returns false: s was decided without
// knowing of the new baseline.
//
// The percent may be set a little lower, and the limit some bytes: what somebody may
// have saved is not set again over another baseline, or nobody would see him put it back.
func (a *Applier) Apply(s Setting) bool {
	if a.adopt() {
		return false
	}
	s = s.valid()
	a.set(s, a.percent.distinct(int64(s.GCPercent)), a.limit.distinct(s.MemoryLimit))
	return true
}

// set sets what differs. The runtime tells what it replaces: somebody else may have
// come in between.
func (a *Applier) set(asked Setting, percent, limit int64) {
	if percent != a.percent.now {
		a.percent.found(int64(debug.SetGCPercent(int(percent))))
	}
	a.percent.turn(int64(asked.GCPercent), percent)
	if limit == a.limit.now {
		a.limit.asked = asked.MemoryLimit
		return
	}
	a.limit.found(debug.SetMemoryLimit(limit))
	a.limit.turn(asked.MemoryLimit, limit)
	// It can be read long before it is changed, which GOGC cannot; and nobody sets
	// such an odd number by chance.
	a.limit.keep(false)
}

// Close puts back the baseline. It may be called again, and Apply after it.
func (a *Applier) Close() {
	base := a.Baseline() // and exactly that
	a.set(base, int64(base.GCPercent), base.MemoryLimit)
}

// valid brings s into the range of the runtime, so that what is read back later
// is what was set: it takes 32 bits of a percent, and a negative limit for a
// question.
func (s Setting) valid() Setting {
	return Setting{
		GCPercent:   min(max(s.GCPercent, -1), math.MaxInt32),
		MemoryLimit: max(s.MemoryLimit, 0),
	}
}
