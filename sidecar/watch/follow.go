// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/memguard/memguard-go/sidecar/target"
)

// slot is a target: the place of one process of a rule.
type slot struct {
	name, rule string
	number     int // 1 is the first of its rule
	timeline   timeline
	budget     budget
	heard      heard

	// The watcher's mutex guards what follows.
	life     *life // nil: it waits
	lives    uint64
	restarts uint64
	young    int       // lives in a row that ended young
	empty    time.Time // since when it waits
}

func newSlot(rule string, number int) *slot {
	s := &slot{name: rule, rule: rule, number: number, empty: time.Now()}
	if number > 1 {
		s.name = fmt.Sprintf("%s-%d", rule, number)
	}
	return s
}

// A life that is shorter is young. After some of them in a row the next one is not
// looked into at once: to open a process costs ten milliseconds.
const (
	youngAge    = 10 * time.Second
	youngSpared = 2
	youngRest   = youngAge // the longest that a life goes unseen
)

// unseen is for how long a life is not looked into, after so many young ones.
func unseen(young int) time.Duration {
	if young <= youngSpared {
		return 0
	}
	return min(time.Second<<min(young-youngSpared-1, 8), youngRest)
}

// The search for processes: while a target waits, while none does, and the share
// of a core that it may take then. After a death it is hurried: a supervisor
// starts the next process within moments.
const (
	searchHurry   = 50 * time.Millisecond
	searchRest    = 5 // intervals
	searchWaiting = 200
	searchNone    = 1000
)

// search looks for processes until ctx ends.
func (w *Watcher) search(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	hurry, took := time.Duration(0), time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			hurry = 2 * hurry
		case <-w.rescan:
			hurry = searchHurry << min(w.youngest(), 3)
			select { // the supervisor needs a moment, and a storm of deaths is one search
			case <-ctx.Done():
				return
			case <-time.After(hurry):
			}
		}
		w.mu.Lock()
		finder := w.finder
		w.mu.Unlock()
		begin := time.Now()
		found, blind := finder.Scan(ctx)
		// The least of late: what else the machine had to do is not its cost.
		took = min(time.Since(begin), took+took/4+time.Microsecond)
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		waits := w.follow(ctx, finder, found)
		w.blind = blind[:min(len(blind), mostTargets)]
		w.scanned = begin
		w.mu.Unlock()
		next := max(searchRest*w.cfg.Interval, searchNone*took)
		if waits {
			next = max(w.cfg.Interval, searchWaiting*took)
		}
		if hurry > 0 && waits && hurry < next {
			next = max(hurry, searchHurry)
		} else {
			hurry = 0
		}
		timer.Reset(next)
	}
}

// youngest is how often in a row the lives of a target that waits ended young.
func (w *Watcher) youngest() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.slots {
		if s.life == nil {
			n = max(n, s.young)
		}
	}
	return n
}

// key is a process, whatever it runs.
type key struct {
	pid   int
	start uint64
}

func keyOf(id target.Identity) key { return key{id.PID, id.Start} }

// follow gives the processes that were found their slots, and reports whether a
// target waits. The caller holds mu.
func (w *Watcher) follow(ctx context.Context, by *target.Finder, found []target.Found) (waits bool) {
	if by != w.finder {
		return true // of rules that are no more
	}
	now := time.Now()
	lives := map[key]*life{}
	for _, s := range w.slots {
		if s.life != nil {
			lives[keyOf(s.life.Identity)] = s.life
		}
	}
	for i := range found {
		f := &found[i]
		k := keyOf(f.Identity)
		if l := lives[k]; l != nil {
			delete(lives, k)
			switch {
			case l.Build != f.Build && l.Build != "" && f.Build != "" || l.Build+f.Build == "" && l.Exe != f.Exe:
				l.changed.Store(true) // it runs another program by now: a life of its own, once this one is buried
				nudge(l.alarm)
				continue
			case l.slot.rule == f.Rule:
				continue
			}
			w.let(l, "it is another rule's now")
		}
		if at, ok := w.buried[k]; ok && now.Sub(at) < buriedKept {
			continue // the search began before it ended
		}
		w.begin(ctx, f)
	}
	if w.changed {
		for _, l := range lives {
			w.let(l, "its rule does not match it any more")
		}
	}
	w.changed = false
	for k, at := range w.buried {
		if now.Sub(at) >= buriedKept {
			delete(w.buried, k)
		}
	}
	w.slots = slices.DeleteFunc(w.slots, func(s *slot) bool {
		return s.number > 1 && s.life == nil && now.Sub(s.empty) > slotKept
	})
	return slices.ContainsFunc(w.slots, func(s *slot) bool {
		return s.life == nil && s.number == 1 || s.life == nil && now.Sub(s.empty) < youngRest
	})
}

// buriedKept is longer than any search takes.
const buriedKept = time.Minute

// let stops following a life. The caller holds mu.
func (w *Watcher) let(l *life, why string) {
	w.event(l.slot, Event{PID: l.PID, Kind: Ended, Text: "followed no longer: " + why})
	l.slot.life, l.slot.empty = nil, time.Now()
	l.cancel()
}

// begin puts a process into the lowest free slot of its rule. The caller holds mu.
func (w *Watcher) begin(ctx context.Context, f *target.Found) {
	at, number := len(w.slots), 1 // where a new slot goes, and its number
	var s *slot
	for i, c := range w.slots {
		if c.rule != f.Rule {
			continue
		}
		if c.life == nil {
			s = c
			break
		}
		if c.number == number {
			number++
			at = i + 1
		}
	}
	if s != nil && s.number > number { // a lower one had gone
		s = nil
	}
	if s == nil {
		if len(w.slots) >= mostTargets {
			if !w.full {
				w.events.add(Event{Target: f.Rule, PID: f.PID, Kind: Lost, Text: fmt.Sprintf("process %d is not watched: there are %d targets already", f.PID, mostTargets)})
			}
			w.full = true
			return
		}
		s = newSlot(f.Rule, number)
		w.slots = slices.Insert(w.slots, at, s)
	}
	w.full = false
	l := newLife(ctx, w, s, f.Process)
	s.life = l
	s.lives++
	text := fmt.Sprintf("process %d appeared", f.PID)
	if s.lives > 1 {
		s.restarts++
		text += ", after one that ended"
	}
	w.event(s, Event{PID: f.PID, Kind: Appeared, Text: text})
	w.all.Go(l.attend)
}
