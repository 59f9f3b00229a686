// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// note puts an event into the stream and the black box. The callback and the log
// come later, without the lock. The intent is kept before the effect.
func (g *Guard) note(e Event) Event {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e = g.journal.add(e)
	g.proof.event(&e)
	if len(g.pending) == eventsKept { // a callback hangs: it will see the gap
		g.pending = slices.Delete(g.pending, 0, 1)
	}
	g.pending = append(g.pending, e)
	return e
}

// teller tells what was noted, in a goroutine of its own: a log that blocks (a
// pipe that nobody drains) or a callback that hangs must not stop the guard. One that
// ends the goroutine (runtime.Goexit, as t.FailNow does) gets another.
func (g *Guard) teller() {
	over := false
	defer func() {
		if over {
			close(g.told)
		} else {
			go g.teller()
		}
	}()
	for {
		g.tellAll()
		select {
		case <-g.news:
		case <-g.quiet:
			for g.tellAll() {
			}
			over = true
			return
		}
	}
}

// hush ends the telling, and waits until all was told: for a second, if somebody
// else's code hangs.
func (g *Guard) hush() {
	close(g.quiet)
	select {
	case <-g.told:
	case <-time.After(time.Second):
	}
}

// tellAll hands what was noted to the log and the callback, and reports whether
// that was anything.
func (g *Guard) tellAll() bool {
	if len(g.telling) == 0 {
		g.mu.Lock()
		g.telling, g.pending = g.pending, nil
		g.mu.Unlock()
	}
	told := len(g.telling) > 0
	for len(g.telling) > 0 {
		e := g.telling[0]
		g.telling = g.telling[1:]
		g.tellOne(e)
	}
	return told
}

func (g *Guard) tellOne(e Event) {
	defer g.tell(e) // also if the log ends this goroutine
	g.write(e)
}

// panicked tells of somebody's code that has panicked. It is not called where that
// has returned: without a panic it has ended its goroutine.
func panicked(where string, p any) Event {
	why := "it has ended its goroutine (runtime.Goexit)"
	if p != nil {
		why = fmt.Sprint("panic: ", p)
	}
	return Event{Time: time.Now(), Kind: Lost, Blind: Blind{What: where, Why: why}}
}

// callback is what is lost when the service's Event panics.
const callback = "event callback"

// tell hands an event to the callback.
func (g *Guard) tell(e Event) {
	if g.event == nil {
		return
	}
	returned := false
	defer func() {
		p := recover()
		if !returned && e.Blind.What != callback { // else it does not want to hear of it
			g.locked(func() { g.note(panicked(callback, p)) })
			g.nudge()
		}
	}()
	g.event(e)
	returned = true
}

// write logs an event.
func (g *Guard) write(e Event) {
	if g.log == nil {
		return
	}
	returned := false
	defer func() { // a handler of somebody else's
		p := recover()
		if !returned && !g.logLost {
			g.logLost = true // told once: it may do so at every line
			g.locked(func() { g.note(panicked("log", p)) })
			g.nudge()
		}
	}()
	level, message, attrs := e.logged()
	g.log.LogAttrs(context.Background(), level, "memguard: "+message, attrs...)
	returned = true
}

// logged is an event as a line of a log.
func (e *Event) logged() (slog.Level, string, []slog.Attr) {
	attrs := []slog.Attr{slog.String("event", string(e.Kind))}
	switch e.Kind {
	case Raised, Cleared, Saved:
		f := &e.Finding
		attrs = append(attrs, slog.String("finding", string(f.ID)))
		if e.Kind == Saved {
			return slog.LevelInfo, "evidence saved", append(attrs, slog.String("path", e.Path))
		}
		if e.Kind == Cleared {
			return slog.LevelInfo, "over: " + f.Summary, attrs
		}
		level := [...]slog.Level{Info: slog.LevelInfo, Warning: slog.LevelWarn, Critical: slog.LevelError}[f.Severity]
		return level, f.Summary, append(attrs, slog.String("severity", f.Severity.String()), slog.String("remedy", f.Remedy))
	case Lost:
		return slog.LevelWarn, e.Blind.What + ": " + e.Blind.Why, attrs
	case Died:
		level := slog.LevelInfo
		if e.Finding.Severity >= Warning {
			level = slog.LevelWarn
		}
		return level, e.Why, attrs
	case Ended:
		return slog.LevelInfo, "the watched process has ended", attrs
	}
	a := &e.Action
	level := slog.LevelInfo
	switch {
	case e.Kind == Planned && !a.DryRun && a.Name != Log || e.Kind == Clamped:
		level = slog.LevelDebug // what comes of it follows
	case a.Name == Exit:
		level = slog.LevelError
	}
	attrs = append(attrs, slog.String("action", string(a.Name)), slog.Int64("from", a.From), slog.Int64("to", a.To))
	if a.DryRun {
		attrs = append(attrs, slog.Bool("dry_run", true))
	}
	if a.By != "" {
		attrs = append(attrs, slog.String("by", a.By))
	}
	if a.Took > 0 {
		attrs = append(attrs, slog.Duration("took", a.Took))
	}
	if n, ok := a.Gained.Get(); ok {
		attrs = append(attrs, slog.Int64("gained_bytes", n))
	}
	return level, string(a.Name) + ": " + a.Reason, attrs
}

// aside does what takes long in a goroutine of its own, one of a name at a time.
// What do returns is done in the guard's goroutine afterwards, unless the guard
// has ended. Close waits, unless the code is somebody else's and may never return.
func (g *Guard) aside(name string, wait bool, do func() (then func())) bool {
	if g.busy[name] {
		return false
	}
	g.busy[name] = true
	if wait {
		g.asides.Add(1)
	}
	go func() {
		if wait {
			defer g.asides.Done()
		}
		var then func()
		defer func() {
			p := recover()
			if then == nil {
				then = func() { g.note(panicked(name, p)) }
			}
			select {
			case g.finished <- func() { delete(g.busy, name); then() }:
			case <-g.done:
			}
		}()
		then = do()
	}()
	return true
}
