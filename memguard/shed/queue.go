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
	queueAll   = 4096    // and no more than that
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
		most = int(min(max(l.core.room()*queueShare/l.core.connection, queueLeast), queueAll))
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

// dispatch answers who has waited long enough, and who fits. tend does it, and
// Update.
func (l *Limiter) dispatch(now time.Duration) {
	why := l.next(now)
	q := &l.queue
	q.waiting = slices.DeleteFunc(q.waiting, func(w *waiter) bool {
		if w.reason != Share {
			w.reason = why // of who comes first it is that of all behind
		}
		if now < w.until || w.reason == SlowStart && now < w.slow {
			return false
		}
		w.route.refused++
		close(w.done)
		return true
	})
}

// next lets those in who come first, as long as they fit, and says why the next one
// does not. By the window of slow start
// that is one each time: as it opens it lets in what comes, little by little, and not
// a queue at once.
func (l *Limiter) next(now time.Duration) (why Reason) {
	q, c := &l.queue, &l.core
	for i, byWindow := 0, false; i < len(q.waiting); {
		w := q.waiting[i]
		if !c.near && c.bounded(now) && c.inFlight > 0 && !c.fits(w.route) {
			if byWindow {
				return SlowStart
			}
			byWindow = true
		}
		switch w.reason = c.admit(now, w.route, w.priority); w.reason {
		case "":
			w.unit, w.gen = l.unit(w.route)
			close(w.done)
			q.waiting = slices.Delete(q.waiting, i, i+1)
		case Share:
			i++ // others are not to wait for it
		default:
			return w.reason // the rest shall not overtake
		}
	}
	return ""
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
