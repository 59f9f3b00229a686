// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"cmp"
	"math"
	"time"
)

// service is a model of a Go service in a memory cgroup: what it keeps and what
// it throws away are streams, and the heap grows and is collected as the runtime
// does it (mgcpacer.go: a cycle at the goal, the goal a percentage above what the
// last cycle marked, and below the memory limit if there is one).
type service struct {
	live     stream  // bytes that the heap keeps
	other    stream  // resident memory that is not the heap's
	file     stream  // page cache
	garbage  float64 // bytes a second that are allocated and dropped at once
	gogc     float64 // 0 is 100, negative is off
	goLimit  float64 // GOMEMLIMIT; 0 is none
	limit    float64 // of the cgroup; 0 is none
	fromAway bool    // it is watched from outside: the runtime's figures are unknown
	paced    bool    // a guard acts on it: it looks five times a second, and says so
	told     bool    // it starts the first two collections: see firstCycles
	step     float64 // seconds of the model; 0 is modelStep
}

const (
	modelStep     = 0.002 // seconds
	modelMetadata = 6 * mebi
	modelStacks   = 2 * mebi
)

// run lives the service for some seconds, takes a sample whenever look asks for
// one (it returns the time until the next), and returns the second at which the
// kernel kills it: +Inf if it does not.
func (v service) run(seconds float64, look func(s *Sample) (next time.Duration)) (killed float64) {
	if v.other == nil {
		v.other = constant(20 * mebi)
	}
	if v.file == nil {
		v.file = constant(5 * mebi)
	}
	if v.gogc == 0 {
		v.gogc = 100
	}
	var (
		live      = v.live(0)
		objects   = live
		marked    = 0.0
		resident  = objects // of the heap
		allocated = objects
		cycles    = uint64(0)
		next      = 0.0
	)
	dt := cmp.Or(v.step, modelStep)
	for t := 0.0; t < seconds; t += dt {
		now := v.live(t)
		fresh := v.garbage*dt + max(now-live, 0)
		live = now
		allocated += fresh
		objects += fresh
		other := v.other(t) + modelMetadata + modelStacks
		goal := v.goal(marked, modelMetadata+modelStacks)
		if objects >= goal || v.told && v.due(resident+other, cycles, objects, marked) {
			marked, objects = live, live
			cycles++
			goal = v.goal(marked, modelMetadata+modelStacks)
		}
		resident = max(resident, 1.02*objects)
		// The scavenger gives back what is beyond the goal and a tenth.
		if beyond := resident - 1.1*max(goal, 1.02*objects); beyond > 0 && !math.IsInf(goal, 0) {
			resident -= beyond * dt / 2
		}
		usage := resident + other
		if v.limit > 0 && usage > v.limit {
			return t
		}
		if t >= next {
			s := v.sample(t, objects, marked, resident, allocated, goal, cycles)
			s.Paced = v.paced
			next = t + look(s).Seconds()
		}
	}
	return math.Inf(1)
}

// due says that the guard starts a collection, as firstCycles does.
func (v service) due(usage float64, cycles uint64, objects, marked float64) bool {
	return cycles == 0 && usage >= v.limit/firstCycleAt && objects >= v.limit/firstCycleOf ||
		cycles == 1 && usage >= v.limit/secondCycleAt && marked >= v.limit/secondCycleOf
}

// goal is the heap goal after a cycle that marked so many bytes.
func (v service) goal(marked, rest float64) float64 {
	goal := math.Inf(1)
	if v.gogc > 0 {
		goal = max(4*mebi, marked) * (1 + v.gogc/100)
		if marked == 0 {
			goal = 4 * mebi * v.gogc / 100
		}
	}
	if v.goLimit > 0 {
		goal = max(min(goal, 0.97*(v.goLimit-rest)), marked+marked/32) // the limit is soft
	}
	return goal
}

func (v service) sample(t, objects, marked, resident, allocated, goal float64, cycles uint64) *Sample {
	known := func(n float64) Bytes {
		if n >= 1<<63 {
			return Known[uint64](Unlimited)
		}
		return Known(uint64(max(n, 0)))
	}
	orNone := func(n float64) Bytes {
		if n == 0 {
			return Known[uint64](Unlimited)
		}
		return known(n)
	}
	other := v.other(t)
	s := &Sample{Time: at(t), PID: 4711}
	s.Runtime = Runtime{
		Origin:   FromRuntime,
		Objects:  known(objects),
		Unused:   known(0.02 * objects),
		Free:     known(resident - 1.02*objects),
		Released: known(0),
		Stacks:   known(modelStacks), OSStacks: known(0), Metadata: known(modelMetadata),
		Total: plus(known(objects), known(0.02*objects), known(resident-1.02*objects), known(modelStacks), known(modelMetadata)),
		Goal:  known(goal), Allocated: known(allocated),
		GCPercent: Known(int64(max(v.gogc, -1))), MemoryLimit: orNone(v.goLimit),
		Cycles: Known(cycles), Goroutines: Known[uint64](40),
		PausesOver500us: Known[uint64](0), PausesOver10ms: Known[uint64](0),
	}
	if cycles > 0 {
		s.Runtime.Live = known(marked)
	}
	file := v.file(t)
	anon := resident + other + modelMetadata + modelStacks
	const mapped = 8 * mebi // of the page cache
	s.Process = Process{Go: true, RSS: known(anon + mapped), Shared: known(mapped)}
	s.Cgroup = Cgroup{
		Path: "/service", Version: 2,
		Usage: known(anon + file), Limit: orNone(v.limit), High: Known[uint64](Unlimited),
		WorkingSet: known(anon + file/2), Swap: known(0),
		Anon: known(anon), Shmem: known(0), ActiveFile: known(file / 2), InactiveFile: known(file / 2), Kernel: known(0),
		OOMKills: Known[uint64](0), Pressure: Known(0.0),
	}
	if v.fromAway {
		r := Runtime{Origin: FromEnviron, GCPercent: s.Runtime.GCPercent, MemoryLimit: s.Runtime.MemoryLimit}
		s.Runtime = r
	}
	return s
}
