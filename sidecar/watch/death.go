// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/internal/brink"
)

// mostProfile bounds a profile of a dead process.
const mostProfile = 16 << 20

// death is a life that ended and is to be told.
type death struct {
	evidence *incident.Evidence
	close    func() // what the evidence refers to
}

// bury puts together what is left of the process.
func (l *life) bury(fd *os.File) {
	seen := time.Now()
	after := l.levels.read(0) // at once: the cgroup's directory may go next
	l.mu.Lock()
	e := &incident.Evidence{Target: l.slot.name, Process: l.Process, Ended: seen.Round(0), Lived: l.Identity.Lived()}
	e.Eye, e.Last = l.view()
	if e.Last != nil {
		e.Ledger = e.Last.Ledger
	}
	e.Events = slices.Clone(l.told)
	l.mu.Unlock()
	e.Timeline = l.slot.timeline.read(seen, time.Time{})
	became := l.changed.Load() || l.Alive()
	l.w.leave(l, seen, became)

	select {
	case <-l.holdEnded():
	case <-time.After(max(l.w.cfg.Hold, 0) + time.Second):
	case <-l.ctx.Done():
	}
	l.readEnded()
	l.cancel() // what still asks it gives up
	l.mu.Lock()
	dying := l.death
	last, held := l.lastRead()
	set := l.brink.set
	why := l.sources[srcHold]
	l.mu.Unlock()
	began := seen
	if dying != nil {
		began = dying.Time
	}
	e.Cgroups, e.Machine = l.levels.evidence(began, dying != nil, after)
	printed := l.printed()
	if e.Exit = l.exit(fd, dying, became, printed); e.Exit.Became && !became {
		became = true
		l.w.live(l)
	}
	e.Held = held
	l.snapshot(e, dying, last, why)
	l.heapOf(e, seen)
	if set && e.Exit.Known && e.Exit.Signal != int(syscall.SIGKILL) {
		e.NoSnapshot = also(e.NoSnapshot, "the kernel's kill was to be held (oom_hold), which may have a service end itself at its limit: calls that need memory fail there")
	}
	if printed != nil {
		if !became {
			printed.settle()
		}
		e.Stderr = l.slot.heard.since(printed)
	}
	e.Boxes = l.boxes.dirs()
	l.w.event(l.slot, Event{PID: l.PID, Kind: Ended, Text: fmt.Sprintf("process %d %s, after %s", l.PID, exitText(e.Exit), seen.Sub(l.begun).Round(time.Millisecond))})
	d := &death{evidence: e, close: l.close}
	select {
	case l.w.deaths <- d:
	default:
		l.w.event(l.slot, Event{PID: l.PID, Kind: Lost, Text: fmt.Sprintf("the end of process %d is not reported: %d others wait to be", l.PID, mostDeaths)})
		d.close()
	}
}

// live takes back that a process has ended.
func (w *Watcher) live(l *life) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.buried, keyOf(l.Identity))
	nudge(w.rescan)
}

// leave frees the slot of a life that ended.
func (w *Watcher) leave(l *life, seen time.Time, became bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !became {
		w.buried[keyOf(l.Identity)] = seen
	}
	s := l.slot
	if s.life != l {
		return
	}
	s.life, s.empty = nil, seen
	if seen.Sub(l.begun) >= youngAge {
		s.young = 0
		nudge(w.rescan)
		return
	}
	if s.young++; s.young == youngSpared+1 {
		w.event(s, Event{PID: l.PID, Kind: Lost, Text: fmt.Sprintf(
			"its processes end within seconds, %d of them in a row: the next ones are looked into only when they have lived for a while, and some may be missed", s.young)})
	}
	nudge(w.rescan)
}

// exit finds out how the process ended: what was seen of it as it did comes first.
// It may not have: a thread that is not the first one and calls execve(2) ends the
// first, whose pid it takes, and for a moment that looks like the process's end
// (fs/exec.c, de_thread).
func (l *life) exit(fd *os.File, dying *attach.Death, became bool, printed *stream) incident.Exit {
	switch {
	case became:
		return incident.Exit{Became: true}
	case dying != nil:
		return incident.Exit{Known: true, Code: dying.Code, Signal: dying.Signal, From: "exit-hold"}
	}
	for wait := time.Millisecond; ; wait *= 2 { // its parent may not have asked yet
		if status, ok := pidfdStatus(fd); ok {
			if status.Signaled() {
				return incident.Exit{Known: true, Signal: int(status.Signal()), From: "pidfd"}
			}
			return incident.Exit{Known: true, Code: status.ExitStatus(), From: "pidfd"}
		}
		if printed != nil {
			if x, ok := printed.exit(); ok {
				return incident.Exit{Known: true, Code: x.Code, Signal: x.Signal, From: "exec"}
			}
		}
		if l.Alive() {
			return incident.Exit{Became: true}
		}
		if wait > 256*time.Millisecond {
			return incident.Exit{}
		}
		time.Sleep(wait)
	}
}

