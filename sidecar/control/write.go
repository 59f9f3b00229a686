// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"strconv"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/memguard/memguard-go/sidecar/watch"
)

const (
	turnTimeout = 5 * time.Second // to wait for another write to the same target
	mostKey     = 128             // bytes of an Idempotency-Key
	mostBy      = 200             // bytes of a caller's name in the guard's events
)

// done is the answer to a write.
type done struct {
	Kind     string          `json:"kind"` // Override, or Action for what is done once
	DryRun   bool            `json:"dry_run"`
	Target   string          `json:"target"`
	Process  target.Identity `json:"process"`
	Override *Override       `json:"override"` // null for an action
	Event    *memguard.Event `json:"event"`    // what the guard says of it; null where it was not asked
}

// actions are what is done once.
var actions = map[string]memguard.ActionName{
	"gc": memguard.CollectGarbage, "freeosmemory": memguard.FreeOSMemory, "capture": memguard.Capture,
}

// change sets something for a time, or has something done once.
func (s *Server) change(c *call) (answer, error) {
	return s.write(c, func(in *wanted, w *write) error {
		w.Action = actions[c.route.subresource]
		set := settingOf(c.route.subresource)
		switch {
		case set == nil && in.to != nil:
			return badField("to", "%s takes no value", c.route.subresource)
		case set == nil && in.ttlSet:
			return badField("ttl", "%s is done once, and not for a time", c.route.subresource)
		case set == nil && in.expected.value != nil:
			return badField("expected.value", "%s has no value", c.route.subresource)
		case set == nil:
			return nil
		case in.to == nil:
			return badField("to", "it does not say to what")
		}
		to, err := set.parse(in.to)
		if err != nil {
			return badField("to", "%v", err)
		}
		w.Action, w.Setting, w.To, w.Until = set.action, set.name, to, w.Time.Add(in.ttl)
		return nil
	}, s.order)
}

// takeBack ends an override before its time.
func (s *Server) takeBack(c *call) (answer, error) {
	return s.write(c, func(in *wanted, w *write) error {
		switch {
		case in.to != nil:
			return badField("to", "to take an override back takes no value")
		case in.ttlSet:
			return badField("ttl", "to take an override back takes no time")
		}
		w.Setting = c.route.subresource
		w.Action = settingOf(w.Setting).action
		return nil
	}, s.undo)
}

// effect does what is wanted; commit must have returned nil before it acts.
type effect func(ctx context.Context, c *call, w *write, h *hand, dry bool, commit func() error) (done, uint64, error)

// write is the way of every write: rate, body, key, target, preconditions; then it
// is recorded, and then done.
func (s *Server) write(c *call, plan func(*wanted, *write) error, do effect) (answer, error) {
	wait, rate := s.writes.ask(c.user.Name, c.at)
	c.annotate(audit.AnnotationRate, strconv.Itoa(rate))
	if wait > 0 {
		return answer{}, busy(http.StatusTooManyRequests, reasonTooMany, wait, "too many writes: this caller has made %d in the last minute; wait, and ask for fewer", rate)
	}
	if s.journal == nil {
		return answer{}, refuse(http.StatusNotImplemented, reasonMissing, "this sidecar has no directory for a journal, and without it takes no writes: set state_dir in its configuration")
	}
	in, raw, err := readBody(c.w, c.r)
	if t := bytes.TrimSpace(raw); len(t) > 0 && t[0] == '{' && json.Valid(t) {
		c.event.RequestObject = t
	}
	if err != nil {
		return answer{}, err
	}
	c.annotate(audit.AnnotationReasonGiven, in.reason)
	dry, err := c.dryRun()
	if err != nil {
		return answer{}, err
	}
	w := &write{ID: c.event.AuditID, Time: c.at, By: c.user.Name, Target: c.name, Boot: s.boot, Reason: in.reason}
	if now := steady(); now > 0 {
		w.Steady = now - time.Since(c.at)
	}
	if err := plan(&in, w); err != nil {
		return answer{}, err
	}
	if w.Key, err = c.key(); err != nil {
		return answer{}, err
	}
	if w.Key != "" && !dry {
		w.Hash = hashOf(c, raw)
		first, err := s.journal.claim(w)
		if first != nil || err != nil {
			return first.answer(), err
		}
		defer s.journal.disclaim(w)
	}
	leave, err := s.turn(c)
	if err != nil {
		return answer{}, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), s.patience) // who hangs up gets it done all the same, and recorded
	defer cancel()
	h, err := s.reach(ctx, c)
	if err != nil {
		return answer{}, err
	}
	defer h.leave()
	w.Process = h.id
	if err := in.expected.check(h, settingOf(w.Setting), w); err != nil {
		return answer{}, err
	}
	defer func() {
		s.journal.leave(w.ID)
		s.nudge()
	}()
	out, seq, err := do(ctx, c, w, h, dry, func() error { return s.commit(c, w, dry) })
	return s.settle(c, w, out, seq, dry, err)
}

// commit has the intent on disk: that of the audit log, and the journal's.
func (s *Server) commit(c *call, w *write, dry bool) error {
	if err := s.record(c, audit.StageRequestReceived); err != nil {
		return unrecordable("the audit log", err)
	}
	if dry {
		return nil
	}
	if err := s.journal.begin(w); err != nil {
		return unrecordable("the journal", err)
	}
	return nil
}

