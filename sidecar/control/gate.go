// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net/http"
	"strings"
	"time"

	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/auth"
)

// gate is who is known, and who may do what.
type gate struct {
	auth  *auth.Authenticator
	authz *auth.Authorizer
}

// SetAuth says anew who is known and who may do what. Requests that are under way
// and streams that run go on as they were let in.
func (s *Server) SetAuth(a *auth.Authenticator, z *auth.Authorizer) { s.gate.Store(&gate{a, z}) }

// AuthError is what is wrong with a file of who is known, whose old content stays in
// force: see [auth.Authenticator.ReloadError].
func (s *Server) AuthError() error { return s.gate.Load().auth.ReloadError() }

// Allows reports whether who asks may read the request's path, which is outside the
// API. It answers nothing and records nothing.
func (s *Server) Allows(r *http.Request) bool {
	g := s.gate.Load()
	user, err := g.auth.Authenticate(r)
	if err != nil {
		return false
	}
	ok, _ := g.authz.Authorize(auth.Attributes{User: user, Verb: "get", Path: r.URL.Path})
	return ok
}

// Guarded lets to next who may use the request's path, which is outside the API.
// Everything but GET and HEAD is a write, and recorded as one.
func (s *Server) Guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := s.newCall(w, r)
		defer func() {
			if p := recover(); p != nil {
				s.panicked(c, p)
			}
		}()
		a, err := s.pass(c, next)
		s.finish(c, a, err)
	})
}

func (s *Server) pass(c *call, next http.Handler) (answer, error) {
	method := c.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	c.route = &route{method: method, verb: strings.ToLower(method), path: c.r.URL.Path}
	if err := s.admit(c); err != nil {
		return answer{}, err
	}
	if c.route.changes() {
		if err := s.record(c, audit.StageRequestReceived); err != nil {
			return answer{}, unrecordable("the audit log", err)
		}
	}
	c.started = true
	c.w.Header().Del("Cache-Control") // next says its own
	w := &codeWriter{ResponseWriter: c.w, code: http.StatusOK}
	next.ServeHTTP(w, c.r)
	return answer{code: w.code, sent: true}, nil
}

// codeWriter remembers the status of an answer.
type codeWriter struct {
	http.ResponseWriter
	code int
}

func (w *codeWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

func (w *codeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// newCall begins a request.
func (s *Server) newCall(w http.ResponseWriter, r *http.Request) *call {
	c := &call{w: w, r: r, ctl: http.NewResponseController(w), at: time.Now()}
	c.event = audit.NewEvent(r, c.at)
	c.event.Annotations = map[string]string{}
	h := w.Header()
	h.Set("Audit-Id", c.event.AuditID)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	// Errors are of servers that cannot do this, as in tests of others.
	_ = c.ctl.SetReadDeadline(c.at.Add(s.reading))
	_ = c.ctl.SetWriteDeadline(c.at.Add(writeTimeout))
	return c
}
