// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/sidecar/target"
)

// Override is a setting of a target that somebody has changed for a time.
type Override struct {
	ID      string          `json:"id"` // that of its audit events
	Target  string          `json:"target"`
	Process target.Identity `json:"process"`
	Setting string          `json:"setting"` // gcpercent, memorylimit, breaker, shed
	From    any             `json:"from"`    // what it was, in the setting's own unit; null is unknown
	To      any             `json:"to"`
	Reason  string          `json:"reason"`
	By      string          `json:"by"`
	Since   time.Time       `json:"since"`
	Until   time.Time       `json:"until"`
	Seq     uint64          `json:"seq"`   // of the guard's event; 0 is unknown
	State   string          `json:"state"` // standing, unknown (whether it was done), ended
}

func newOverride(e *entry) *Override {
	set := settingOf(e.Setting)
	o := &Override{
		ID: e.ID, Target: e.Target, Process: e.Process, Setting: e.Setting, To: set.show(e.To), Reason: e.Reason, By: e.By,
		Since: e.Time.Round(0), Until: e.Until.Round(0), State: "unknown",
	}
	if e.From != nil {
		o.From = set.show(*e.From)
	}
	if e.ended != nil {
		o.Seq, o.State = e.ended.Seq, "standing"
	}
	return o
}

// overrides are those of a target that stand, after a look at what its guard says.
func (s *Server) overrides(c *call) (answer, error) {
	if _, err := s.target(c); err != nil {
		return answer{}, err
	}
	list := []Override{}
	if s.journal == nil {
		return newList("OverrideList", list), nil
	}
	if client, id, err := s.watcher.Agent(c.name); err == nil {
		ctx, cancel := context.WithTimeout(c.r.Context(), s.patience)
		defer cancel()
		if st, err := client.Status(ctx); err == nil {
			s.compare(id, st.Hand)
		}
	}
	for _, e := range s.journal.standing() {
		if e.Target == c.name {
			list = append(list, *newOverride(&e))
		}
	}
	return newList("OverrideList", list), nil
}

// compare holds the journal's overrides of a process against the orders that its
// guard says stand. One that was cut off before its answer is found by its id; one
// that is not there any more is over. A guard that does not list its orders
// settles nothing.
func (s *Server) compare(id target.Identity, h *agent.Hand) {
	if h == nil || h.Orders == nil {
		return
	}
	for _, e := range s.journal.standing() {
		if !same(e.Process, id) || e.busy {
			continue
		}
		at := -1
		for i, o := range h.Orders {
			if e.ended != nil && o.Seq == e.ended.Seq || e.ended == nil && strings.Contains(o.Action.By, "["+e.ID+"]") {
				at = i
			}
		}
		switch {
		case at < 0 && e.ended == nil && time.Since(e.Time) < sure:
			// The guard may still be about to take it.
		case at < 0:
			s.over(&e, "the guard has no such order: its time is over, it was taken back, or another took its place")
		case e.ended == nil:
			o := &outcome{ID: e.ID, Seq: h.Orders[at].Seq, Code: http.StatusOK}
			e.ended = o
			o.Body, _ = json.Marshal(done{Kind: "Override", Target: e.Target, Process: e.Process, Override: newOverride(&e)})
			s.keepLine(line{End: o})
		}
	}
}

func (s *Server) over(e *entry, why string) { s.keepLine(line{Over: &over{e.ID, why}}) }

// keepLine writes what was found out. What is lost of it is found out again.
func (s *Server) keepLine(l line) {
	if err := s.journal.append(l); err != nil {
		s.log.Error("memguard: control: the journal", "error", err)
	}
}

func (s *Server) nudge() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyway
	}
}

const (
	patience  = 10 * time.Second // with a guard that does not answer
	sure      = 10 * time.Second // after which a guard has read what was sent to it
	grace     = 3 * time.Second  // for the guard to end an override by itself
	lookAgain = 30 * time.Second // after a process could not be asked
	giveUp    = time.Hour        // after an override's time; the guard has ended it, or never will
)

// keep ends overrides in their time, until ctx ends.
func (s *Server) keep(ctx context.Context) {
	for ctx.Err() == nil {
		next := s.sweep(ctx)
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// sweep ends what is to end, and says when to look again.
func (s *Server) sweep(ctx context.Context) (next time.Time) {
	next = time.Now().Add(time.Hour)
	soon := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	for _, e := range s.journal.standing() {
		if e.busy {
			continue // its request has the word; then there is a nudge
		}
		due := e.Until.Add(grace)
		lives, known := alive(e.Process)
		switch {
		case e.Boot != s.boot:
			s.over(&e, "the machine was started anew")
		case known && !lives:
			s.over(&e, "its process has ended")
		case !time.Now().Before(e.Until.Add(giveUp)):
			s.over(&e, "its guard could not be asked for an hour after its time")
		case e.ended != nil && time.Now().Before(due):
			soon(due)
		default:
			if err := s.finishOff(ctx, &e); err != nil {
				s.log.Warn("memguard: control: an override", "id", e.ID, "target", e.Target, "pid", e.Process.PID, "error", err)
				soon(time.Now().Add(lookAgain))
			} else {
				again := lookAgain
				if time.Since(e.Time) < time.Minute {
					again = grace
				}
				soon(time.Now().Add(again)) // if it stands still
			}
		}
	}
	return next
}

// finishOff finds out what became of an override, and takes it back if its time is
// over and the guard has not. It goes to the process itself: the rule by which it
// was a target may be gone.
func (s *Server) finishOff(ctx context.Context, e *entry) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	client, err := agent.Dial(e.Process.PID)
	if err != nil {
		return err
	}
	defer client.Close()
	if lives, known := alive(e.Process); known && !lives { // its pid is another's by now
		return nil
	}
	st, err := client.Status(ctx)
	if err != nil {
		return err
	}
	s.compare(e.Process, st.Hand)
	now := s.journal.state(e.ID)
	if now == nil || !now.standing() || now.ended == nil || time.Now().Before(e.Until) {
		return nil
	}
	w := &write{ID: e.ID, By: "memguard sidecar", Target: e.Target, Process: e.Process}
	switch _, err := client.Undo(ctx, now.ended.Seq, by(w), "the override's time is over"); {
	case err == nil:
		s.over(e, "its time is over, and the sidecar took it back")
		s.note(w, time.Now(), fmt.Sprintf("the override of %s by %s is over, and was taken back", e.Setting, clean(e.By, mostBy)))
	case errors.Is(err, memguard.ErrNoOrder):
		s.over(e, "its time is over")
	default:
		return err
	}
	return nil
}

// alive reports whether the process still runs; known is false where that cannot
// be seen.
func alive(id target.Identity) (lives, known bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(id.PID) + "/stat")
	if errors.Is(err, os.ErrNotExist) {
		_, err := os.Stat("/proc/self/stat")
		return false, err == nil
	}
	// proc_pid_stat(5): the second field is the name in parentheses, and may hold
	// anything; field 3 is the state, field 22 the start time.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if err != nil || len(fields) < 20 {
		return false, false
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	return err == nil && start == id.Start && fields[0][0] != 'Z' && fields[0][0] != 'X', err == nil
}

// answer is the one that was given first.
func (o *outcome) answer() answer {
	if o == nil {
		return answer{}
	}
	return answer{code: cmp.Or(o.Code, http.StatusOK), raw: o.Body, kind: "application/json", again: true}
}
