// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/internal/plain"
)

// problem is an answer that is an error: what metav1.Status of Kubernetes'
// apimachinery says, so that those who know one know the other.
type problem struct {
	code    int    // of HTTP
	reason  string // in one word: API
	message string // what is the matter, and what to do
	causes  []audit.StatusCause
	retry   time.Duration // when to ask again; 0 says nothing of it
	allow   string        // methods, with 405
	unsure  bool          // whether it was done is not known
}

func (p *problem) Error() string { return p.message }

// The reasons: those of metav1.StatusReason where it has one.
const (
	reasonBad          = "BadRequest"
	reasonInvalid      = "Invalid" // understood, and it makes no sense or would do harm
	reasonUnauthorized = "Unauthorized"
	reasonForbidden    = "Forbidden"
	reasonNotFound     = "NotFound"
	reasonMethod       = "MethodNotAllowed"
	reasonConflict     = "Conflict"
	reasonTooLarge     = "RequestEntityTooLarge"
	reasonMedia        = "UnsupportedMediaType"
	reasonTooMany      = "TooManyRequests"
	reasonUnavailable  = "ServiceUnavailable"
	reasonTimeout      = "Timeout"
	reasonDefect       = "InternalError"
	reasonMissing      = "NotImplemented" // the service lacks a guard, or a part of one
)

func refuse(code int, reason, format string, args ...any) *problem {
	return &problem{code: code, reason: reason, message: fmt.Sprintf(format, args...)}
}

func bad(format string, args ...any) *problem {
	return refuse(http.StatusBadRequest, reasonBad, format, args...)
}

// busy says when to ask again.
func busy(code int, reason string, after time.Duration, format string, args ...any) *problem {
	p := refuse(code, reason, format, args...)
	p.retry = max(after, time.Second)
	return p
}

// status puts a problem into metav1.Status.
func (p *problem) status(c *call) *audit.Status {
	s := &audit.Status{Kind: "Status", APIVersion: "v1", Status: "Failure", Message: p.message, Reason: p.reason, Code: int32(p.code)}
	d := audit.StatusDetails{Causes: p.causes, RetryAfterSeconds: p.after()}
	if c.route != nil && c.route.resource != "" {
		d.Name, d.Group, d.Kind = c.name, Group, c.route.resource
	}
	if d.Kind != "" || len(d.Causes) > 0 || d.RetryAfterSeconds > 0 {
		s.Details = &d
	}
	return s
}

// recorded is the status as an event has it.
func (p *problem) recorded(c *call) *audit.Status {
	s := p.status(c)
	s.Kind, s.APIVersion = "", ""
	return s
}

// unrecordable is the answer to a write that cannot be recorded, and so is not done.
func unrecordable(where string, err error) *problem {
	return busy(http.StatusServiceUnavailable, reasonUnavailable, 10*time.Second, "nothing was done, for it cannot be recorded: %s: %s: make room for it", where, clean(err.Error(), 256))
}

// after is the retry time in whole seconds, rounded up.
func (p *problem) after() int32 { return int32(math.Ceil(p.retry.Seconds())) }

// clean bounds a text that came from elsewhere, and makes one plain line of it.
func clean(s string, most int) string { return plain.Line(s[:min(len(s), most)]) }