// snapshot puts in what was read of the runtime: of the dying process, else the last
// before.
func (l *life) snapshot(e *incident.Evidence, dying *attach.Death, last *attach.Snapshot, hold Source) {
	var s *attach.Snapshot
	switch {
	case dying != nil:
		s = dying.Snapshot
		e.Held += dying.Held
		if dying.Why != nil {
			e.NoSnapshot = "exit hold: " + dying.Why.Error()
		}
		if s == nil || last != nil && s.Goroutines.Clusters == nil {
			s = last // it tells more
		}
	default:
		s = last
		e.NoSnapshot = "exit hold " + hold.State
		if hold.Why != "" {
			e.NoSnapshot += ": " + hold.Why
		}
		if hold.State == OK {
			e.NoSnapshot = "exit hold: the process ended without being stopped"
		}
		switch {
		case s == nil:
			s = poll(l.lastSeen())
			e.NoSnapshot = also(e.NoSnapshot, "it was not walked before")
		case s.How.Way == brink.OOMControl && complete(s):
			e.NoSnapshot = "" // it stood still from then on
		}
	}
	if s == nil {
		return
	}
	e.Snapshot = s
	write := func(kind string, write func(*bytes.Buffer) error) []byte {
		var b bytes.Buffer
		err := write(&b)
		switch {
		case err == nil && b.Len() <= mostProfile:
			return b.Bytes()
		case err == nil:
			err = fmt.Errorf("it has %d bytes", b.Len())
		}
		e.NoSnapshot = also(e.NoSnapshot, kind+" profile: "+err.Error())
		return nil
	}
	e.Heap = write("heap", func(b *bytes.Buffer) error { return s.WriteHeap(b) })
	e.Goroutines = write("goroutine", func(b *bytes.Buffer) error { return s.WriteGoroutines(b) })
}

func also(text, more string) string {
	if text == "" {
		return more
	}
	return text + "; " + more
}

// poll marks a copy of a snapshot as taken before the end.
func poll(s *attach.Snapshot) *attach.Snapshot {
	if s == nil {
		return nil
	}
	c := *s
	c.How.Way = Poll
	return &c
}

// lastSeen are the figures of the last look; nil if there was none, or it hangs.
func (l *life) lastSeen() *attach.Snapshot {
	ctx, done := context.WithTimeout(context.Background(), closeFor)
	defer done()
	if l.lock(ctx) != nil {
		return nil
	}
	defer l.unlock()
	return l.seen
}

// tellDeaths calls Died, for one death after the other.
func (w *Watcher) tellDeaths() {
	for d := range w.deaths {
		w.died(d.evidence)
		d.close()
	}
}

func (w *Watcher) died(e *incident.Evidence) {
	if w.cfg.Died == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil { // a defect of who takes it must not be the end of watching
			w.events.add(Event{Target: e.Target, PID: e.Process.PID, Kind: Lost, Text: fmt.Sprint("the report of its end: panic: ", p)})
			w.cfg.Logger.Error("memguard: the report of an end: panic", slog.String("target", e.Target), slog.Any("panic", p))
		}
	}()
	w.cfg.Died(e)
}

// exitText is how a process ended, in words.
func exitText(x incident.Exit) string {
	switch {
	case x.Became:
		return "runs another program now"
	case !x.Known:
		return "ended, and it is unknown how"
	case x.Signal != 0:
		return fmt.Sprintf("was ended by signal %d (%v)", x.Signal, syscall.Signal(x.Signal))
	}
	return fmt.Sprintf("exited with status %d", x.Code)
}

// sentence is an event of a guard in words.
func sentence(e *memguard.Event) string {
	switch e.Kind {
	case memguard.Raised:
		return e.Finding.Summary
	case memguard.Cleared:
		return "over: " + e.Finding.Summary
	case memguard.Lost:
		return e.Blind.What + ": " + e.Blind.Why
	case memguard.Saved:
		return "saved " + e.Path
	case memguard.Died:
		return e.Why
	case memguard.Ended:
		return "the guard has ended"
	}
	return fmt.Sprintf("%s %s: %s", e.Kind, e.Action.Name, e.Action.Reason)
}
