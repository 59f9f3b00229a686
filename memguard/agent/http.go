// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

const (
	longestWait = time.Minute // of a long poll
	hangsAfter  = time.Second // the guard's lock is held for less than a millisecond
	gateWait    = time.Second
	// A report is taken no oftener than this, and takes this part of the time at
	// most.
	reportEvery = time.Second
	reportShare = 20
)

// gate bounds how many requests of a kind are answered at once.
type gate chan struct{}

// enter waits for a place, for a short time.
func (g gate) enter(ctx context.Context) bool {
	select {
	case g <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(gateWait)
	defer timer.Stop()
	select {
	case g <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func (g gate) leave() { <-g }

// routes says who answers what.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	on := func(method, path string, g gate, do func(http.ResponseWriter, *http.Request) (answer, error)) {
		mux.Handle(path, s.handler(method, g, do))
	}
	on(http.MethodGet, "/v1/status", s.quick, s.ofStatus(func(st *memguard.Status, age time.Duration) answer {
		return answer{Status: NewStatus(st, age)}
	}))
	on(http.MethodGet, "/v1/sample", s.quick, s.ofStatus(func(st *memguard.Status, _ time.Duration) answer {
		return answer{Sample: newSample(&st.Sample)}
	}))
	on(http.MethodGet, "/v1/ledger", s.quick, s.ofStatus(func(st *memguard.Status, _ time.Duration) answer {
		return answer{Ledger: st.Ledger}
	}))
	on(http.MethodGet, "/v1/findings", s.quick, s.ofStatus(func(st *memguard.Status, _ time.Duration) answer {
		return answer{Findings: &st.Findings}
	}))
	on(http.MethodGet, "/v1/report", s.reports, s.takeReport)
	on(http.MethodGet, "/v1/events", s.streams, s.events)
	on(http.MethodPost, "/v1/orders", s.orders, s.order)
	on(http.MethodDelete, "/v1/orders/{seq}", s.orders, s.undo)
	on("", "/", s.quick, func(_ http.ResponseWriter, r *http.Request) (answer, error) {
		return answer{}, refuse(http.StatusNotFound, codeNotFound, "ask for /v1/status, /v1/sample, /v1/ledger, /v1/findings, /v1/report, /v1/events or /v1/orders", "there is no %q here", r.URL.Path)
	})
	return mux
}

// handler answers with JSON, whatever happens.
func (s *Server) handler(method string, g gate, do func(http.ResponseWriter, *http.Request) (answer, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.noteAsked()
		defer s.noteAsked()
		var a answer
		var err error
		if method != "" && r.Method != method {
			w.Header().Set("Allow", method)
			err = refuse(http.StatusMethodNotAllowed, codeMethod, "use "+method, "%s does not go here", r.Method)
		} else if !g.enter(r.Context()) {
			w.Header().Set("Retry-After", "1")
			err = &asError{tooMany, http.StatusServiceUnavailable}
		} else {
			a, err = s.contained(do, w, r)
			g.leave() // a slow client is no longer anybody's trouble
		}
		status := http.StatusOK
		if err != nil {
			e := refusalOf(err)
			a, status = answer{refusal: e.refusal}, e.status
		}
		body := encode(a)
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		_, _ = w.Write(body) // else it has hung up
	})
}

func (s *Server) noteAsked() { s.asked.Store(int64(time.Since(s.born))) }

// contained turns a panic into an answer: a defect of ours must not be the
// service's end.
func (s *Server) contained(do func(http.ResponseWriter, *http.Request) (answer, error), w http.ResponseWriter, r *http.Request) (a answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("memguard: agent: panic", slog.String("path", r.URL.Path), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = refuse(http.StatusInternalServerError, codeDefect, "report it; the stack is in the service's log", "panic: %v", p)
		}
	}()
	return do(w, r)
}

// awake is the guard's status, or an error that says that it hangs.
func (s *Server) awake() (memguard.Status, error) {
	st, ok := s.guard.StatusWithin(hangsAfter)
	if !ok {
		return st, refuse(http.StatusServiceUnavailable, codeHangs, "look from outside, and at the service's goroutines for (*Guard).tick",
			"the guard does not answer: its last tick was %v ago", s.guard.Alive().Round(time.Millisecond))
	}
	return st, nil
}

