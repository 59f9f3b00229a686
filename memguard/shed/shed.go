// SPDX-License-Identifier: Apache-2.0

// Package shed admits work by the memory that it holds. A service that takes in
// more than fits under its memory limit is killed with everything it had taken
// in; one that refuses the surplus answers the rest.
//
//	l := shed.New(shed.Config{})
//	g := memguard.Start(memguard.Config{Shed: l}) // tells it of the memory
//	defer g.Close()
//	srv := &http.Server{Handler: l.Handler(mux), ConnState: l.ConnState, ReadHeaderTimeout: 10 * time.Second}
//	ln, err := net.Listen("tcp", addr)
//	...
//	err = srv.Serve(l.Listener(ln)) // until srv.Shutdown, at SIGTERM: see examples/http
//
// Work that does not come by HTTP asks for itself:
//
//	leave, err := l.Enter(ctx, shed.Work{Route: "resize"})
//	if err != nil {
//		return err // a *shed.Refusal, or ctx has ended
//	}
//	defer leave()
//
// The limiter learns at each garbage collection how many bytes a unit of work of
// each route holds, and admits as many as fit: see core.go for the rules and
// learn.go for the learning. It needs somebody who calls [Limiter.Update]. While
// nobody does, or where there is no limit, it admits everything and counts.
package shed

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Config says how a [Limiter] treats work. The zero Config is fine.
type Config struct {
	// Work names a request's route and priority, for [Limiter.Handler]. If it
	// leaves the route empty, or is nil, the route is the pattern that the request
	// matches in the http.ServeMux around the handler, or directly below it: below
	// anything else all is one route (see [Limiter.Handler]). It must not make
	// up routes from what strangers send, for only so many are told apart.
	Work func(*http.Request) Work

	// Wait is how long Enter waits for room that is about to come; less than 0 is
	// not at all. 0 is 20 ms, and up to 250 ms for a burst far from the limit, while
	// it is yet to show how much memory the first of it hold.
	Wait time.Duration
}

const (
	waitDefault   = 20 * time.Millisecond
	waitSlowStart = 250 * time.Millisecond
)

// Priority says who is refused first.
type Priority uint8

// The priorities. Low may fill 60 % of the memory that there is for work, Normal
// 90 %, and High all of it. Where the usage is at the limit nothing is admitted
// but ten units a second of High: health checks.
const (
	Normal Priority = iota
	Low
	High
)

// Work is one unit of work: a request, a job.
type Work struct {
	// Route is the kind of work: units of one route should hold about as much
	// memory as each other. At most 63 are told apart; what comes later, and
	// the empty name, is the route "other".
	Route    string
	Priority Priority

	// Wait is how long this unit may wait for room, if not Config.Wait: for a
	// job that has nobody waiting for its answer. Only so many may wait at once
	// (64 near the limit, and fewer where little leaves): the next is refused.
	Wait time.Duration
}

// Memory is what a [Limiter] needs to know of the process and its cgroup, in bytes.
type Memory struct {
	Limit  uint64 // what the kernel enforces; 0 is none: everything is admitted
	Usage  uint64 // charged against it, less page cache that can be dropped
	Must   uint64 // of Go's memory, what no collection frees: live heap as of the last one, unused span space, stacks, metadata
	Other  uint64 // of Usage, what is not Go's: C, kernel, neighbours
	Free   uint64 // of Usage, what Go holds free for new objects
	Margin uint64 // left free below the limit, for what arrives within one reaction; 0 is 4 % of it
	Cycles uint64 // completed garbage collections

	Allocated uint64 // by Go since the process began, garbage included; 0 is unknown
}

// Limiter admits work by the memory it holds. Its methods may be called from
// several goroutines.
type Limiter struct {
	work  func(*http.Request) Work
	wait  time.Duration
	slow  time.Duration // how long slow start may keep work waiting
	start time.Time
	clock atomic.Int64 // the time as of the last Update or admission: good enough for who is quiet

	mu      sync.Mutex // guards everything below; never held while calling out
	core    core
	look    standing[func() (uint64, bool)]
	looked  time.Duration
	spare   *unit
	queue   queue
	conns   map[*conn]struct{}
	refused struct{ connections, closed uint64 }

	refusing standing[int] // percent, by Refuse
}

// New makes a limiter that admits everything until its first [Limiter.Update].
func New(cfg Config) *Limiter {
	l := &Limiter{work: cfg.Work, wait: cfg.Wait, slow: cfg.Wait, start: time.Now(), core: newCore(), conns: map[*conn]struct{}{}}
	if l.wait == 0 {
		l.wait, l.slow = waitDefault, waitSlowStart
	}
	return l
}

// now is the time since the limiter was made, on the monotonic clock.
func (l *Limiter) now() time.Duration { return time.Since(l.start) }

// Update tells the limiter of the memory. The guard calls it at each tick; when
// nobody has for 5 s, nor has SetLook's function read the usage, everything is
// admitted (see [Snapshot.Blind]). Memory whose limit is 0 ends all bounds at once.
func (l *Limiter) Update(m Memory) {
	now := l.now()
	l.clock.Store(int64(now))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.core.update(now, m)
	l.dispatch(now)
}

