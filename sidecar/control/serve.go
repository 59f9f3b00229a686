// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/auth"
	"github.com/memguard/memguard-go/sidecar/incident"
)

const (
	readTimeout  = 10 * time.Second // of a request's body
	writeTimeout = time.Minute      // of an answer; that of a stream is for each piece
)

// call is one request on its way.
type call struct {
	w      http.ResponseWriter
	r      *http.Request
	ctl    *http.ResponseController
	at     time.Time
	route  *route
	name   string            // of the target or incident
	path   map[string]string // what its path says
	query  url.Values
	user   auth.User
	about  string           // the target, also of an incident; empty is all
	report *incident.Report // that was looked up to know

	decision audit.Decision
	event    audit.Event // grows as more is known
	started  bool        // the answer has begun
}

// answer is what a request gets.
type answer struct {
	code  int    // of HTTP; 0 is 200
	body  any    // as JSON
	raw   []byte // else bytes
	kind  string // of this Content-Type
	sent  bool   // or it has been sent already
	again bool   // it is the first answer to this Idempotency-Key
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := s.newCall(w, r)
	defer func() {
		if p := recover(); p != nil {
			s.panicked(c, p)
		}
	}()
	a, err := s.handle(c)
	s.finish(c, a, err)
}

// panicked contains a defect of ours: it costs this one answer.
func (s *Server) panicked(c *call, p any) {
	s.log.Error("memguard: control: panic", slog.String("uri", clean(c.r.RequestURI, 256)), slog.String("audit_id", c.event.AuditID),
		slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
	e := refuse(http.StatusInternalServerError, reasonDefect, "a defect of the sidecar: report it with the stack in its log; what the request asked for may have been done: see overrides and events before you ask again")
	c.event.ResponseStatus = e.status(c)
	s.record(c, audit.StagePanic)
	if c.started {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	s.send(c, answer{code: e.code, body: e.status(c)}, 0)
}

// handle does everything up to the answer.
func (s *Server) handle(c *call) (answer, error) {
	parts, err := segments(c.r.URL)
	if err != nil {
		return answer{}, err
	}
	route, values, methods := find(c.r.Method, parts)
	if methods == nil {
		return answer{}, refuse(http.StatusNotFound, reasonNotFound, "there is no such path here: see /openapi/v3 for what there is")
	}
	if c.r.Method == http.MethodOptions {
		c.w.Header().Set("Allow", strings.Join(methods, ", "))
		return answer{code: http.StatusNoContent}, nil
	}
	if route == nil {
		p := refuse(http.StatusMethodNotAllowed, reasonMethod, "%s does not go here: use %s", clean(c.r.Method, 16), strings.Join(methods, ", "))
		p.allow = strings.Join(methods, ", ")
		return answer{}, p
	}
	c.route, c.path, c.name = route, values, values["name"]+values["id"]
	if err := s.admit(c); err != nil {
		return answer{}, err
	}
	if ns := c.path["namespace"]; route.resource != "" && ns != s.namespace {
		return answer{}, refuse(http.StatusNotFound, reasonNotFound, "there is no namespace %q here: this sidecar serves %q", ns, s.namespace)
	}
	for key, v := range c.query {
		if !slices.Contains(route.params, key) {
			return answer{}, bad("unknown query parameter %q: want one of %q", clean(key, 64), route.params)
		}
		if len(v) > 1 {
			return answer{}, bad("query parameter %q is there %d times: send it once", key, len(v))
		}
	}
	if !route.changes() {
		s.record(c, audit.StageRequestReceived)
	}
	return route.do(s, c)
}

// admit finds out who asks, and whether they may.
func (s *Server) admit(c *call) error {
	t := c.route
	query, err := url.ParseQuery(c.r.URL.RawQuery)
	c.query = query
	c.event.Verb = t.verb
	if t.resource != "" {
		c.event.ObjectRef = &audit.ObjectReference{
			Resource: t.resource, Subresource: t.subresource, Namespace: c.path["namespace"], Name: c.name, APIGroup: Group, APIVersion: Version,
		}
	}
	gate := s.gate.Load()
	user, denied := gate.auth.Authenticate(c.r)
	c.user = user
	c.event.User = audit.User{Username: user.Name, UID: user.UID, Groups: user.Groups, Extra: user.Extra}
	if who, ok := auth.CallerOf(c.r.Context()); ok {
		c.annotate(audit.AnnotationCallerUID, strconv.Itoa(who.UID))
		c.annotate(audit.AnnotationCallerPID, strconv.Itoa(who.PID))
	}
	if tp := c.r.Header.Get("Traceparent"); tp != "" && len(tp) <= 128 && clean(tp, 128) == tp {
		c.annotate(audit.AnnotationTraceparent, tp)
	}
	c.decide(s)
	if denied != nil {
		return s.unknown(c, denied)
	}
	if err != nil {
		return bad("the query cannot be read: %s", clean(err.Error(), 128))
	}
	switch t.resource {
	case "events":
		c.about = c.query.Get("target")
	case "incidents":
		c.about = s.incidentTarget(c)
	default:
		c.about = c.name
	}
	allowed, why := gate.authz.Authorize(auth.Attributes{
		User: user, Verb: t.verb, APIGroup: group(t), Resource: t.resource, Subresource: t.subresource,
		Namespace: c.path["namespace"], Name: c.about, Path: pathOf(t),
	})
	c.annotate(audit.AnnotationReason, clean(why, 512))
	c.annotate(audit.AnnotationDecision, map[bool]string{true: "allow", false: "forbid"}[allowed])
	if !allowed {
		return s.forbidden(c, why)
	}
	if t.changes() {
		if t.resource != "" && !s.orders { // not s.forbidden: nobody helps by saying who they are
			const why = "writes are switched off here"
			c.annotate(audit.AnnotationDecision, "forbid")
			c.annotate(audit.AnnotationReason, why)
			return s.denied(c, refuse(http.StatusForbidden, reasonForbidden, why+": the sidecar's operator switches them on with writes.enabled in its configuration"))
		}
		if err := s.origin.Check(c.r); err != nil { // a page of somebody else's, in the browser of somebody who may
			return s.forbidden(c, "a page of another origin asks: writes are not taken from there")
		}
	}
	return nil
}

// group and pathOf are of the API, or of what is outside it.
func group(t *route) string {
	if t.resource == "" {
		return ""
	}
	return Group
}

func pathOf(t *route) string {
	if t.resource == "" {
		return t.path
	}
	return ""
}

// decide asks the policy how much is recorded. Writes are, whatever it says.
func (c *call) decide(s *Server) {
	t := c.route
	c.decision = s.policy.Decide(audit.Attributes{
		User: c.user.Name, Groups: c.user.Groups, Verb: t.verb, APIGroup: group(t), Resource: t.resource, Subresource: t.subresource,
		Namespace: c.path["namespace"], Name: c.name, Path: pathOf(t),
	})
	if t.changes() {
		c.decision = c.decision.Must()
	}
}

func (c *call) annotate(key, value string) { c.event.Annotations[key] = value }

// unknown is the answer to a credential that is wrong.
func (s *Server) unknown(c *call, err error) error {
	c.annotate(audit.AnnotationDecision, "forbid")
	c.annotate(audit.AnnotationReason, clean(err.Error(), 512))
	if e, ok := errors.AsType[*auth.Error](err); ok && e.RetryAfter > 0 {
		return s.denied(c, busy(http.StatusTooManyRequests, reasonTooMany, e.RetryAfter, "%s", clean(err.Error(), 512)))
	}
	return s.denied(c, refuse(http.StatusUnauthorized, reasonUnauthorized, "%s", clean(err.Error(), 512)))
}

// forbidden is the answer to who may not: to who did not say who they are it is to
// say so.
func (s *Server) forbidden(c *call, why string) error {
	c.annotate(audit.AnnotationDecision, "forbid")
	c.annotate(audit.AnnotationReason, clean(why, 512))
	if c.user.How == auth.HowAnonymous {
		return s.denied(c, refuse(http.StatusUnauthorized, reasonUnauthorized, "%s: say who you are", clean(why, 512)))
	}
	return s.denied(c, refuse(http.StatusForbidden, reasonForbidden, "%s: ask the sidecar's operator for a rule, or for something else", clean(why, 512)))
}

// record writes the call's event at a stage, if it is to be recorded there.
func (s *Server) record(c *call, stage audit.Stage) error {
	if c.decision.Level == "" {
		return nil // it did not come so far
	}
	e, ok := c.decision.At(stage, c.event)
	if !ok {
		return nil
	}
	err := s.audit.Append(e)
	if err != nil {
		s.log.Error("memguard: control: an audit record is lost", slog.String("audit_id", c.event.AuditID), slog.String("stage", string(stage)), slog.Any("error", err))
	}
	return err
}

// finish records the outcome and sends the answer.
func (s *Server) finish(c *call, a answer, err error) {
	var retry int32
	if err != nil {
		p, ok := errors.AsType[*problem](err)
		if !ok {
			s.log.Error("memguard: control: failed", slog.String("uri", clean(c.r.RequestURI, 256)), slog.Any("error", err))
			p = refuse(http.StatusInternalServerError, reasonDefect, "%s", clean(err.Error(), 512))
		}
		a, retry = answer{code: p.code, body: p.status(c)}, p.after()
		if p.allow != "" {
			c.w.Header().Set("Allow", p.allow)
		}
		if p.code == http.StatusUnauthorized {
			c.w.Header()["Www-Authenticate"] = s.gate.Load().auth.Challenges()
		}
		c.event.ResponseStatus = p.recorded(c)
	} else {
		code := a.code
		if code == 0 {
			code = http.StatusOK
		}
		c.event.ResponseStatus = &audit.Status{Code: int32(code)}
	}
	if a.body != nil {
		b, err := json.Marshal(a.body)
		if err != nil {
			panic(fmt.Sprintf("an answer that is no JSON: %v", err))
		}
		a.raw, a.kind, a.body = append(b, '\n'), "application/json", nil
		if c.route != nil && c.route.changes() {
			c.event.ResponseObject = b
		}
	}
	if c.route != nil {
		s.record(c, audit.StageResponseComplete)
	}
	s.send(c, a, retry)
}

// send sends an answer. Who has hung up does not get it.
func (s *Server) send(c *call, a answer, retry int32) {
	if a.sent {
		return
	}
	if a.body != nil { // of a panic
		a.raw, _ = json.Marshal(a.body)
		a.kind = "application/json"
	}
	h := c.w.Header()
	if retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int(retry)))
	}
	if a.again {
		h.Set("Idempotent-Replayed", "true")
	}
	if a.kind != "" {
		h.Set("Content-Type", a.kind)
	}
	if a.code == 0 {
		a.code = http.StatusOK
	}
	if a.code != http.StatusNoContent && (len(a.raw) > 0 || c.r.Method != http.MethodHead) {
		h.Set("Content-Length", strconv.Itoa(len(a.raw)))
	}
	_ = c.ctl.SetWriteDeadline(time.Now().Add(writeTimeout))
	c.started = true
	c.w.WriteHeader(a.code)
	_, _ = c.w.Write(a.raw)
}
