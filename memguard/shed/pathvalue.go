// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"net/http"
	"net/url"
	"strings"
)

// setPathValues gives a request the path values of a pattern that it matches, as
// ServeMux.ServeHTTP does: to route twice is most of what the middleware would cost.
// False is that it does not match after all; then ServeMux is to do it.
//
// A pattern is "[METHOD ][HOST]/PATH"; of its segments {name} stands for one of the
// path's and {name...} for all that are left, both unescaped (net/http: pattern.go,
// routing_tree.go).
func setPathValues(r *http.Request, pattern string) bool {
	_, pattern, ok := strings.Cut(pattern, "/") // neither a method nor a host has one
	path, rooted := strings.CutPrefix(r.URL.EscapedPath(), "/")
	for more := true; ok && rooted && more; {
		var segment string
		segment, pattern, more = strings.Cut(pattern, "/")
		name, wild := strings.CutPrefix(segment, "{")
		name = strings.TrimSuffix(name, "}")
		rest, multi := strings.CutSuffix(name, "...")
		if wild && multi {
			r.SetPathValue(rest, unescaped(path))
			return true
		}
		var value string
		value, path, rooted = strings.Cut(path, "/")
		if wild && name != "$" {
			r.SetPathValue(name, unescaped(value))
		}
		if !more {
			return !rooted // nothing is left of either
		}
		if pattern == "" {
			return rooted // the pattern ends with a slash, and takes all that is left
		}
	}
	return false
}

// unescaped is a part of a path as it was meant, or as it is if that makes no sense.
func unescaped(part string) string {
	if s, err := url.PathUnescape(part); err == nil {
		return s
	}
	return part
}
