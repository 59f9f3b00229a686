// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// raw sends a request as it is written, and returns the status and what came.
func (r *rig) raw(request string) (int, string) {
	r.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	require.NoError(r.t, err)
	defer c.Close()
	_, err = io.WriteString(c, request)
	require.NoError(r.t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(r.t, err, request)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	return resp.StatusCode, string(b)
}

// A path is taken as it is written, or not at all.
func TestPathTricks(t *testing.T) {
	t.Parallel()
	r := beside(t)
	id := strings.Repeat("x", 20)
	for path, code := range map[string]int{
		"/":                        400,
		"//":                       400,
		"/apis":                    404,
		"/openapi/v3/":             400,
		"//openapi/v3":             400,
		"/openapi//v3":             400,
		"/openapi/./v3":            400,
		"/x/../openapi/v3":         400,
		"/openapi/%76%33":          200, // v3: written in another way, and the same in the end
		"/openapi%2fv3":            400,
		at + "/runtimes/":          400,
		at + "/runtimes/..":        400,
		at + "/runtimes/%2e%2e":    400,
		at + "/runtimes/a%2fb":     400,
		at + "/runtimes/a%5cb":     400,
		at + "/runtimes/a%00":      400,
		at + "/runtimes/a%0d%0ab":  400,
		at + "/runtimes/%ff":       400,
		at + "/runtimes/%e2%80%ae": 400,
		at + "/runtimes/" + strings.Repeat("a", mostSegment):     404,
		at + "/runtimes/" + strings.Repeat("a", mostSegment+1):   400,
		"/" + strings.Repeat("a", mostPath):                      414,
		at + "/runtimes/app/ledger;x=1":                          404,
		at + "/RUNTIMES":                                         404,
		strings.ReplaceAll(at, "default", "other") + "/runtimes": 404,
		at + "/incidents/..%2f..%2fetc%2fpasswd":                 400,
		at + "/incidents/" + id:                                  404,
		at + "/incidents/" + id + "/files/audit.log":             404,
		at + "/incidents/20260102T150405.000000000Z-a/files/..":  400,
		at + "/runtimes/app/profiles/block":                      404,
		at + "/runtimes?a=%zz":                                   400,
		at + "/runtimes?watch=1":                                 400,
	} {
		got, body := r.raw("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + alice + "\r\n\r\n")
		assert.Equal(t, code, got, "%s: %s", path, body)
		if got >= 400 {
			var st audit.Status
			require.NoError(t, json.Unmarshal([]byte(body), &st), path)
			assert.NotEmpty(t, st.Message, path)
			assert.Equal(t, clean(st.Message, len(st.Message)), st.Message)
		}
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	r := beside(t, service(t, "whole").Process.Pid)
	c := r.handed("app")
	put := func(body string, header ...string) *answered {
		return r.ask(alice, "PUT", at+"/runtimes/app/gcpercent", body, header...)
	}
	good := `{"to":50,"reason":"r"}`
	r.refused(put(good, "Content-Type", "text/plain"), 415, "UnsupportedMediaType", "application/json")
	r.refused(put(good, "Content-Type", "application/x-www-form-urlencoded"), 415, "UnsupportedMediaType", "application/json")
	r.refused(put(good, "Content-Type", ""), 415, "UnsupportedMediaType", "application/json")
	r.refused(put(good, "Content-Encoding", "gzip"), 415, "UnsupportedMediaType", "as it is")
	r.refused(put(good+strings.Repeat(" ", mostBody)), 413, "RequestEntityTooLarge", "65536 bytes")
	a := put(`{"to":50,"reason":"r","forc":true}`)
	r.refused(a, 400, "BadRequest", `"forc"`)
	assert.Equal(t, "forc", a.json["details"].(map[string]any)["causes"].([]any)[0].(map[string]any)["field"])
	r.refused(put(""), 415, "UnsupportedMediaType", "")
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		r.ask(alice, method, at+"/runtimes/app/gcpercent", good)
		r.ask(alice, method, at+"/runtimes/app/gc", `{"reason":"r"}`, "X-Http-Method-Override", "POST")
	}
	assert.Empty(t, handOf(t, c).Orders)
	st, err := c.Events(t.Context(), 0, 0)
	require.NoError(t, err)
	for _, e := range st {
		assert.Empty(t, e.Action.By, "nothing acts on GET")
	}
	assert.Equal(t, 200, put(good+"\n", "Content-Type", "application/json; charset=utf-8").code)
}

// A body that does not come is not waited for any longer.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	r := beside(t)
	r.reading = 100 * time.Millisecond
	code, body := r.raw("PUT " + at + "/runtimes/app/gcpercent HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + alice + "\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	assert.Equal(t, 400, code)
	assert.Contains(t, body, "did not arrive")
}

// A defect costs one answer, and is on record.
func TestPanic(t *testing.T) {
	t.Parallel()
	r := beside(t)
	w := r.watcher
	r.watcher = nil
	a := r.ask(bob, "GET", at+"/runtimes", "")
	b := r.ask(alice, "PUT", at+"/runtimes/app/shed", `{"to":1,"reason":"r"}`, "Idempotency-Key", "k")
	c := r.ask(alice, "PUT", at+"/runtimes/app/shed", `{"to":1,"reason":"r"}`, "Idempotency-Key", "k")
	r.watcher = w
	for _, a := range []*answered{a, b, c} {
		r.refused(a, 500, "InternalError", "report it")
	}
	assert.Equal(t, []audit.Stage{audit.StagePanic}, r.stages(b))
	assert.Equal(t, 200, r.ask(bob, "GET", at+"/runtimes", "").code)
	r.refused(r.ask(alice, "PUT", at+"/runtimes/app/shed", `{"to":1,"reason":"r"}`), 404, "NotFound", "") // nothing is held by those before
}

// Whatever is sent: no panic, no failure without a reason, an error is a Status, and
// without a credential nothing is told and nothing is done.
func FuzzRequest(f *testing.F) {
	for _, target := range []string{"/runtimes", "/runtimes/app", "/runtimes/app/timeline?since=10m", "/events?after=1&wait=1ms", "/events?watch=1", "/incidents?target=app", "/incidents/x/files/y", "/runtimes/app/profiles/heap", "/runtimes/app/overrides"} {
		f.Add([]byte("GET " + at + target + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + alice + "\r\nAccept: text/event-stream\r\nLast-Event-ID: 7\r\n\r\n"))
	}
	for _, target := range []string{"PUT /runtimes/app/gcpercent", "DELETE /runtimes/app/breaker?dryRun=All", "POST /runtimes/app/gc"} {
		method, path, _ := strings.Cut(target, " ")
		for _, token := range []string{alice, bob, "guess"} {
			body := `{"to":50,"reason":"r","ttl":"10m","expected":{"pid":1,"value":100}}`
			f.Add(fmt.Appendf(nil, "%s %s%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nTraceparent: 00-1-2-01\r\nContent-Length: %d\r\n\r\n%s", method, at, path, token, len(body), body))
		}
	}
	f.Add([]byte("OPTIONS " + at + "/runtimes HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("GET /openapi/v3 HTTP/1.1\r\nHost: x\r\nAuthorization: Basic Og==\r\n\r\n"))
	s, err := build(shortDir(f), nil, 1<<22-1) // a pid that nobody has
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond) // else a stream would not end
		defer cancel()
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r.WithContext(ctx))
		known := false
		for _, token := range []string{alice, bob, carol} {
			known = known || strings.Contains(r.Header.Get("Authorization"), token)
		}
		switch {
		case w.Code < 300:
			if !known && r.Method != http.MethodOptions {
				t.Fatalf("%q: %d without a credential", b, w.Code)
			}
		case w.Code == 500 || w.Code < 400:
			t.Fatalf("%q: %d %s", b, w.Code, w.Body)
		default:
			var st audit.Status
			if err := json.Unmarshal(w.Body.Bytes(), &st); err != nil || st.Kind != "Status" || int(st.Code) != w.Code || st.Reason == "" || st.Message == "" {
				t.Fatalf("%q: %d %s: %v", b, w.Code, w.Body, err)
			}
			if st.Message != clean(st.Message, len(st.Message)) {
				t.Fatalf("%q: a message that is no text: %q", b, st.Message)
			}
		}
		if n := len(s.journal.standing()); n != 0 {
			t.Fatalf("%q: %d overrides of a target that does not run", b, n)
		}
		if s.streams.count() != 0 || len(s.looks) != 0 {
			t.Fatalf("%q: a place is not given back", b)
		}
	})
}
