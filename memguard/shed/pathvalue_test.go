// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
)

var wildcards = regexp.MustCompile(`\{([^{}/]*?)(\.\.\.)?\}`)

// A handler below the limiter sees the path values that the mux by itself gives it.
func FuzzPathValues(f *testing.F) {
	for _, seed := range [][2]string{
		{"/{a}", "/x"}, {"/{a}", "/"}, {"/{a}/", "/x/y"}, {"/{a}/", "/x"}, {"/{a}/b/{c}", "/1/b/2"}, {"/{a...}", "/"}, {"/{a...}", "/x%2Fy/z%20"},
		{"/x/{a...}", "/x"}, {"/x/{a...}", "/x/"}, {"/{$}", "/"}, {"/{a}/{$}", "/1/"}, {"/{a}", "/%zz"}, {"/{a}", "/a%2Fb"}, {"/a/{b}", "//b"},
		{"example.com/{a}", "/1"}, {"GET example.com/{a}", "http://example.com/1"}, {"/%7Ba%7D/{b}", "/%7Ba%7D/c"}, {"/a b/{c}", "/a%20b/d"}, {"/{a}", "/%2F"},
	} {
		f.Add("GET", seed[0], seed[1])
		f.Add("CONNECT", seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, method, pattern, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		mux := http.NewServeMux()
		if !registers(mux, pattern) {
			return
		}
		seen := func(h http.Handler) string {
			r := &http.Request{Method: method, URL: u, Host: u.Host, RequestURI: target}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return fmt.Sprint(w.Code, w.Header(), w.Body)
		}
		assert.Equal(t, seen(mux), seen(New(Config{}).Handler(mux)))
	})
}

// registers reports whether pattern is one. Its handler tells what it was given.
func registers(mux *http.ServeMux, pattern string) (ok bool) {
	defer func() { ok = recover() == nil }()
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q", r.Pattern)
		for _, m := range wildcards.FindAllStringSubmatch(pattern, -1) {
			fmt.Fprintf(w, " %q %q", m[1], r.PathValue(m[1]))
		}
	})
	return
}
