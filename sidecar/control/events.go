// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/watch"
)

const (
	longestWait  = time.Minute      // of a long poll
	heartbeat    = 15 * time.Second // of a stream
	pieceTimeout = 10 * time.Second // to take a piece of a stream
	placeAgain   = 5 * time.Second
	batch        = 50 // events of an answer, or of a piece: so much is held for each caller who is slow
)

// eventList answers a long poll.
type eventList struct {
	Kind   string        `json:"kind"`
	Items  []watch.Event `json:"items"`
	Next   uint64        `json:"next"`   // to ask for as after
	Missed uint64        `json:"missed"` // that were after the one asked for and are no longer kept
}

// eventQuery is what a caller wants to hear of.
type eventQuery struct {
	after  uint64
	wait   time.Duration
	stream bool
	target string // empty is all
}

func (c *call) eventQuery() (q eventQuery, err error) {
	after := c.query.Get("after")
	q.target = c.query.Get("target")
	q.stream = c.query.Get("watch") == "1" || strings.Contains(c.r.Header.Get("Accept"), "text/event-stream")
	if w := c.query.Get("watch"); w != "" && w != "0" && w != "1" {
		return q, badField("watch", "%q: want 1 for a stream, or 0", clean(w, 64))
	}
	if id := c.r.Header.Get("Last-Event-ID"); q.stream && id != "" { // it comes again: it knows better than the URL
		after = id
	}
	if after != "" {
		if q.after, err = strconv.ParseUint(after, 10, 64); err != nil {
			return q, badField("after", "%q: want the seq of an event", clean(after, 64))
		}
	}
	if wait := c.query.Get("wait"); wait != "" {
		if q.wait, err = time.ParseDuration(wait); err != nil || q.wait < 0 {
			return q, badField("wait", "%q: want a time such as 30s", clean(wait, 64))
		}
	}
	q.wait = min(q.wait, longestWait)
	return q, nil
}

// events is a long poll, or a stream of server-sent events.
func (s *Server) events(c *call) (answer, error) {
	q, err := c.eventQuery()
	if err != nil {
		return answer{}, err
	}
	leave, all, ok := s.streams.take(c.caller())
	switch {
	case all:
		return answer{}, busy(http.StatusTooManyRequests, reasonTooMany, placeAgain, "%d streams and polls are open: ask again later, or without wait", s.streams.most)
	case !ok:
		return answer{}, busy(http.StatusTooManyRequests, reasonTooMany, placeAgain, "this caller has %d streams and polls open, and one may have no more: close one, or ask without wait; one stream tells of all targets", s.streams.each)
	}
	defer leave()
	// With a deadline for reading the server takes the caller for gone when it
	// passes (net/http, connReader.backgroundRead).
	_ = c.ctl.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(c.r.Context())
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	// An id of before the sidecar's restart may be larger than any there is.
	if last := s.lastEvent(); q.after > last {
		q.after = 0
	}
	if q.stream {
		return s.stream(ctx, c, q)
	}
	if c.r.Method == http.MethodHead {
		q.wait = 0
	}
	_ = c.ctl.SetWriteDeadline(time.Now().Add(q.wait + writeTimeout))
	ctx, cancel = context.WithTimeout(ctx, q.wait) // of 0 it has ended already
	defer cancel()
	list := eventList{Kind: "EventList", Items: []watch.Event{}, Next: q.after}
	for len(list.Items) == 0 {
		es := s.nextEvents(ctx, list.Next)
		if len(es) == 0 {
			break
		}
		if list.Next == q.after {
			list.Missed = missed(list.Next, es)
		}
		list.Next = es[len(es)-1].Seq
		list.Items = append(list.Items, q.only(es)...)
	}
	return answer{body: list}, nil
}

// nextEvents are the next few events after the given one.
func (s *Server) nextEvents(ctx context.Context, after uint64) []watch.Event {
	es := s.watcher.Events(ctx, after)
	return slices.Clone(es[:min(len(es), batch)]) // not to hold on to all of them
}

// lastEvent is the seq of the last event that there is, 0 if there is none.
func (s *Server) lastEvent() uint64 {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if es := s.watcher.Events(over, 0); len(es) > 0 {
		return es[len(es)-1].Seq
	}
	return 0
}

// only are the events of the target.
func (q *eventQuery) only(es []watch.Event) []watch.Event {
	if q.target == "" {
		return es
	}
	return slices.DeleteFunc(es, func(e watch.Event) bool { return e.Target != q.target })
}

// missed is how many events after the given one are gone. Who asks from the
// beginning has missed none.
func missed(after uint64, es []watch.Event) uint64 {
	if after == 0 || es[0].Seq <= after+1 {
		return 0
	}
	return es[0].Seq - after - 1
}

// stream sends events as they happen (HTML standard, "Server-sent events"), until
// the caller hangs up or does not keep up.
func (s *Server) stream(ctx context.Context, c *call, q eventQuery) (answer, error) {
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // of a proxy that would keep them
	c.event.ResponseStatus = &audit.Status{Code: http.StatusOK}
	s.record(c, audit.StageResponseStarted)
	c.started = true
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return answer{sent: true}, nil
	}
	piece := []byte("retry: 3000\n\n")
	for c.push(piece, s.piece) == nil {
		beat, cancel := context.WithTimeout(ctx, heartbeat)
		es := s.nextEvents(beat, q.after)
		cancel()
		if ctx.Err() != nil {
			break
		}
		if len(es) == 0 {
			piece = []byte(": still here\n\n")
			continue
		}
		piece = nil
		if n := missed(q.after, es); n > 0 {
			piece = fmt.Appendf(piece, "event: missed\ndata: {\"missed\":%d}\n\n", n)
		}
		q.after = es[len(es)-1].Seq
		for _, e := range q.only(es) {
			b, err := json.Marshal(e)
			if err != nil {
				s.log.Error("memguard: control: an event that is no JSON", "seq", e.Seq, "error", err)
				continue
			}
			piece = fmt.Appendf(piece, "id: %d\ndata: %s\n\n", e.Seq, b)
		}
	}
	return answer{sent: true}, nil
}

// push sends a piece of a stream. Who does not take it in time is hung up on.
func (c *call) push(piece []byte, within time.Duration) error {
	if err := c.ctl.SetWriteDeadline(time.Now().Add(within)); err != nil && !isUnsupported(err) {
		return err
	}
	if _, err := c.w.Write(piece); err != nil {
		return err
	}
	return c.ctl.Flush()
}
