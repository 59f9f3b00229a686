// SPDX-License-Identifier: Apache-2.0

// Package page is the sidecar's live page: its files, and the handler that serves
// them. The page reads the control API of the server that it came from, by URLs
// relative to itself, and writes nothing. It is to be mounted at the root of that
// server; nothing in it is secret, so it needs no authentication: the API does.
//
// What the page shows comes from other processes and is not trusted. Its script
// makes text nodes only; the content security policy forbids the browser to do
// anything else (trusted types), and to load or send anything elsewhere.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html"
	"net/http"
	"path"
	"time"
)

//go:embed assets
var assets embed.FS

// policy lets the page load its own files, talk to its own origin, and no more.
// Scripts that write HTML from text are refused as a whole.
const policy = "default-src 'self'; object-src 'none'; frame-src 'none'; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// file is one asset as it is sent.
type file struct {
	body []byte
	kind string // its media type
	tag  string // quoted, of its content
}

// Handler serves the page at "/" and its other files beside it. GET and HEAD of
// these are all that it answers. The page reads what the API has under the given
// namespace.
func Handler(namespace string) http.Handler {
	files := load(namespace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		// The name is looked up as it came: there is no path to be cleaned, and no
		// directory to be left.
		f, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "the page can be read only", http.StatusMethodNotAllowed)
			return
		}
		h.Set("Content-Type", f.kind)
		h.Set("Cache-Control", "no-cache") // may be kept, and is asked for again by its tag
		h.Set("ETag", f.tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
	})
}

// load returns the embedded files by the path of their URL.
func load(namespace string) map[string]file {
	dir, err := assets.ReadDir("assets")
	if err != nil {
		panic(err) // embedded: cannot happen in a program that was built
	}
	files := make(map[string]file, len(dir))
	for _, e := range dir {
		body, err := assets.ReadFile(path.Join("assets", e.Name()))
		if err != nil {
			panic(err)
		}
		url := "/" + e.Name()
		if e.Name() == "index.html" {
			url = "/"
			body = bytes.Replace(body, []byte(`content="NAMESPACE"`), fmt.Appendf(nil, `content="%s"`, html.EscapeString(namespace)), 1)
		}
		sum := sha256.Sum256(body)
		files[url] = file{body: body, kind: kind(e.Name()), tag: fmt.Sprintf("%q", hex.EncodeToString(sum[:16]))}
	}
	return files
}

// kind is the media type of a file. The system's own table is not asked: a
// browser runs no script that comes as text/plain.
func kind(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "application/octet-stream"
}