// SetLook sets a function that reads the cgroup's usage, in the sense of
// [Memory.Usage], at once. Admission calls it once a millisecond at most near the
// limit or in a burst, and every 20 ms else: when the CPUs are busy, whoever calls
// Update comes late, and work does not.
// It must return soon and be safe for use by several goroutines. It is called until
// undo, which may be called at any time; of several the latest is: one guard may begin
// before another has ended.
func (l *Limiter) SetLook(look func() (usage uint64, ok bool)) (undo func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine := l.look.add(look)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.look.remove(mine)
	}
}

// Refuse has so many percent, 0 to 100, of each route's work refused from here on,
// whatever the memory, but for that of priority High: at 100 nothing else is
// admitted. Work that waits for room already is not asked again. It stands until
// undo, which may be called at any time; of several the latest counts. A guard with
// this limiter does it for an order.
func (l *Limiter) Refuse(percent int) (undo func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine := l.refusing.add(min(max(percent, 0), 100))
	l.core.refusing = l.refusing.latest()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.refusing.remove(mine)
		l.core.refusing = l.refusing.latest()
	}
}

// Refusing is how many percent of the work are refused by [Limiter.Refuse].
func (l *Limiter) Refusing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.core.refusing
}

const (
	lookEvery    = time.Millisecond      // near the limit, in a burst, and where work waits
	lookEveryFar = 20 * time.Millisecond // it takes longer to get there
	lookBurst    = 1. / 64               // of the room: what was let in since the last look, and is there still
)

// lookLocked reads the usage if that is due. It lets go of the lock meanwhile.
func (l *Limiter) lookLocked(now time.Duration) {
	c := &l.core
	look := l.look.latest()
	if look == nil || !c.known || now-l.looked < lookEvery {
		return
	}
	if now-l.looked < lookEveryFar && !c.near && len(l.queue.waiting) == 0 && min(c.pending[0], c.held) < c.room()*lookBurst {
		return
	}
	l.looked = now
	l.mu.Unlock()
	usage, ok := look()
	l.mu.Lock()
	if ok {
		l.core.see(now, usage)
	}
}

// unit is a unit of work in flight. Units are used again, and gen tells one use
// from the next.
type unit struct {
	route *route
	epoch int64
	gen   uint64
	next  *unit
}

// Enter asks to begin a unit of work. If it is admitted, leave must be called
// when the work has ended; calling it again does nothing. If it is refused, err
// is a [*Refusal], and [ErrRefused] in the sense of errors.Is.
//
// Enter waits for a short time where room is about to come: see [Config.Wait].
// If ctx ends meanwhile, err is its error.
//
// While nothing is in flight one unit is admitted, whatever the model says. With
// the usage at the limit nothing is, but for one unit after 100 ms and then one in
// a second at least: they set off the collection that frees the rest. Where even
// that leaves no room, for what fills the limit is no garbage, it is one after half
// a second, and twice as long each time, up to one in eight seconds.
func (l *Limiter) Enter(ctx context.Context, w Work) (leave func(), err error) {
	u, gen, reason, err := l.enter(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("shed: enter %s: %w", w.Route, err)
	}
	if reason != "" {
		return nil, &Refusal{Route: w.Route, Reason: reason, RetryAfter: reason.retryAfter()}
	}
	return func() { l.leave(u, gen) }, nil
}

func (l *Limiter) enter(ctx context.Context, w Work) (u *unit, gen uint64, reason Reason, err error) {
	w.Priority = min(w.Priority, High)
	now := l.now()
	l.clock.Store(int64(now))
	l.mu.Lock()
	l.lookLocked(now)
	r := l.core.route(w.Route)
	if reason = l.core.ordered(r, w.Priority); reason == "" {
		reason = l.core.admit(now, r, w.Priority)
	}
	if reason == "" {
		u, gen = l.unit(r)
		l.mu.Unlock()
		return u, gen, "", nil
	}
	wait, slow := w.Wait, w.Wait
	if wait == 0 {
		wait, slow = l.wait, l.slow
	}
	if wait <= 0 || !reason.passes() || !l.open(now, reason, wait) {
		r.refused++
		l.mu.Unlock()
		return nil, 0, reason, nil
	}
	waiting := &waiter{route: r, priority: w.Priority, until: now + wait, slow: now + slow, reason: reason, done: make(chan struct{})}
	l.queue.push(waiting)
	if !l.queue.tended {
		l.queue.tended = true
		go l.tend()
	}
	l.mu.Unlock()
	select {
	case <-waiting.done:
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.queue.remove(waiting) {
			r.refused++
			return nil, 0, "", ctx.Err()
		}
	}
	return waiting.unit, waiting.gen, waiting.reason, nil
}

// unit takes a unit for work that was admitted.
func (l *Limiter) unit(r *route) (*unit, uint64) {
	u := l.spare
	if u == nil {
		u = &unit{}
	} else {
		l.spare = u.next
	}
	u.route, u.epoch, u.next = r, l.core.epoch, nil
	return u, u.gen
}

func (l *Limiter) leave(u *unit, gen uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if u.gen != gen {
		return // left before
	}
	u.gen++
	l.core.leave(u.route, u.epoch)
	u.next, l.spare = l.spare, u
	l.queue.left++
	if len(l.queue.waiting) > 0 {
		l.next(l.now())
	}
}
