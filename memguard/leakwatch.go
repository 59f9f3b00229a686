// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/memguard/memguard-go/memguard/leak"
)

// leakWatch follows the goroutines, finalizers and cleanups of the calling
// process. The goroutines are looked at in a goroutine of its own: that takes
// some microseconds for each of them. The queues are read in the tick's.
type leakWatch struct {
	sampler leak.Sampler
	quit    chan struct{}
	done    chan struct{}
	leaks   atomic.Pointer[Leaks]
	failed  atomic.Pointer[Blind] // why the last look saw less than it should

	// Of the goroutine that samples.
	stacks   Leaks     // the last that was seen of them
	stacksAt time.Time // when they may be looked at again

	// Of the tick's goroutine.
	queues   *leak.Queues
	queuesAt time.Time
	verdicts Queues
	blind    Blind // why the queues are not seen; What is empty while they are
}

const (
	// queuesEvery is how often the queues are read: leak.Queues wants a second,
	// and a timer may be early.
	queuesEvery = 900 * time.Millisecond
	// pinnedLeast is what stacks must hold until somebody looks whose they are.
	pinnedLeast = 32 << 20
	stacksEvery = time.Minute
	// stacksShare bounds what that costs as a part of the time, as leak.Sampler
	// bounds its own.
	stacksShare = 500
)

// newLeakWatch arms the finalizers' probe. start begins to follow the goroutines.
func newLeakWatch() *leakWatch {
	return &leakWatch{quit: make(chan struct{}), done: make(chan struct{}), queues: leak.NewQueues()}
}

// start begins to follow the goroutines. It must be called once.
func (w *leakWatch) start() { go w.run() }

// stop ends what start began, and waits for a look that is under way. No fill
// may follow.
func (w *leakWatch) stop() {
	close(w.quit)
	<-w.done
	w.queues.Close()
}

// run looks once in each of the sampler's intervals, and not at the start: a
// program that is over soon has no leak.
func (w *leakWatch) run() {
	defer close(w.done)
	timer := time.NewTimer(leak.DefaultEvery)
	defer timer.Stop()
	for {
		select {
		case <-w.quit:
			return
		case <-timer.C:
		}
		w.failed.Store(w.look())
		timer.Reset(max(time.Until(w.sampler.Next()), leak.DefaultEvery)) // also if there is no next time, after a panic
	}
}

const blindGoroutines = "goroutines"

// look takes one sample, and says what went wrong.
func (w *leakWatch) look() (blind *Blind) {
	defer func() {
		if p := recover(); p != nil { // a defect of ours must not be the service's end
			blind = &Blind{blindGoroutines, fmt.Sprint("panic: ", p)}
		}
	}()
	if _, err := w.sampler.Sample(); err != nil {
		blind = &Blind{blindGoroutines, err.Error()}
	}
	if err := w.lookAtStacks(); err != nil {
		blind = &Blind{blindGoroutines, err.Error()}
	}
	seen := w.stacks
	seen.Time, seen.Verdicts = time.Now(), w.sampler.Verdicts()
	w.leaks.Store(&seen)
	return blind
}

// lookAtStacks finds whose the stacks are and which are pinned, if they are worth
// it.
func (w *leakWatch) lookAtStacks() error {
	total, start := leak.StackMetrics()
	w.stacks.StackStart = Bytes{}
	if start > 0 {
		w.stacks.StackStart = Known(start)
	}
	began := time.Now()
	switch {
	case total < pinnedLeast:
		w.stacks.Pinned, w.stacks.Deepest = nil, nil
		return nil
	case began.Before(w.stacksAt):
		return nil
	}
	snap, err := leak.Take()
	if err != nil {
		return err
	}
	uses := snap.Stacks(total)
	w.stacks.Pinned = pinnedOf(uses)
	if len(uses) > 0 {
		w.stacks.Deepest = &uses[0]
	}
	w.stacksAt = time.Now().Add(max(stacksEvery, stacksShare*time.Since(began)))
	return nil
}

// pinnedOf sums up the pinned ones of stacks, which are sorted by size.
func pinnedOf(stacks []leak.StackUse) *Pinned {
	p := new(Pinned)
	for _, u := range stacks {
		if !u.Pinned {
			continue
		}
		if p.Largest == nil {
			p.Largest = u.Cluster
		}
		p.Goroutines += u.Cluster.Count
		p.Bytes += u.Bytes
	}
	return p
}

// fill puts into dst what is known, and once a second reads the queues for it.
// While all is well it allocates nothing.
func (w *leakWatch) fill(dst *Sample) {
	dst.Leaks = w.leaks.Load()
	if b := w.failed.Load(); b != nil {
		dst.Blind = append(dst.Blind, *b)
	}
	if since := dst.Time.Sub(w.queuesAt); since >= queuesEvery || since < 0 {
		w.queuesAt = dst.Time
		w.readQueues()
	}
	if w.blind.What != "" {
		dst.Queues = nil
		dst.Blind = append(dst.Blind, w.blind)
		return
	}
	dst.Queues = &w.verdicts
}

const blindQueues = "finalizers and cleanups"

func (w *leakWatch) readQueues() {
	defer func() {
		if p := recover(); p != nil {
			w.blind = Blind{blindQueues, fmt.Sprint("panic: ", p)}
		}
	}()
	var err error
	w.verdicts.Finalizers, w.verdicts.Cleanups, err = w.queues.Tick()
	if w.blind = (Blind{}); err != nil {
		w.blind = Blind{blindQueues, err.Error()}
	}
}
