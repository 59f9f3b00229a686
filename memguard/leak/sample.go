// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"sync"
	"time"
)

// The defaults of a Sampler.
const (
	DefaultEvery      = 15 * time.Second
	DefaultDumpLimit  = 2000
	DefaultDumpEvery  = 5 * time.Minute
	DefaultProveEvery = 10 * time.Minute
)

// What a sample cost must be this small a part of the time until the next: the
// world is stopped for under 0.2 % of the time and the caller is busy for under 1
// %, whatever the number of goroutines.
const (
	stoppedShare = 500
	tookShare    = 100
)

// Sampler follows the goroutines of the calling process within a budget. The
// zero Sampler is ready. Its methods may be called from several goroutines.
type Sampler struct {
	Tracker Tracker // its settings; not to be used directly while sampling

	// Every is the least time between samples; 0 is DefaultEvery. It grows with
	// what a sample takes.
	Every time.Duration
	// DumpLimit is the number of goroutines up to which a dump is read to find
	// where those of a suspect cluster were created: a dump stops the world for
	// 5 to 20 us for each goroutine. 0 is DefaultDumpLimit, negative is never.
	DumpLimit int
	// DumpEvery is the least time between dumps, but for one or two of a cluster
	// that has just become suspect: where several go statements have one stack, it
	// takes two to see which of them leaks. 0 is DefaultDumpEvery.
	DumpEvery time.Duration
	// ProveEvery is the least time between calls of the goroutineleak profile,
	// where the program has it (Go 1.27, or 1.26 with
	// GOEXPERIMENT=goroutineleakprofile). Each forces a collection, and only a
	// cluster that grows is a reason for one. 0 is DefaultProveEvery, negative is
	// never.
	ProveEvery time.Duration

	sampling sync.Mutex // held for a sample; guards what follows
	dumped   time.Time
	proved   time.Time
	pauses   [1]metrics.Sample
	before   []uint64

	mu       sync.Mutex // never held for long
	next     time.Time
	verdicts []Verdict
}

// Cost is what one sample has cost.
type Cost struct {
	Took time.Duration // wall time, the caller's
	// Stopped is how long the world was stopped meanwhile for other reasons than
	// garbage collection, at most: the histogram of pauses has buckets.
	Stopped time.Duration
	Dumped  bool // a dump was read
	Proved  bool // the goroutineleak profile was read
}

// Next is when the next sample is due. Before the first it is the zero time.
func (s *Sampler) Next() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// Sample takes a sample, whether it is due or not, and adds it to the tracker. It
// takes some microseconds of the caller's time for each goroutine, and stops the
// world twice, shortly (see BenchmarkSample). The error says which of its parts
// failed; the others count.
func (s *Sampler) Sample() (cost Cost, err error) {
	s.sampling.Lock()
	defer s.sampling.Unlock()
	start := time.Now()
	s.stopped()
	defer func() {
		verdicts := s.Tracker.Verdicts()
		cost.Took, cost.Stopped = time.Since(start), s.stopped()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.verdicts = verdicts
		s.next = time.Now().Add(max(cmp.Or(s.Every, DefaultEvery), stoppedShare*cost.Stopped, tookShare*cost.Took))
	}()

	snap, err := Take()
	if err != nil {
		return cost, err
	}
	s.Tracker.Add(snap)
	suspects := s.Tracker.Verdicts()
	if s.wantsDump(suspects, start) {
		s.dumped, cost.Dumped = start, true
		var dump *Snapshot
		if dump, err = TakeDump(snap.Goroutines); err == nil {
			s.Tracker.Locate(dump)
		}
	}
	if s.wantsProof(suspects, start) {
		s.proved = start
		leaked, failed := TakeLeaked()
		switch {
		case failed == nil:
			cost.Proved = true
			s.Tracker.Prove(leaked)
		case !errors.Is(failed, ErrNoLeakProfile):
			err = errors.Join(err, failed)
		}
	}
	return cost, err
}

// Verdicts says what grows or leaks, as of the last sample. It does not wait for
// one that is under way. The caller must not change what it gets.
func (s *Sampler) Verdicts() []Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verdicts
}

func (s *Sampler) wantsDump(vs []Verdict, now time.Time) bool {
	return len(vs) > 0 && runtime.NumGoroutine() <= cmp.Or(s.DumpLimit, DefaultDumpLimit) &&
		(s.Tracker.unlocated() || now.Sub(s.dumped) >= cmp.Or(s.DumpEvery, DefaultDumpEvery))
}

func (s *Sampler) wantsProof(vs []Verdict, now time.Time) bool {
	return len(vs) > 0 && s.ProveEvery >= 0 &&
		(s.proved.IsZero() || now.Sub(s.proved) >= cmp.Or(s.ProveEvery, DefaultProveEvery))
}

// stopped is the time of stops since the last call, each counted with the upper
// end of its bucket.
func (s *Sampler) stopped() (sum time.Duration) {
	s.pauses[0].Name = "/sched/pauses/total/other:seconds"
	metrics.Read(s.pauses[:])
	if s.pauses[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0
	}
	h := s.pauses[0].Value.Float64Histogram()
	if len(s.before) != len(h.Counts) {
		s.before = make([]uint64, len(h.Counts))
	}
	for i, n := range h.Counts {
		end := h.Buckets[i+1]
		if math.IsInf(end, 1) {
			end = h.Buckets[i]
		}
		sum += time.Duration(float64(n-s.before[i]) * end * float64(time.Second))
		s.before[i] = n
	}
	return sum
}

// ErrNoLeakProfile is of a program that was built without the goroutineleak
// profile.
var ErrNoLeakProfile = errors.New("no goroutineleak profile: needs Go 1.27, or 1.26 built with GOEXPERIMENT=goroutineleakprofile")

// Take takes a snapshot of the calling process from its goroutine profile. It
// does not say where goroutines were created.
func Take() (*Snapshot, error) { return take("goroutine") }

// TakeLeaked runs a collection that looks for goroutines that nothing can wake,
// and returns these: see the goroutineleak profile of runtime/pprof. The error
// is ErrNoLeakProfile where the program does not have it.
func TakeLeaked() (*Snapshot, error) { return take("goroutineleak") }

func take(name string) (*Snapshot, error) {
	p := pprof.Lookup(name)
	if p == nil {
		return nil, fmt.Errorf("leak: take: %w", ErrNoLeakProfile)
	}
	var b bytes.Buffer
	if err := p.WriteTo(&b, 0); err != nil {
		return nil, fmt.Errorf("leak: take %s: %w", name, err)
	}
	s, err := Parse(&b)
	if err != nil {
		return nil, err
	}
	s.Time = time.Now()
	return s, nil
}

// TakeDump takes a snapshot of the calling process from a dump of all stacks. It
// says where goroutines were created, and stops the world once, for 5 to 20 us for
// each of them. The hint is about how many there are; what does not fit into 2
// KiB for each is cut off.
func TakeDump(hint int) (*Snapshot, error) {
	text := dump(hint)
	s, err := Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	s.Time = time.Now()
	return s, nil
}

// dump prints all stacks in one go. runtime/pprof would start with 1 MiB and
// stop the world again for each doubling.
func dump(hint int) []byte {
	buf := make([]byte, min(64<<10+2048*max(hint, 0), 64<<20))
	return buf[:runtime.Stack(buf, true)]
}
