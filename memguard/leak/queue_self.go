// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// Queues watches the finalizers and the cleanups of the calling process. It takes
// no part in them but for one sentinel: an object of 16 bytes whose finalizer
// sets itself again, so that it is queued at each collection. It is a probe, not
// a hook: behind a finalizer that blocks it waits like all others, there is never
// a second one, and that it does not run is what is read from it. It is not safe
// for concurrent use.
type Queues struct {
	reader               queueReader
	finalizers, cleanups Queue
}

// NewQueues returns Queues with the sentinel armed. Close lets it go.
func NewQueues() *Queues {
	return &Queues{reader: newQueueReader(), finalizers: Queue{Kind: Finalizers}, cleanups: Queue{Kind: Cleanups}}
}

// Close lets the sentinel go at the next collection.
func (q *Queues) Close() { q.reader.probe.closed.Store(true) }

// Tick reads both queues and judges them: it is to be called about once a second.
// While nothing is wrong it takes a microsecond or two, stops nothing and
// allocates nothing. A queue that has not moved for a second is looked into: up
// to 2000 goroutines by a dump, which has the arguments of each call and stops
// the world for 5 to 20 us for each of them, and beyond by the goroutine profile.
// It does that twice in the first two seconds, then at growing intervals, and
// waits for the answer for 50 ms at most; a later one is for a later tick. The
// error says why a look saw nothing; the verdicts are then of the figures alone.
func (q *Queues) Tick() (finalizers, cleanups QueueVerdict, err error) {
	var f, c QueueReading
	q.reader.read(&f, &c)
	finalizers, look1 := q.finalizers.Step(&f)
	cleanups, look2 := q.cleanups.Step(&c)
	if look1 || look2 {
		q.reader.look()
		if f.Running, c.Running = q.reader.found.finalizers, q.reader.found.cleanups; look1 {
			finalizers, _ = q.finalizers.Step(&f)
		}
		if look2 {
			cleanups, _ = q.cleanups.Step(&c)
		}
	}
	err = q.reader.found.err
	q.reader.found = looked{}
	return finalizers, cleanups, err
}

// queueReader reads the metrics, keeps the sentinel and looks.
type queueReader struct {
	samples [5]metrics.Sample
	probe   *probe
	looked  chan looked
	looking bool
	found   looked
}

type looked struct {
	finalizers, cleanups *Running
	err                  error
}

// probe is the sentinel's counter. It outlives the sentinel.
type probe struct {
	runs   atomic.Uint64
	closed atomic.Bool
}

// sentinel is what gets finalized: 16 bytes with a pointer, or the tiny
// allocator would put it into one block with objects that live on.
type sentinel struct {
	of *probe
	_  uintptr
}

func (s *sentinel) ran() {
	s.of.runs.Add(1)
	if !s.of.closed.Load() {
		runtime.SetFinalizer(s, (*sentinel).ran)
	}
}

func newQueueReader() queueReader {
	r := queueReader{probe: new(probe), looked: make(chan looked, 1)}
	for i, name := range [...]string{
		"/gc/finalizers/queued:finalizers", "/gc/finalizers/executed:finalizers",
		"/gc/cleanups/queued:cleanups", "/gc/cleanups/executed:cleanups",
		"/gc/cycles/total:gc-cycles",
	} {
		r.samples[i].Name = name
	}
	r.probe.arm()
	return r
}

func (p *probe) arm() { runtime.SetFinalizer(&sentinel{of: p}, (*sentinel).ran) }

// read reads both queues, with what a look has found that was still under way.
func (r *queueReader) read(finalizers, cleanups *QueueReading) {
	metrics.Read(r.samples[:])
	now := time.Now()
	cycles, _ := r.value(4)
	*finalizers = QueueReading{Time: now, Cycles: cycles, Probes: r.probe.runs.Load(), Probed: true}
	finalizers.Queued, finalizers.Executed, finalizers.Counted = r.pair(0)
	*cleanups = QueueReading{Time: now, Cycles: cycles}
	cleanups.Queued, cleanups.Executed, cleanups.Counted = r.pair(2)
	r.collect(0)
	finalizers.Running, cleanups.Running = r.found.finalizers, r.found.cleanups
}

func (r *queueReader) value(i int) (uint64, bool) {
	if v := r.samples[i].Value; v.Kind() == metrics.KindUint64 {
		return v.Uint64(), true
	}
	return 0, false
}

func (r *queueReader) pair(i int) (queued, executed uint64, ok bool) {
	queued, ok1 := r.value(i)
	executed, ok2 := r.value(i + 1)
	return queued, executed, ok1 && ok2
}

// lookWait is how long a tick waits for a look.
const lookWait = 50 * time.Millisecond

func (r *queueReader) look() {
	if !r.looking {
		r.looking = true
		go func() { r.looked <- contained(lookNow) }()
	}
	r.collect(lookWait)
}

func (r *queueReader) collect(wait time.Duration) {
	if !r.looking {
		return
	}
	select {
	case r.found = <-r.looked:
		r.looking = false
		return
	default:
	}
	if wait == 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case r.found = <-r.looked:
		r.looking = false
	case <-timer.C:
	}
}

// contained ends a panic of a look in its goroutine: a defect of ours must not be
// the service's end.
func contained(look func() looked) (l looked) {
	defer func() {
		if p := recover(); p != nil {
			l = looked{err: fmt.Errorf("leak: look: panic: %v", p)}
		}
	}()
	return look()
}

func lookNow() looked {
	if n := runtime.NumGoroutine(); n <= DefaultDumpLimit {
		text := dump(n)
		return looked{InDump(text, Finalizers), InDump(text, Cleanups), nil}
	}
	s, err := Take()
	if err != nil {
		return looked{err: err}
	}
	return looked{InSnapshot(s, Finalizers), InSnapshot(s, Cleanups), nil}
}

var printSeed = maphash.MakeSeed()

// InDump says what a queue's goroutines run, by a dump of a process of Go 1.25
// or later: before, dumps do not show them. The fingerprint has the arguments.
func InDump(text []byte, kind QueueKind) *Running {
	run := &Running{Time: time.Now(), Args: true}
	for block := range bytes.SplitSeq(text, []byte("\n\n")) {
		_, calls, _ := bytes.Cut(block, []byte("\n"))
		for fn, k := range queueFrames {
			if k != kind || !bytes.Contains(calls, []byte("\n"+fn+"(")) {
				continue
			}
			if s, err := Parse(bytes.NewReader(block)); err == nil {
				run.add(s.Clusters[0])
				run.Print += maphash.Bytes(printSeed, calls) // in any order
			}
		}
	}
	return run
}

// InSnapshot says what a queue's goroutines run, by a profile, of any release.
func InSnapshot(s *Snapshot, kind QueueKind) *Running {
	run := &Running{Time: s.Time}
	for _, c := range s.Clusters {
		for _, f := range c.Stack {
			if queueFrames[f.Func] == kind && len(c.Stack) > 1 {
				run.add(c)
				run.Print += maphash.Bytes(printSeed, c.Key[:]) * uint64(c.Count)
				for _, f := range c.Stack { // progress within one function
					run.Print = run.Print*31 + uint64(f.Line)
				}
				break
			}
		}
	}
	return run
}

func (r *Running) add(c *Cluster) {
	r.Count += c.Count
	if r.Func.Func == "" {
		r.Func, r.Where, r.State = c.Entry(), c.Blocked(), c.State
	}
}
