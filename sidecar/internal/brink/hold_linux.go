// SPDX-License-Identifier: Apache-2.0

package brink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup"
	"golang.org/x/sys/unix"
)

// Hold holds the kernel's kills in the memory cgroup of one process (version 1).
type Hold struct {
	// State is called with what is so from now on: whether kills are, or would be, held,
	// whether the setting stands, and both in words for a person. Held is called when a
	// kill that was held is let go. They may not block.
	State func(ok, set bool, text string)
	Held  func(took time.Duration, why string)

	pid    int
	keeper *Keeper
	bound  time.Duration
	group  *group

	woken  chan struct{} // by the kernel
	event  *os.File      // eventfd(2) by which; nil before the first look
	limit  uint64        // that it was told
	lease  *lease        // while the setting stands
	due    bool          // it is to be taken back, which has failed
	seen   time.Time     // when the process was last seen to be in the group
	full   time.Time     // since when looks find nothing to drop at the limit; zero: they do not
	hits   uint64        // of the limit by then
	rest   time.Duration // after the last hold
	resume time.Time     // when the setting may stand again; zero: at once
}

// The setting stands while the group uses more than setAbove of its limit, until it
// uses less than unsetBelow. Page cache counts: when it is dropped is the kernel's to
// decide.
func setAbove(limit uint64) uint64   { return limit / 4 * 3 }
func unsetBelow(limit uint64) uint64 { return limit / 8 * 5 }

// How often is looked beside what the kernel tells, and how long a group is left alone
// after a hold that killed nobody we follow: twice as long each time.
const (
	lookIdle  = time.Second
	lookSet   = 50 * time.Millisecond
	failsFor  = 2 * lookSet
	restFirst = 10 * time.Second
	restMost  = 5 * time.Minute
)

// NewHold gets ready to hold the kills in the group of a process, for bound each. It
// sets nothing yet. The error wraps ErrNot when they may not be held.
func NewHold(pid int, k *Keeper, bound time.Duration) (_ *Hold, err error) {
	g, err := openGroup(pid, k)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if err := k.start(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNot, err)
	}
	if !k.own(g.id) {
		return nil, fmt.Errorf("%w: %s: they are held already, for another process", ErrNot, g.dir.Name())
	}
	return &Hold{pid: pid, keeper: k, bound: bound, group: g, woken: make(chan struct{}, 1)}, nil
}

// dir is the directory of the group.
func (h *Hold) dir() string { return h.group.dir.Name() }

// Run holds kills until ctx ends; the group is as it was when it returns. For each of
// them it calls read, whose context ends with the bound, and lets the kill go when it
// returns or its context ends, whichever is first; read is not called again before it
// has returned. An error is that no kill can be held any more.
func (h *Hold) Run(ctx context.Context, read func(context.Context)) (err error) {
	defer h.keeper.disown(h.group.id)
	defer h.group.close()
	defer func() {
		h.unhear()
		for range lookIdle / lookSet { // then it is the keeper's
			if h.unset() {
				return
			}
			time.Sleep(lookSet)
		}
		err = errors.Join(err, fmt.Errorf("brink: %s of %s is left to the keeper", oomControl, h.dir()))
	}()
	var over error
	for {
		next := lookSet
		if over == nil {
			next, over = h.look(ctx, read)
		}
		if over != nil && h.unset() { // it does not end while the setting stands
			if !errors.Is(over, cgroup.ErrGone) {
				h.State(false, false, over.Error())
			}
			return over
		}
		select {
		case <-ctx.Done():
			return nil
		case <-h.woken:
		case <-h.lost():
			// The keeper took the setting back, or has gone, and we must.
			if h.unset() {
				h.later()
				h.State(false, false, "its keeper has ended, or found it late: kills are not held for "+h.rest.String())
			}
		case <-time.After(next):
		}
	}
}

// lost is closed when the setting has no keeper.
func (h *Hold) lost() <-chan struct{} {
	if h.lease == nil || h.due {
		return nil
	}
	return h.lease.lost
}

// look looks at the group once, and does what is due.
func (h *Hold) look(ctx context.Context, read func(context.Context)) (next time.Duration, err error) {
	if h.due {
		if !h.unset() {
			return lookSet, nil
		}
		h.later()
		h.State(true, false, "kills are not held for "+h.rest.String())
	}
	r, err := h.group.Read()
	if errors.Is(err, cgroup.ErrGone) {
		return 0, fmt.Errorf("brink: %s: %w", h.dir(), err)
	}
	limit, bounded := r.Limit.Value()
	usage, known := r.Usage.Value()
	if err != nil || !bounded || !known {
		if h.lease != nil && h.unset() {
			h.State(false, false, "its limit or its usage is unknown")
		}
		return lookIdle, nil
	}
	if limit != h.limit || h.event == nil {
		if err := h.listen(limit); err != nil {
			return 0, err
		}
		if h.lease == nil {
			h.State(true, false, h.far())
		}
	}
	if h.lease == nil {
		if !h.resume.IsZero() && time.Now().Before(h.resume) {
			return lookIdle, nil
		}
		if usage >= setAbove(limit) {
			return lookSet, h.set(usage, limit)
		}
		if h.rest = 0; !h.resume.IsZero() {
			h.resume = time.Time{}
			h.State(true, false, h.far())
		}
		return lookIdle, nil
	}
	if time.Since(h.seen) >= lookIdle {
		if h.group.left(h.pid) {
			return 0, fmt.Errorf("%w: the process has left %s", ErrNot, h.dir())
		}
		h.seen = time.Now()
	}
	waits, err := h.group.full()
	if err != nil {
		return 0, err
	}
	switch {
	case waits:
		h.hold(ctx, read, "its processes wait for memory")
	case h.fails(&r, usage, limit):
		h.hold(ctx, read, "calls that need memory fail")
	case usage < unsetBelow(limit):
		if h.unset() {
			h.State(true, false, h.far())
		}
	default:
		return lookSet, nil
	}
	return lookIdle, nil
}

