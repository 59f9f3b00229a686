// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach"
)

// plan says when a life is to be looked at next, from when on it may be.
func (w *Watcher) plan(l *life, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.due, l.busy = at, false
	nudge(w.wake)
}

// next is the life that is due, or how long to wait for one.
func (w *Watcher) next() (l *life, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, s := range w.slots {
		if s.life != nil && !s.life.busy && (l == nil || s.life.due.Before(l.due)) {
			l = s.life
		}
	}
	if l == nil {
		return nil, time.Hour
	}
	if wait = l.due.Sub(now); wait > 0 {
		return nil, wait
	}
	l.busy = true
	return l, 0
}

// loop looks at what is due. Where a look hangs, another loop takes over, and this
// one ends when the look returns.
func (w *Watcher) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l, wait := w.next()
		if l == nil {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			case <-timer.C:
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		hung := time.AfterFunc(hangsAfter, func() {
			l.set(srcKernel, Failed, "a look at it has not returned for "+hangsAfter.String())
			w.loop(ctx)
		})
		begin := time.Now()
		next := l.look()
		now := time.Now()
		over := !hung.Stop()
		w.mu.Lock()
		if took := now.Sub(begin); took > 20*time.Microsecond { // else it was left to the agent
			// The least of late: what else the machine had to do is not its cost.
			w.cost = min(took, w.cost+w.cost/16+time.Microsecond)
		}
		if next >= w.cfg.Interval {
			next = max(next, w.rest())
		}
		l.due, l.busy = now.Add(next), false
		if next >= w.cfg.Interval {
			// On a grid, so that targets at rest are looked at together and the machine
			// is woken once for all of them: with every time that it is, the runtime's
			// monitor thread wakes some fifty times before it rests too (runtime/proc.go,
			// sysmon).
			grid := w.cfg.Interval
			if next > grid {
				grid /= 4
			}
			l.due = l.due.Add(-(l.due.Sub(w.born) % grid))
		}
		w.mu.Unlock()
		if over {
			nudge(w.wake)
			return
		}
	}
}

// restShare is the part of a core that all looks at rest may take together, and
// restMost how many intervals apart they are at most for its sake: many targets, or
// a machine that has too much to do, are looked at less often.
const (
	restShare = 75
	restMost  = 10
)

// rest is the time between two looks at rest that so many targets allow. The caller
// holds mu.
func (w *Watcher) rest() time.Duration {
	lives := time.Duration(0)
	for _, s := range w.slots {
		if s.life != nil {
			lives++
		}
	}
	return min(lives*w.cost*restShare, restMost*w.cfg.Interval)
}

// While the service's own guard answers, it is looked at from outside this seldom,
// unless its limit is near, or it is new.
const (
	outsideRest  = 10 // intervals
	outsideFirst = 5 * time.Second
)

// look looks at the process once, and says when to look again.
func (l *life) look() (next time.Duration) {
	next = time.Minute // after a panic
	defer l.contain("a look", func() {})
	now := time.Now()
	l.join(now)
	l.mu.Lock()
	rest := l.w.cfg.Interval
	skip := l.agent.answers(now, rest) && l.period >= rest && now.Before(l.outside) && now.Sub(l.begun) > outsideFirst
	if !skip {
		l.outside = now.Add(outsideRest * rest)
	}
	l.mu.Unlock()
	if skip {
		return rest
	}
	return l.lookOutside(now)
}

// lookOutside looks from outside.
func (l *life) lookOutside(now time.Time) time.Duration {
	select {
	case l.eye <- struct{}{}:
	default:
		return 5 * time.Millisecond // it is being walked
	}
	if l.source == nil {
		l.unlock()
		return time.Hour // it could not be opened; its end will be told
	}
	if l.target == nil && l.whyNot != nil && !l.notGo && now.Sub(l.opened) >= l.retry {
		l.retry = 2 * l.retry
		l.opened = now
		go l.reopen()
	}
	err := l.source.Read(&l.reading)
	cost := time.Since(now)
	if err != nil {
		l.unlock()
		nudge(l.alarm)
		return 100 * time.Millisecond // if it lives all the same
	}
	l.levels.look(now, l.near())
	l.boxes.look(l.PID, now.Sub(l.begun))
	sample := l.reading
	sample.Blind = slices.Clone(sample.Blind)
	canWalk, mayAsk := l.target != nil, !l.notGo
	l.unlock()
	l.sourcesOf(&sample)
	l.judged(&sample, cost)
	if canWalk {
		l.walkIfDue(now)
	} else if mayAsk {
		l.askHeapIfDue(now)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.period
}

// near reports whether the limit is so near that looks come closer.
func (l *life) near() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.period < l.w.cfg.Interval
}

