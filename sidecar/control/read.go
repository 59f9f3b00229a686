// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/watch"
)

// list is an answer that is several things.
type list[T any] struct {
	Kind  string `json:"kind"`
	Items []T    `json:"items"`
}

func newList[T any](kind string, items []T) answer {
	return answer{body: list[T]{kind, append([]T{}, items...)}} // never null
}

const (
	lookTimeout = 40 * time.Second // a snapshot has bounds of its own
	mostProfile = 16 << 20         // bytes
)

func (s *Server) runtimes(*call) (answer, error) {
	return newList("RuntimeList", s.watcher.Targets()), nil
}

// target is the one that the call is about.
func (s *Server) target(c *call) (watch.Status, error) {
	st, err := s.watcher.Status(c.name)
	if err != nil {
		return st, refuse(http.StatusNotFound, reasonNotFound, "%s: see .../runtimes for the targets that there are", clean(err.Error(), 512))
	}
	return st, nil
}

func (s *Server) runtime(c *call) (answer, error) {
	st, err := s.target(c)
	return answer{body: st}, err
}

// running is the target's status, with figures in it.
func (s *Server) running(c *call) (watch.Status, error) {
	st, err := s.target(c)
	if err == nil && st.Guard == nil {
		err = refuse(http.StatusNotFound, reasonNotFound, "target %q is %s, and has not been looked at: ask again when it runs, or for its timeline and .../incidents?target=%s", st.Name, st.State, st.Name)
	}
	return st, err
}

func (s *Server) ledger(c *call) (answer, error) {
	st, err := s.running(c)
	if err != nil {
		return answer{}, err
	}
	return answer{body: st.Guard.Ledger}, nil
}

// findingList has the findings, and what could not be seen: without that an empty
// list would say more than is known.
type findingList struct {
	Kind  string             `json:"kind"`
	Items []memguard.Finding `json:"items"`
	Blind []memguard.Blind   `json:"blind"`
}

func (s *Server) findings(c *call) (answer, error) {
	st, err := s.running(c)
	if err != nil {
		return answer{}, err
	}
	return answer{body: findingList{"FindingList", append([]memguard.Finding{}, st.Guard.Findings...), append([]memguard.Blind{}, st.Guard.Blind...)}}, nil
}

func (s *Server) timeline(c *call) (answer, error) {
	var since time.Time
	if v := c.query.Get("since"); v != "" {
		ago, err := time.ParseDuration(v)
		if err == nil && ago >= 0 {
			since = c.at.Add(-ago)
		} else if since, err = time.Parse(time.RFC3339, v); err != nil {
			return answer{}, badField("since", "%q: want a time as 2026-01-02T15:04:05Z, or how long ago, as 10m", clean(v, 64))
		}
	}
	if _, err := s.target(c); err != nil {
		return answer{}, err
	}
	t, err := s.watcher.Timeline(c.name, since)
	return answer{body: t}, s.cannotLook(err)
}

// look waits for a place among those who have a target looked at.
func (s *Server) look(c *call) (ctx context.Context, leave func(), err error) {
	if _, err := s.target(c); err != nil {
		return nil, nil, err
	}
	free, err := s.place()
	if err != nil {
		return nil, nil, err
	}
	_ = c.ctl.SetReadDeadline(time.Time{}) // see events
	ctx, cancel := context.WithTimeout(c.r.Context(), lookTimeout)
	return ctx, func() { cancel(); free() }, nil
}

// place is one of the few for answers that are large or take long.
func (s *Server) place() (leave func(), err error) {
	select {
	case s.looks <- struct{}{}:
		return func() { <-s.looks }, nil
	default:
		return nil, busy(http.StatusTooManyRequests, reasonTooMany, time.Second, "%d large answers are being made: ask again in a second", cap(s.looks))
	}
}

// cannotLook says why a target could not be looked at, nil if it could.
func (s *Server) cannotLook(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, watch.ErrNone):
		return refuse(http.StatusNotFound, reasonNotFound, "%s: the target's sources say what can be had of it", clean(err.Error(), 512))
	case errors.Is(err, context.DeadlineExceeded):
		return busy(http.StatusGatewayTimeout, reasonTimeout, time.Minute, "%s: ask again when the machine has time", clean(err.Error(), 512))
	}
	return busy(http.StatusServiceUnavailable, reasonUnavailable, 5*time.Second, "%s: see the target's sources, and ask again", clean(err.Error(), 512))
}

func (s *Server) snapshot(c *call) (answer, error) {
	ctx, leave, err := s.look(c)
	if err != nil {
		return answer{}, err
	}
	defer leave()
	if c.r.Method == http.MethodHead {
		return answer{kind: "application/json"}, nil
	}
	snap, err := s.watcher.Snapshot(ctx, c.name)
	return answer{body: snap}, s.cannotLook(err)
}

func (s *Server) profile(c *call) (answer, error) {
	kind := c.path["profile"]
	if kind != "heap" && kind != "goroutine" {
		return answer{}, refuse(http.StatusNotFound, reasonNotFound, "there is no profile %q: want heap or goroutine", kind)
	}
	ctx, leave, err := s.look(c)
	if err != nil {
		return answer{}, err
	}
	defer leave()
	a := answer{kind: "application/octet-stream"}
	if c.r.Method == http.MethodHead {
		return a, nil
	}
	var b bytes.Buffer
	if err := s.watcher.Profile(ctx, c.name, kind, &bounded{&b, mostProfile}); err != nil {
		return answer{}, s.cannotLook(err)
	}
	c.w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", kind+".pb.gz"))
	a.raw = b.Bytes()
	return a, nil
}

// bounded writes up to so many bytes.
type bounded struct {
	io.Writer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errors.New("it is larger than is sent")
	}
	return b.Writer.Write(p)
}

func isUnsupported(err error) bool { return errors.Is(err, http.ErrNotSupported) }
