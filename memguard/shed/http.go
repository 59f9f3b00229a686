// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"math/rand/v2"
	"net/http"
	"reflect"
	"strconv"
	"strings"
)

const refusedBody = "overloaded for now: try again later\n"

// Handler admits requests before next sees them, and before their bodies are
// read. What is refused is answered with 503 (Service Unavailable) and a
// Retry-After of one to three seconds, at random, lest all come back at once. So
// is a request whose context ends while it waits for room.
//
// The route of a request is the pattern of the http.ServeMux that it matches,
// if next is one, or if the handler is itself registered in one; paths that no
// pattern matches are the route "other". [Config.Work] may name it otherwise.
//
// The mux must be directly below: through what is between (a handler that logs, the
// router of another library) no pattern is seen. Then all is the route "other", with
// one cost for all of it, and one that leaks takes the room of the rest. Put the
// limiter around the mux and the others around the limiter, or name the routes.
func (l *Limiter) Handler(next http.Handler) http.Handler {
	mux, _ := next.(*http.ServeMux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var work Work
		if l.work != nil {
			work = l.work(r)
		}
		handler := next
		if work.Route == "" && mux == nil {
			work.Route = r.Pattern
		} else if work.Route == "" {
			work.Route, handler = match(mux, r)
		}
		u, gen, reason, err := l.enter(r.Context(), work)
		if err != nil || reason != "" {
			// An error is that the context has ended: the client may have gone, or be there
			// still, when a timeout above us did it. Silence would be 200 to it.
			refuse(w)
			return
		}
		defer l.leave(u, gen)
		handler.ServeHTTP(w, r)
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

// match finds the pattern of mux that a request matches, and who is to answer it:
// mux itself, unless all that it would do once more is to find the same handler.
// A pattern without wildcards leaves nothing else to do, in a request that has not
// come through another ServeMux.
func match(mux *http.ServeMux, r *http.Request) (pattern string, answers http.Handler) {
	h, pattern := mux.Handler(r)
	switch {
	case reflect.TypeOf(h) == redirects:
		return "", mux
	case pattern == "" || strings.Contains(pattern, "{") || r.Pattern != "" || r.RequestURI == "*":
		return pattern, mux
	}
	r.Pattern = pattern
	return pattern, h
}