// settle keeps how a write went, and makes the answer of it.
func (s *Server) settle(c *call, w *write, out done, seq uint64, dry bool, err error) (answer, error) {
	a := answer{body: out}
	if w.Setting == "" && !dry {
		a.code = http.StatusAccepted // it has begun: an event of kind applied follows
	}
	if dry || err != nil && s.journal.state(w.ID) == nil {
		return a, err
	}
	if p, ok := errors.AsType[*problem](err); ok && p.unsure {
		return a, err
	}
	o := &outcome{ID: w.ID, Seq: seq, Code: cmp.Or(a.code, http.StatusOK)}
	if p, ok := errors.AsType[*problem](err); ok {
		o.Code = p.code
		o.Body, _ = json.Marshal(p.status(c))
	} else if b, err := json.Marshal(out); err == nil {
		o.Body = b
	}
	if err := s.journal.append(line{End: o}); err != nil { // it has been done: the journal will find that out from the guard
		s.log.Error("memguard: control: the journal", "audit_id", w.ID, "error", err)
	}
	return a, err
}

// order gives an order to the guard.
func (s *Server) order(ctx context.Context, c *call, w *write, h *hand, dry bool, commit func() error) (out done, seq uint64, err error) {
	set := settingOf(w.Setting)
	if set != nil {
		from, ok := set.now(h.state)
		if !ok {
			return out, 0, refuse(http.StatusNotImplemented, reasonMissing, "%s", set.missing(h.state))
		}
		w.From = &from
	}
	if err := commit(); err != nil {
		return out, 0, err
	}
	o := memguard.Order{Action: w.Action, To: w.To, Reason: w.Reason, By: by(w), DryRun: dry}
	if set != nil {
		o.TTL = w.Until.Sub(w.Time)
	}
	e, err := h.client.Do(ctx, o)
	if err != nil {
		return out, 0, s.failed(c, err)
	}
	out = done{Kind: "Action", DryRun: dry, Target: w.Target, Process: w.Process, Event: &e}
	if set != nil {
		out.Kind = "Override"
		out.Override = newOverride(&entry{write: *w, ended: &outcome{Seq: e.Seq}})
	}
	if !dry {
		s.note(w, e.Time, sentence(w, set))
	}
	return out, e.Seq, nil
}

// undo takes the override of a setting back.
func (s *Server) undo(ctx context.Context, c *call, w *write, h *hand, dry bool, commit func() error) (out done, seq uint64, err error) {
	s.compare(h.id, h.state)
	e := s.journal.override(h.id, w.Setting)
	if e == nil || e.ended == nil {
		return out, 0, refuse(http.StatusNotFound, reasonNotFound, "no override of %s stands at target %q: see .../runtimes/%s/overrides", w.Setting, w.Target, w.Target)
	}
	w.Undoes, w.To = e.ID, e.To
	if err := commit(); err != nil {
		return out, 0, err
	}
	out = done{Kind: "Override", DryRun: dry, Target: w.Target, Process: w.Process, Override: newOverride(e)}
	if dry {
		return out, 0, nil
	}
	ev, err := h.client.Undo(ctx, e.ended.Seq, by(w), w.Reason)
	if err != nil {
		return out, 0, s.failed(c, err)
	}
	out.Event = &ev
	out.Override.State = "ended"
	s.note(w, ev.Time, fmt.Sprintf("%s took the override of %s back: %s", clean(w.By, mostBy), w.Setting, w.Reason))
	return out, ev.Seq, nil
}

// by is who asks, as the guard is told: with the id by which the journal finds its
// own orders again.
func by(w *write) string { return clean(w.By, mostBy) + " [" + w.ID + "]" }

func sentence(w *write, set *setting) string {
	who := clean(w.By, mostBy)
	if set == nil {
		return fmt.Sprintf("%s asked for %s: %s", who, w.Action, w.Reason)
	}
	return fmt.Sprintf("%s set %s from %v to %v until %s: %s", who, set.name, set.show(*w.From), set.show(w.To), w.Until.UTC().Format(time.RFC3339), w.Reason)
}

// note tells of a write among the events.
func (s *Server) note(w *write, at time.Time, text string) {
	s.watcher.Note(watch.Event{Target: w.Target, PID: w.Process.PID, Time: at, Kind: "control", Text: text})
}

// dryRun reads ?dryRun=All, as Kubernetes has it.
func (c *call) dryRun() (bool, error) {
	switch v := c.query.Get("dryRun"); {
	case v == "All":
		return true, nil
	case v == "" && !c.query.Has("dryRun"):
		return false, nil
	default:
		return false, badField("dryRun", "%q: want All, or leave it out", clean(v, 64))
	}
}

// key is the request's Idempotency-Key, empty without one.
func (c *call) key() (string, error) {
	keys := c.r.Header.Values("Idempotency-Key")
	if len(keys) == 0 {
		return "", nil
	}
	k := keys[0]
	if len(keys) > 1 || k == "" || len(k) > mostKey || clean(k, mostKey) != k {
		return "", bad("header Idempotency-Key: want one, of 1 to %d characters of text, new for each write, such as a UUID", mostKey)
	}
	return k, nil
}

// hashOf stands for what is asked for.
func hashOf(c *call, body []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s\n", c.r.Method, c.r.URL.RequestURI())
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

var seed = maphash.MakeSeed()

// turn waits until no other write to the same target is under way: what is
// expected of it must still be true when it is done.
func (s *Server) turn(c *call) (leave func(), err error) {
	turn := s.turns[maphash.String(seed, c.name)%uint64(len(s.turns))]
	timer := time.NewTimer(turnTimeout)
	defer timer.Stop()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-timer.C:
	case <-c.r.Context().Done():
	}
	return nil, busy(http.StatusConflict, reasonConflict, time.Second, "other writes to target %q are under way, and the guard is slow to answer: ask again", c.name)
}
