// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"math"
	"slices"
	"time"
)

const (
	queueMost  = 64 // waiting is not free: each has a goroutine, and what it came with
	queueLeast = 4
	queueShare = 1. / 16 // of the room, far from the limit; each is as good as a connection
	tendEvery  = time.Millisecond
	leavesHalf = 250 * time.Millisecond

	leavesEvery = 10 * time.Millisecond
)

// waiter is work that waits for room. It is answered by closing done, after
// reason, or unit and gen, were set.
type waiter struct {
	route    *route
	priority Priority
	until    time.Duration
	slow     time.Duration // instead, while it is slow start that keeps it waiting
	done     chan struct{}

	reason Reason
	unit   *unit
	gen    uint64
}

// queue is the work that waits, the higher priority first, and the older first.
type queue struct {
	waiting []*waiter
	tended  bool

	left   int // units of work, since leftAt
	leftAt time.Duration
	rate   float64 // of work that leaves, per second, decaying
}

// open reports whether one more may wait. For room to be left by others there
// may wait as many as leave in that time; for a collection to end, more: who is
// sent away at once comes back at once, and takes the CPU that the collection needs.
// Far from the limit a burst may wait, for there is memory to wait in.
func (l *Limiter) open(now time.Duration, reason Reason, wait time.Duration) bool {
	q := &l.queue
	if dt := now - q.leftAt; dt >= leavesEvery {
		old := math.Exp2(-float64(dt) / float64(leavesHalf))
		q.rate = q.rate*old + float64(q.left)/dt.Seconds()*(1-old)
		q.left, q.leftAt = 0, now
	}
	most := queueMost
	if reason == SlowStart {
		most = max(int(l.core.room()*queueShare/l.core.connection), queueLeast)
	} else if reason != Brake {
		most = min(max(int(q.rate*wait.Seconds()), queueLeast), queueMost)
	}
	return len(q.waiting) < most
}

func (q *queue) push(w *waiter) {
	at := len(q.waiting)
	for at > 0 && share[q.waiting[at-1].priority] < share[w.priority] {
		at--
	}
	q.waiting = slices.Insert(q.waiting, at, w)
}

// remove takes w out, if it was not answered yet.
func (q *queue) remove(w *waiter) bool {
	at := slices.Index(q.waiting, w)
	if at < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, at, at+1)
	return true
}

// dispatch answers who has waited long enough, and who fits.
func (l *Limiter) dispatch(now time.Duration) {
	q := &l.queue
	full := false // for those who come first; then the rest shall not overtake
	var why Reason
	q.waiting = slices.DeleteFunc(q.waiting, func(w *waiter) bool {
		// A window that opens lets in what comes, little by little, not a queue at once.
		if !full && w.reason == SlowStart && !l.core.near && !l.core.fits(w.route.cost) {
			full, why = true, SlowStart
		}
		if !full {
			if w.reason = l.core.admit(now, w.route, w.priority); w.reason == "" {
				w.unit, w.gen = l.unit(w.route)
				close(w.done)
				return true
			}
			full, why = w.reason != Share, w.reason
		} else {
			w.reason = why
		}
		if now < w.until || w.reason == SlowStart && now < w.slow {
			return false
		}
		w.route.refused++
		close(w.done)
		return true
	})
}

// tend looks after the queue while there is one. Those who wait for a collection
// to end depend on it: nobody enters and nobody leaves then.
func (l *Limiter) tend() {
	for {
		time.Sleep(tendEvery)
		now := l.now()
		l.mu.Lock()
		l.lookLocked(now)
		l.dispatch(now)
		if len(l.queue.waiting) == 0 {
			l.queue.tended = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}