// fails reports whether system calls that need memory seem to fail. Where page faults
// would wait nothing tells of them, but that the limit is hit for a while with nothing
// left to drop.
func (h *Hold) fails(r *cgroup.Reading, usage, limit uint64) bool {
	const batch = 64 << 12 // the kernel charges 64 pages at a time, and less only where they do not fit
	hits, _ := r.Events.Max.Value()
	switch {
	case usage+batch < limit || undroppable(r) < limit-limit/64:
		h.full = time.Time{}
	case h.full.IsZero():
		h.full, h.hits = time.Now(), hits
	default:
		return hits > h.hits && time.Since(h.full) >= failsFor
	}
	return false
}

// undroppable is what the kernel cannot take back by dropping page cache and slab;
// version 1 does not tell of slab.
func undroppable(r *cgroup.Reading) uint64 {
	n, _ := r.Usage.Value()
	for _, f := range []cgroup.Field{cgroup.ActiveFile, cgroup.InactiveFile, cgroup.SlabReclaimable} {
		cache, _ := r.Stat.Bytes(f)
		n -= min(n, cache)
	}
	return n
}

// set has kills held from now on. What was true of the group when it was opened must
// be so still.
func (h *Hold) set(usage, limit uint64) error {
	now, err := openGroup(h.pid, h.keeper)
	if err == nil {
		moved := now.id != h.group.id
		now.close()
		if moved {
			return fmt.Errorf("%w: the process has left %s", ErrNot, h.dir())
		}
		h.lease, err = h.keeper.take(h.group, h.bound)
	}
	if err != nil {
		h.later()
		h.State(false, false, err.Error())
		return nil
	}
	if err := h.group.set("1"); err != nil {
		return err
	}
	h.full, h.seen = time.Time{}, time.Now()
	h.State(true, true, fmt.Sprintf("%s of %s is set: it uses %d of %d bytes", oomControl, h.dir(), usage, limit))
	return nil
}

// unset lets the kernel kill again. It is false where that fails: it is tried at each
// look then, and the keeper has it still.
func (h *Hold) unset() bool {
	if h.lease == nil {
		return true
	}
	err := h.group.restore()
	if h.due = err != nil; h.due {
		h.State(false, true, fmt.Sprintf("%s of %s is set: it cannot be taken back: %v", oomControl, h.dir(), err))
		return false
	}
	h.lease.leave()
	h.lease = nil
	return true
}

// hold has the process read, and lets the kernel kill.
func (h *Hold) hold(ctx context.Context, read func(context.Context), why string) {
	begin := time.Now()
	limited, cancel := context.WithTimeout(ctx, h.bound)
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		read(limited)
	}()
	select {
	case <-over:
	case <-limited.Done(): // whatever the reading does: the bound is a promise
	case <-h.lost():
	}
	h.Held(time.Since(begin), why) // first: the end may be seen at once
	free := h.unset()
	cancel()
	<-over
	if free {
		h.later()
		h.State(true, false, "a kill was held; kills are not held for "+h.rest.String())
	}
}

// later leaves the group alone for a while.
func (h *Hold) later() {
	h.rest = min(max(2*h.rest, restFirst), restMost)
	h.resume = time.Now().Add(h.rest)
}

// far says what is so while nothing is set.
func (h *Hold) far() string {
	return fmt.Sprintf("%s of %s will be set above %d bytes", oomControl, h.dir(), setAbove(h.limit))
}

// listen has the kernel wake us when the group runs out of memory, and when its usage
// passes where the setting is to stand. The kernel counts that in batches of 128 pages
// a processor (mm/memcontrol-v1.c, THRESHOLDS_EVENTS_TARGET).
func (h *Hold) listen(limit uint64) error {
	h.unhear()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	err = errors.Join(h.group.hear(fd, oomControl, ""), h.group.hear(fd, usageFile, strconv.FormatUint(setAbove(limit), 10)))
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("%w: %w", ErrNot, err)
	}
	h.event, h.limit = os.NewFile(uintptr(fd), "eventfd"), limit
	go func(f *os.File) {
		var b [8]byte
		for {
			if _, err := f.Read(b[:]); err != nil {
				return
			}
			select {
			case h.woken <- struct{}{}:
			default:
			}
		}
	}(h.event)
	return nil
}

func (h *Hold) unhear() {
	if h.event != nil {
		_ = h.event.Close()
		h.event = nil
	}
}