func (s *Server) ofStatus(part func(*memguard.Status, time.Duration) answer) func(http.ResponseWriter, *http.Request) (answer, error) {
	return func(http.ResponseWriter, *http.Request) (answer, error) {
		st, err := s.awake()
		if err != nil {
			return answer{}, err
		}
		return part(&st, s.guard.Alive()), nil
	}
}

// takeReport answers with a report, or with the last one where that is young.
func (s *Server) takeReport(http.ResponseWriter, *http.Request) (answer, error) {
	if _, err := s.awake(); err != nil {
		return answer{}, err
	}
	c := &s.report
	c.Lock()
	defer c.Unlock()
	if c.last == nil || time.Since(c.at) >= max(reportEvery, reportShare*c.took) {
		start := time.Now()
		r, err := s.guard.Report()
		if err != nil {
			return answer{}, err
		}
		c.last, c.at, c.took = r, time.Now(), time.Since(start)
	}
	return answer{Report: c.last}, nil
}

// events is a long poll: it answers as soon as there is an event after the one
// that the client has.
func (s *Server) events(w http.ResponseWriter, r *http.Request) (answer, error) {
	after, wait, err := poll(r.URL.Query())
	if err != nil {
		return answer{}, refuse(http.StatusBadRequest, codeBad, "such as ?after=17&wait=30s", "%v", err)
	}
	if wait > 0 {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + writeTimeout))
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait) // of 0 it has ended already
	defer cancel()
	es := s.guard.Events(ctx, after)
	if len(es) > 0 {
		return answer{Events: &es}, nil
	}
	ended := ctx.Err() == nil
	select {
	case <-s.guard.Done():
		ended = true
	default:
	}
	return answer{Events: &[]memguard.Event{}, Ended: ended}, nil
}

func poll(q url.Values) (after uint64, wait time.Duration, err error) {
	for key := range q {
		if key != "after" && key != "wait" {
			return 0, 0, fmt.Errorf("unknown key %q", key)
		}
	}
	if v := q.Get("after"); v != "" {
		if after, err = strconv.ParseUint(v, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("after=%q: want the seq of an event", v)
		}
	}
	if v := q.Get("wait"); v != "" {
		if wait, err = time.ParseDuration(v); err != nil || wait < 0 {
			return 0, 0, fmt.Errorf("wait=%q: want a time such as 30s", v)
		}
	}
	return after, min(wait, longestWait), nil
}

func (s *Server) order(w http.ResponseWriter, r *http.Request) (answer, error) {
	o, err := decodeOrder(http.MaxBytesReader(w, r.Body, mostOrder))
	if tooLong, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return answer{}, refuse(http.StatusRequestEntityTooLarge, codeBad, "send one order", "an order has %d bytes at most", tooLong.Limit)
	}
	if err != nil {
		return answer{}, refuse(http.StatusBadRequest, codeBad, `send an object such as {"action":"gc","reason":"..."}`, "the order cannot be read: %v", err)
	}
	if _, err := s.awake(); err != nil {
		return answer{}, err
	}
	o.By = signed(r, o.By)
	e, err := s.guard.Do(o)
	s.log.Info("memguard: agent: an order", slog.String("action", string(o.Action)), slog.String("by", o.By), slog.String("reason", o.Reason), slog.Any("error", err))
	return answer{Event: &e}, err
}

func (s *Server) undo(_ http.ResponseWriter, r *http.Request) (answer, error) {
	q := r.URL.Query()
	by, reason := q.Get("by"), cmp.Or(q.Get("reason"), "taken back")
	seq, err := strconv.ParseUint(r.PathValue("seq"), 10, 64)
	if err != nil {
		err = fmt.Errorf("order %q: want the seq of its event", r.PathValue("seq"))
	}
	if err := cmp.Or(err, sane("reason", reason), sane("by", by)); err != nil {
		return answer{}, refuse(http.StatusBadRequest, codeBad, "such as DELETE /v1/orders/17?reason=done", "%v", err)
	}
	if _, err := s.awake(); err != nil {
		return answer{}, err
	}
	e, err := s.guard.Undo(seq, signed(r, by), reason)
	s.log.Info("memguard: agent: an order is taken back", slog.Uint64("seq", seq), slog.String("by", signed(r, by)), slog.String("reason", reason), slog.Any("error", err))
	return answer{Event: &e}, err
}

// signed is who asks: what they say, and what the kernel says.
func signed(r *http.Request, by string) string {
	who, ok := r.Context().Value(peerKey{}).(peer)
	if !ok {
		return by
	}
	return cmp.Or(by, "agent") + " (" + who.String() + ")"
}
