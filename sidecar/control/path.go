// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Group and Version are those of the API: /apis/memguard.dev/v1alpha1.
const (
	Group   = "memguard.dev"
	Version = "v1alpha1"
)

const (
	mostPath    = 1024 // bytes, as sent
	mostSegment = 253  // bytes, as of a name in Kubernetes
)

// segments takes a path apart. It does not clean it: what is not written plainly
// is no path of ours, so that nobody in front of us can read it differently.
func segments(u *url.URL) ([]string, error) {
	path := u.EscapedPath()
	if len(path) > mostPath {
		return nil, refuse(http.StatusRequestURITooLong, reasonBad, "the path has %d bytes: at most %d", len(path), mostPath)
	}
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, bad("the path %q does not begin with a slash", clean(path, 64))
	}
	parts := strings.Split(rest, "/")
	for i, p := range parts {
		s, err := url.PathUnescape(p)
		if err != nil || s == "" || s == "." || s == ".." || len(s) > mostSegment || !utf8.ValidString(s) ||
			strings.ContainsAny(s, `/\`) || clean(s, len(s)) != s {
			return nil, bad("part %d of the path, %q, is no name: see /openapi/v3 for what there is", i+1, clean(p, 64))
		}
		parts[i] = s
	}
	return parts, nil
}

// match compares a path with a pattern, in which {name} stands for any one part.
func match(pattern, parts []string) (values map[string]string, ok bool) {
	if len(pattern) != len(parts) {
		return nil, false
	}
	for i, p := range pattern {
		if name, is := strings.CutPrefix(p, "{"); is {
			if values == nil {
				values = map[string]string{}
			}
			values[strings.TrimSuffix(name, "}")] = parts[i]
		} else if p != parts[i] {
			return nil, false
		}
	}
	return values, true
}
