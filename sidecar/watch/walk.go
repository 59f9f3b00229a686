// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/memguard/memguard-go/sidecar/attach"
)

// A walk of all goroutines and spans takes at most a thousandth of a core at rest,
// and near the limit a hundredth: it may be the last one. Where the end cannot be held
// it is sure to be, and while memory rushes to the limit it may take a twentieth.
const (
	walkFirst     = 2 * time.Second // after the beginning
	walkRest      = 30 * time.Second
	walkShare     = 1000
	walkNear      = 250 * time.Millisecond
	walkShareNear = 100
	walkShareLast = 20
	walkFor       = 40 * time.Second // attach gives up before
	walkAgain     = time.Second      // who asks again within it gets the last one
	walkAgainPart = 20               // or within so many times what the last one took
)

// Poll is attach.How.Way of a snapshot that was taken before the end, because the
// end was not held.
const Poll = "poll"

// walkIfDue walks aside if it is time. The caller does not have the eye.
func (l *life) walkIfDue(now time.Time) {
	parts := attach.Spans | attach.Goroutines
	holds := l.holds()
	if !holds {
		parts = everything // it may be all that is left
	}
	l.mu.Lock()
	gap := max(walkRest, walkShare*l.walkTook)
	switch near := l.period < l.w.cfg.Interval/2; {
	case near && l.pace.rush && !holds:
		gap = max(lookFastest, walkShareLast*l.walkTook)
	case near:
		gap = max(walkNear, walkShareNear*l.walkTook)
	}
	at := l.walkAt.Add(gap)
	if l.walkAt.IsZero() {
		at = l.begun.Add(walkFirst)
	}
	due := !l.walking && !now.Before(at)
	if due {
		l.walking = true
	}
	l.mu.Unlock()
	if !due {
		return
	}
	go func() {
		_, _ = l.walk(l.ctx, parts, 0)
		l.mu.Lock()
		l.walking = false
		l.mu.Unlock()
	}()
}

// walk looks at all of the runtime, once at a time of all targets. One that is
// younger than that is not taken again.
func (l *life) walk(ctx context.Context, parts attach.Parts, young time.Duration) (*attach.Snapshot, error) {
	leave, err := enter(ctx, l.w.walks, walkFor)
	if err != nil {
		return nil, err
	}
	defer leave()
	l.mu.Lock()
	last := l.walked
	fresh := last != nil && l.walkParts&parts == parts && time.Since(l.walkAt) < max(young, min(young, 1)*walkAgainPart*l.walkTook)
	l.mu.Unlock()
	if fresh {
		return last, nil
	}
	if err := l.lock(ctx); err != nil {
		return nil, err
	}
	defer l.unlock()
	if l.target == nil {
		return nil, fmt.Errorf("%w: the runtime cannot be read: %w", ErrNone, l.whyNot)
	}
	begin := time.Now()
	s, err := l.target.Snapshot(ctx, parts)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.walkAt, l.walkTook = time.Now(), time.Since(begin)
	if err != nil { // what was read all the same tells less than the walk before
		return nil, err
	}
	l.walked, l.walkParts = s, parts
	return s, nil
}

// Snapshot looks at the target's runtime now, spans and goroutines included; one
// look at a time, and who asks again at once gets the last one, which is not to be
// changed.
func (w *Watcher) Snapshot(ctx context.Context, name string) (*attach.Snapshot, error) {
	l, err := w.life(name)
	if err != nil {
		return nil, err
	}
	s, err := l.walk(ctx, everything, walkAgain)
	if err != nil {
		return nil, fmt.Errorf("watch: target %q: %w", name, err)
	}
	return s, nil
}

// Profile writes a profile in pprof's format: "heap" or "goroutine". It is read from
// the process's memory, else asked of its rule's pprof URL.
func (w *Watcher) Profile(ctx context.Context, name, kind string, out io.Writer) error {
	if kind != "heap" && kind != "goroutine" {
		return fmt.Errorf("watch: profile %q: %w: there are heap and goroutine", kind, ErrNone)
	}
	l, err := w.life(name)
	if err != nil {
		return err
	}
	s, err := l.walk(ctx, everything, walkAgain)
	if err == nil {
		if kind == "heap" {
			err = s.WriteHeap(out)
		} else {
			err = s.WriteGoroutines(out)
		}
		if err == nil {
			return nil
		}
	}
	w.mu.Lock()
	url := w.pprofOf(l.slot.rule)
	w.mu.Unlock()
	if url == "" || ctx.Err() != nil {
		return fmt.Errorf("watch: target %q: %s profile: %w", name, kind, err)
	}
	b, err2 := w.http.profile(ctx, url, kind, mostProfile)
	if err2 != nil {
		l.set(srcPprof, Failed, err2.Error())
		return fmt.Errorf("watch: target %q: %s profile: %w; %w: pprof: %w", name, kind, err, ErrNone, err2)
	}
	l.set(srcPprof, OK, "")
	_, err = out.Write(b)
	return err
}