// judged takes in a sample.
func (l *life) judged(s *memguard.Sample, cost time.Duration) {
	ledger := memguard.NewLedger(s)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sample, l.ledger = *s, ledger
	l.ticks++
	if changed := l.judge.Step(s); changed || len(l.standing) > 0 {
		l.tell(s.Time)
	}
	l.paced(ledger, undroppable(&s.Cgroup), s.Time, cost)
}

// paced takes a ledger into the timeline and the pace. The caller holds mu.
func (l *life) paced(ledger *memguard.Ledger, used memguard.Bytes, at time.Time, cost time.Duration) {
	l.slot.timeline.add(at, l.PID, ledger)
	var limit memguard.Bytes
	if ledger.Cgroup != nil {
		limit = ledger.Cgroup.Limit
	}
	l.period = l.pace.next(at, used, limit, l.w.cfg.Interval, cost)
}

// tell compares what the judge says with what was told. While the service's own
// guard answers it tells itself, and what stands here is told when it does no
// longer. The caller holds mu.
func (l *life) tell(at time.Time) {
	now := map[memguard.ID]memguard.Finding{}
	if !l.agent.answers(time.Now(), l.w.cfg.Interval) {
		for _, f := range l.judge.Findings() {
			now[f.ID] = f
			if old, ok := l.standing[f.ID]; !ok || old.Severity != f.Severity {
				l.say(memguard.Event{Time: at, Kind: memguard.Raised, Finding: f})
			}
		}
		for _, d := range docs { // in an order that is always the same
			f, stood := l.standing[d.ID]
			if _, stands := now[d.ID]; stood && !stands {
				l.say(memguard.Event{Time: at, Kind: memguard.Cleared, Finding: f})
			}
		}
	}
	l.standing = now
}

var docs = memguard.Docs()

// say numbers and keeps an event of the judge. The caller holds mu.
func (l *life) say(e memguard.Event) {
	l.guard++
	e.Seq = l.guard
	l.kinds[e.Kind]++
	l.heard(e)
}

// toldKept is how many events of guards go into the evidence.
const toldKept = 128

// heard passes an event of a guard on. The caller holds mu.
func (l *life) heard(e memguard.Event) {
	if len(l.told) >= toldKept {
		l.told = slices.Delete(l.told, 0, 1)
	}
	l.told = append(l.told, e)
	l.w.event(l.slot, Event{Time: e.Time, PID: l.PID, Kind: Guarded, Text: sentence(&e), Guard: &e})
}

// sourcesOf says of the kernel's files and of the runtime's memory how they were read.
func (l *life) sourcesOf(s *memguard.Sample) {
	state, why := OK, ""
	var blind error
	for _, b := range s.Blind {
		switch b.What {
		case "process", "RSS", "cgroup", "cgroup usage", "start time":
			if state == OK {
				state, why = Failed, b.What+": "+b.Why
			}
		case "runtime":
			blind = errors.New(b.Why)
		}
	}
	l.set(srcKernel, state, why)
	if p := l.prints(); p != nil {
		state, why := p.state()
		l.set(srcGctrace, state, why)
	}
	if s.Runtime.Origin == attach.FromAttach {
		l.failures = 0
		l.set(srcAttach, OK, "")
		return
	}
	if blind == nil || l.notGo || l.lock(l.ctx) != nil {
		return
	}
	lost, none := false, l.target == nil
	if !none {
		nudge(l.alarm) // it may run another program
		if l.failures++; l.failures >= 3 {
			lost, l.failures = true, 0
			l.opened, l.retry = time.Now(), time.Second
		}
	}
	l.unlock()
	if lost || none {
		l.set(srcAttach, Failed, blind.Error())
	}
	if lost {
		go l.reopen()
	}
}

// reopen opens the runtime's memory anew.
func (l *life) reopen() {
	leave, err := enter(l.ctx, l.w.opens, openFor)
	if err != nil {
		return
	}
	defer leave()
	if l.lock(l.ctx) != nil {
		return
	}
	defer l.unlock()
	if l.ctx.Err() != nil {
		return
	}
	if old := l.target; old != nil {
		select {
		case <-l.holdEnded(): // it uses the target
			_ = old.Close()
			l.target = nil
		default:
			return // it is held: what cannot be read now may be once it ends
		}
	}
	l.openTarget()
}

// undroppable is what the kernel cannot take back of a cgroup's usage by dropping
// page cache and reclaimable slab: what counts towards a kill.
func undroppable(c *memguard.Cgroup) memguard.Bytes {
	usage, ok := c.Usage.Get()
	active, ok2 := c.ActiveFile.Get()
	inactive, ok3 := c.InactiveFile.Get()
	if !ok || !ok2 || !ok3 {
		return memguard.Bytes{}
	}
	slab, _ := c.Reclaimable.Get() // version 1 does not tell
	for _, n := range []uint64{active, inactive, slab} {
		usage -= min(usage, n)
	}
	return memguard.Known(usage)
}
