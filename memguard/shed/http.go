// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"math/rand/v2"
	"net/http"
	"reflect"
	"strconv"
)

const refusedBody = "out of memory for now: try again later\n"

// Handler admits requests before next sees them, and before their bodies are
// read. What is refused is answered with 503 (Service Unavailable) and a
// Retry-After of one to three seconds, at random, lest all come back at once.
//
// The route of a request is the pattern of the http.ServeMux that it matches,
// if next is one, or if the handler is itself registered in one; paths that no
// pattern matches are the route "other". [Config.Work] may name it otherwise.
func (l *Limiter) Handler(next http.Handler) http.Handler {
	mux, _ := next.(*http.ServeMux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var work Work
		if l.work != nil {
			work = l.work(r)
		}
		if work.Route == "" {
			work.Route = pattern(mux, r)
		}
		u, gen, reason, err := l.enter(r.Context(), work)
		if err != nil {
			return // the client has gone
		}
		if reason != "" {
			refuse(w)
			return
		}
		defer l.leave(u, gen)
		next.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Retry-After", strconv.Itoa(1+rand.IntN(3)))
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(refusedBody)))
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = w.Write([]byte(refusedBody))
}

// redirects is the type of the handlers by which a ServeMux cleans up a path. The
// "pattern" that it gives for those is the path itself, which is anybody's choice.
var redirects = reflect.TypeOf(http.RedirectHandler("", http.StatusMovedPermanently))

// pattern finds the pattern that a request matches in mux, or has matched already.
func pattern(mux *http.ServeMux, r *http.Request) string {
	if mux == nil {
		return r.Pattern
	}
	h, pattern := mux.Handler(r)
	if reflect.TypeOf(h) == redirects {
		return ""
	}
	return pattern
}
