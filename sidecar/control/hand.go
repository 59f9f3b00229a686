// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/memguard/memguard-go/sidecar/watch"
)

// hand is what a write is done with: the guard in the target's process, and what
// it says of itself now.
type hand struct {
	client *agent.Client
	id     target.Identity
	state  *agent.Hand
	leave  func()
}

// missing says what a service lacks in which a setting cannot be found.
func (set *setting) missing(h *agent.Hand) string {
	if h.Orders == nil {
		return fmt.Sprintf("the service's guard is of an older release, which has no %s that can be set: build the service with a newer one", set.name)
	}
	return set.lacks
}

// reach finds the hand in the target's process. The watcher looks for an agent from
// time to time; where it has none, reach looks: what was not found a while ago, or
// not looked for since the sidecar began, is no reason to refuse.
func (s *Server) reach(ctx context.Context, c *call) (_ *hand, err error) {
	st, err := s.target(c)
	if err != nil {
		return nil, err
	}
	client, id, err := s.watcher.Agent(c.name)
	if err != nil && st.State != watch.Running {
		return nil, refuse(http.StatusConflict, reasonConflict, "target %q is %s: no process of it runs that could be changed: ask again when it does", c.name, st.State)
	}
	c.annotate(audit.AnnotationTargetPID, strconv.Itoa(id.PID))
	c.annotate(audit.AnnotationTargetStart, strconv.FormatUint(id.Start, 10))
	if h := stackHash(st.Clusters); h != "" {
		c.annotate(audit.AnnotationStack, h)
	}
	leave := func() {}
	if err != nil && id.PID != 0 {
		if client, err = agent.Dial(id.PID); err == nil {
			leave = client.Close
		}
		if lives, known := alive(id); known && !lives { // its pid may be another's by now
			leave()
			return nil, refuse(http.StatusConflict, reasonConflict, "pid %d of target %q has ended: look for the process that takes its place, and decide anew", id.PID, c.name)
		}
	}
	defer func() {
		if err != nil {
			leave()
		}
	}()
	if err != nil {
		return nil, refuse(http.StatusNotImplemented, reasonMissing, "%s: only a service that imports memguard can be changed: call memguard.Start and agent.Serve in it, or import memguard/auto", clean(err.Error(), 512))
	}
	now, err := client.Status(ctx)
	if err != nil {
		return nil, s.failed(c, err)
	}
	switch {
	case now.Hand == nil:
		return nil, refuse(http.StatusNotImplemented, reasonMissing, "the guard in pid %d watches another process, and changes nothing", id.PID)
	case now.Hand.DryRun:
		return nil, refuse(http.StatusNotImplemented, reasonMissing, "the guard in pid %d runs dry, or beside another one of its process, and changes nothing: start one, without DryRun (MEMGUARD=on)", id.PID)
	}
	return &hand{client, id, now.Hand, leave}, nil
}

// stackHash stands for where the target's goroutines are: the biggest clusters.
func stackHash(cs []attach.Cluster) string {
	if len(cs) == 0 {
		return ""
	}
	h := sha256.New()
	for _, c := range cs[:min(len(cs), 5)] {
		for _, f := range c.Stack {
			fmt.Fprintln(h, f.Func)
		}
		fmt.Fprintln(h)
	}
	return "goroutines:" + hex.EncodeToString(h.Sum(nil)[:8])
}

// check holds what the caller expects against what is.
func (e *expected) check(h *hand, set *setting, w *write) error {
	var wrong []audit.StatusCause
	differs := func(field string, is any) {
		wrong = append(wrong, audit.StatusCause{Reason: "FieldValueConflict", Field: "expected." + field, Message: fmt.Sprintf("it is %v", is)})
	}
	if e.pid != nil && *e.pid != int64(h.id.PID) {
		differs("pid", h.id.PID)
	}
	if e.start != nil && *e.start != h.id.Start {
		differs("start_ticks", h.id.Start)
	}
	if e.value != nil {
		want, err := set.parse(e.value)
		if err != nil {
			return badField("expected.value", "%v", err)
		}
		switch is, ok := set.now(h.state); {
		case !ok:
			return refuse(http.StatusNotImplemented, reasonMissing, "%s", set.missing(h.state))
		case is != want:
			differs("value", set.show(is))
		}
	}
	if wrong == nil {
		return nil
	}
	text := "it is not as expected:"
	for _, c := range wrong {
		text += " " + c.Field + ": " + c.Message + ";"
	}
	p := refuse(http.StatusConflict, reasonConflict, "%s nothing was done: look again, and decide anew", text)
	p.causes = wrong
	return p
}

// failed puts an error of the agent's into an answer.
func (s *Server) failed(c *call, err error) error {
	text := clean(err.Error(), 1024)
	switch {
	case errors.Is(err, memguard.ErrOrder):
		return refuse(http.StatusUnprocessableEntity, reasonInvalid, "the service's guard refuses: %s", text)
	case errors.Is(err, memguard.ErrBusy):
		return busy(http.StatusConflict, reasonConflict, time.Second, "%s: wait for its event of kind applied", text)
	case errors.Is(err, memguard.ErrNoOrder):
		return refuse(http.StatusNotFound, reasonNotFound, "%s: the override stands no longer", text)
	case errors.Is(err, memguard.ErrGone):
		return refuse(http.StatusConflict, reasonConflict, "%s: look for the process that takes its place, and decide anew", text)
	case errors.Is(err, context.DeadlineExceeded):
		p := busy(http.StatusGatewayTimeout, reasonTimeout, 10*time.Second, "the service's guard did not answer within %v (%s): whether it was done is not known: see overrides and events", s.patience, text)
		p.unsure = true
		return p
	}
	p := busy(http.StatusBadGateway, reasonUnavailable, 10*time.Second, "the service's guard gave no answer that can be understood: %s: whether it was done is not known: see overrides and events", text)
	p.unsure = true
	return p
}
