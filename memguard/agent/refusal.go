// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/memguard/memguard-go/memguard"
)

// refusal is an answer that is an error.
type refusal struct {
	Code  string `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
	Do    string `json:"do,omitempty"` // what to do about it
}

// The codes of refusals. They are API.
const (
	codeForbidden = "forbidden" // another user asks
	codeNotFound  = "not-found" // there is no such thing to ask for
	codeMethod    = "method"    // not in this way
	codeBad       = "bad-request"
	codeRefused   = "refused"  // the order makes no sense, or would do harm
	codeBusy      = "busy"     // the action is under way already
	codeNoOrder   = "no-order" // no such order stands
	codeTooMany   = "too-many" // requests at once
	codeHangs     = "hangs"    // the guard does not answer
	codeGone      = "ended"    // the guard has ended
	codeDefect    = "defect"
)

// asError is a refusal as an error, of a handler and of a [Client].
type asError struct {
	refusal
	status int // of HTTP
}

func (e *asError) Error() string { return e.refusal.Error + ": " + e.Do }

// Unwrap gives the errors of memguard that it stands for.
func (e *asError) Unwrap() error {
	switch e.Code {
	case codeRefused:
		return memguard.ErrOrder
	case codeBusy:
		return memguard.ErrBusy
	case codeNoOrder:
		return memguard.ErrNoOrder
	}
	return nil
}

func refuse(status int, code, do, format string, args ...any) error {
	return &asError{refusal{code, fmt.Sprintf(format, args...), do}, status}
}

var tooMany = refusal{codeTooMany, "too many requests at once", "ask again in a second"}

// refusalOf says how an error is answered.
func refusalOf(err error) *asError {
	e, ok := errors.AsType[*asError](err)
	switch {
	case ok:
		return e
	case errors.Is(err, memguard.ErrOrder):
		return &asError{refusal{codeRefused, err.Error(), "ask for something else"}, http.StatusUnprocessableEntity}
	case errors.Is(err, memguard.ErrBusy):
		return &asError{refusal{codeBusy, err.Error(), "wait for its event of kind applied"}, http.StatusConflict}
	case errors.Is(err, memguard.ErrNoOrder):
		return &asError{refusal{codeNoOrder, err.Error(), "see the events: it was taken back, or its time is over"}, http.StatusNotFound}
	}
	return &asError{refusal{codeGone, err.Error(), "look from outside"}, http.StatusServiceUnavailable}
}
