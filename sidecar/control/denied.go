// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/auth"
)

const (
	denialsPerMinute = 60 // of one caller that are recorded one by one
	denialsBurst     = 60
	floodWindow      = time.Minute
	mostFloods       = 256 // callers that are told apart in a window, each with a few KiB
	mostURI          = 512 // bytes of it that are kept of a flood's first call
)

// caller is who asks, for bounds: the user, or of who did not say, where from.
func (c *call) caller() string {
	if c.user.Name != "" && c.user.How != auth.HowAnonymous {
		return "user " + c.user.Name
	}
	if peer, ok := auth.CallerOf(c.r.Context()); ok {
		return "uid " + strconv.Itoa(peer.UID)
	}
	host, _, _ := net.SplitHostPort(c.r.RemoteAddr)
	return "address " + host
}

// floods are the denied calls that are not recorded one by one, because the records
// would drive all others out of the log. At the end of a window one event stands for
// those of a caller, and one for those of all callers beyond mostFloods.
type floods struct {
	mu     sync.Mutex
	of     map[string]*flood
	others *flood
}

type flood struct {
	calls uint64
	first audit.Event // of them
}

// add takes in that so many calls of a caller were denied, the first of them this one.
func (f *floods) add(who string, calls uint64, first audit.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.of[who]
	switch {
	case one != nil:
	case who == "" && f.others != nil: // that could not be recorded
		one = f.others
	case who == "":
		f.others = &flood{first: first}
		one = f.others
	case len(f.of) < mostFloods:
		one = &flood{first: first}
		if f.of == nil {
			f.of = map[string]*flood{}
		}
		f.of[who] = one
	case f.others == nil:
		f.others = &flood{first: first}
		fallthrough
	default:
		one = f.others
	}
	one.calls += calls
}

// take ends the window.
func (f *floods) take() (of map[string]*flood, others *flood) {
	f.mu.Lock()
	defer f.mu.Unlock()
	of, others = f.of, f.others
	f.of, f.others = nil, nil
	return of, others
}

// denied has the refusal recorded: at once, or at the end of the window where this
// caller is refused too often.
func (s *Server) denied(c *call, p *problem) error {
	who := c.caller()
	wait, _ := s.denials.ask(who, c.at)
	if wait <= 0 {
		c.decision = c.decision.Must()
		return p
	}
	p = busy(http.StatusTooManyRequests, reasonTooMany, wait, "refused too often: %s", p.message)
	first := c.event
	if len(first.RequestURI) > mostURI {
		first.RequestURI = first.RequestURI[:mostURI] + "...TRUNCATED"
	}
	first.RequestURI = strings.Clone(first.RequestURI) // not the whole of it
	first.Annotations = maps.Clone(first.Annotations)
	first.ResponseStatus = p.recorded(c)
	s.floods.add(who, 1, first)
	c.decision = audit.Decision{Level: audit.LevelNone}
	return p
}

// tellFloods ends a window each minute, until ctx ends.
func (s *Server) tellFloods(ctx context.Context) {
	tick := time.NewTicker(floodWindow)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.recordFloods()
		}
	}
}

// recordFloods has the floods on record. One that cannot be recorded is kept for the
// next time.
func (s *Server) recordFloods() (lost uint64, err error) {
	of, others := s.floods.take()
	if others != nil {
		e := &others.first
		// Of many: who they were is not known any more.
		e.User, e.SourceIPs, e.UserAgent, e.ObjectRef = audit.User{}, nil, "", nil
		e.Annotations = map[string]string{
			audit.AnnotationDecision: "forbid",
			audit.AnnotationReason:   "callers beyond the " + strconv.Itoa(mostFloods) + " that are told apart in a minute",
		}
		if of == nil {
			of = map[string]*flood{}
		}
		of[""] = others
	}
	for who, f := range of {
		f.first.Annotations[audit.AnnotationCalls] = strconv.FormatUint(f.calls, 10)
		e, _ := audit.Decision{}.Must().At(audit.StageResponseComplete, f.first)
		if failed := s.audit.Append(e); failed != nil {
			err = failed
			lost += f.calls
			s.floods.add(who, f.calls, f.first)
		}
	}
	if err != nil {
		s.log.Error("memguard: control: denied calls are not on record yet", slog.Uint64("calls", lost), slog.Any("error", err))
	}
	return lost, err
}
