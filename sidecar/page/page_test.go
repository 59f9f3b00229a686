// SPDX-License-Identifier: Apache-2.0

package page

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func ask(t *testing.T, method, target string, header http.Header) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, "http://sidecar.test/", nil)
	r.URL.Path = target
	for k, v := range header {
		r.Header[k] = v
	}
	w := httptest.NewRecorder()
	Handler("default").ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(b)
}

func TestHandlerServesEveryFileOfThePage(t *testing.T) {
	t.Parallel()
	kinds := map[string]string{
		"/": "text/html; charset=utf-8", "/page.css": "text/css; charset=utf-8", "/page.js": "text/javascript; charset=utf-8", "/icon.svg": "image/svg+xml",
	}
	for url := range load("default") {
		if strings.HasSuffix(url, ".js") {
			kinds[url] = kinds["/page.js"]
		}
	}
	assert.Len(t, load("default"), len(kinds), "a file of a kind that is not served")
	for url, kind := range kinds {
		r := ask(t, http.MethodGet, url, nil)
		assert.Equal(t, http.StatusOK, r.StatusCode, url)
		assert.Equal(t, kind, r.Header.Get("Content-Type"), url)
		assert.Equal(t, "no-cache", r.Header.Get("Cache-Control"), url)
		assert.NotEmpty(t, body(t, r), url)
		head := ask(t, http.MethodHead, url, nil)
		assert.Equal(t, r.Header, head.Header, url)
		assert.Empty(t, body(t, head), url)
	}
}

func TestHandlerSaysOnceWhatHasNotChanged(t *testing.T) {
	t.Parallel()
	first := ask(t, http.MethodGet, "/page.js", nil)
	tag := first.Header.Get("ETag")
	require.Regexp(t, `^"[0-9a-f]{32}"$`, tag)
	again := ask(t, http.MethodGet, "/page.js", http.Header{"If-None-Match": {tag}})
	assert.Equal(t, http.StatusNotModified, again.StatusCode)
	assert.Empty(t, body(t, again))
	other := ask(t, http.MethodGet, "/page.js", http.Header{"If-None-Match": {`"of another version"`}})
	assert.Equal(t, http.StatusOK, other.StatusCode)
	assert.NotEqual(t, load("default")["/"].tag, load("prod")["/"].tag, "the page differs by its namespace")
	assert.Equal(t, load("default")["/page.js"].tag, load("prod")["/page.js"].tag)
}

// Whatever is asked for: the headers are there.
func TestHandlerForbidsTheBrowserEverythingElse(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/", "/page.js", "/nothing"} {
		h := ask(t, http.MethodGet, target, nil).Header
		assert.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), target)
		assert.Equal(t, "no-referrer", h.Get("Referrer-Policy"), target)
		assert.Equal(t, "same-origin", h.Get("Cross-Origin-Resource-Policy"), target)
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'self'", "object-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'"} {
			assert.Contains(t, csp, want, target)
		}
		assert.NotContains(t, csp, "unsafe", target)
		assert.NotContains(t, csp, "http", target)
		assert.NotContains(t, csp, "*", target)
	}
}

func TestHandlerTakesNoPathsButItsOwn(t *testing.T) {
	t.Parallel()
	for _, target := range []string{
		"", "/index.html", "/assets/index.html", "/assets/", "/../page.go", "/..%2fpage.go", "/./page.js", "//page.js", "/page.js/", "/page.js\x00",
		"/PAGE.JS", `/..\page.go`, "/etc/passwd", "/.", "/..", "/apis/memguard.dev/v1alpha1/namespaces/default/runtimes", "/" + strings.Repeat("a/", 5000),
	} {
		assert.Equal(t, http.StatusNotFound, ask(t, http.MethodGet, target, nil).StatusCode, target)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions, "PROPFIND"} {
		r := ask(t, method, "/", nil)
		assert.Equal(t, http.StatusMethodNotAllowed, r.StatusCode, method)
		assert.Equal(t, "GET, HEAD", r.Header.Get("Allow"), method)
	}
}

func TestNamespaceCannotLeaveItsPlace(t *testing.T) {
	t.Parallel()
	plain := string(load("default")["/"].body)
	assert.Contains(t, plain, `<meta name="namespace" content="default">`)
	hostile := string(load(`"><script src="//evil.test/x.js">`)["/"].body)
	assert.Equal(t, strings.Count(plain, "<script"), strings.Count(hostile, "<script"))
	assert.Contains(t, hostile, `content="&#34;&gt;&lt;script src=&#34;//evil.test/x.js&#34;&gt;"`)
}

// The page works without a network: no URL leads elsewhere. And nothing in it
// makes HTML from text, or would be stopped by its own policy.
func TestAssetsLoadNothingAndParseNothing(t *testing.T) {
	t.Parallel()
	elsewhere := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9-]+\.[a-z]`)
	namespaces := strings.NewReplacer(`http://www.w3.org/2000/svg`, "")
	never := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc|\beval\(|new Function|setTimeout\("|javascript:|\bimport\(|@import|url\(h|localhost`)
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script>|<script type="module">`)
	for url, f := range load("default") {
		text := namespaces.Replace(string(f.body))
		assert.Empty(t, elsewhere.FindString(text), url)
		assert.Empty(t, never.FindString(text), url)
		if url == "/" || strings.HasSuffix(url, ".svg") {
			assert.Empty(t, inline.FindString(text), url)
		}
	}
}

// Every file that one of them asks for is there, and every file is asked for.
func TestAssetsAreComplete(t *testing.T) {
	t.Parallel()
	files := load("default")
	asked := map[string]bool{"/": true}
	ref := regexp.MustCompile(`(?:src|href)="([^"#][^"]*)"|from "\./([^"]+)"`)
	for url, f := range files {
		for _, m := range ref.FindAllStringSubmatch(string(f.body), -1) {
			name := "/" + m[1] + m[2]
			asked[name] = true
			assert.Contains(t, files, name, "asked for by %s", url)
		}
	}
	for url := range files {
		assert.True(t, asked[url], "nobody asks for %s", url)
	}
}
