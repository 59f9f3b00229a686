// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/watch"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asDocumented is the OpenAPI document.
type asDocumented struct {
	OpenAPI    string                          `json:"openapi"`
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas    map[string]any       `json:"schemas"`
		Parameters map[string]parameter `json:"parameters"`
		Responses  map[string]response  `json:"responses"`
	} `json:"components"`
}

type operation struct {
	ID          string              `json:"operationId"`
	Parameters  []parameter         `json:"parameters"`
	Responses   map[string]response `json:"responses"`
	RequestBody *struct {
		Content map[string]content `json:"content"`
	} `json:"requestBody"`
}

type parameter struct {
	Ref      string `json:"$ref"`
	Name, In string
	Example  any
}

type response struct {
	Ref     string `json:"$ref"`
	Content map[string]content
}

type content struct {
	Schema  map[string]any
	Example any
}

func documented(t *testing.T, b []byte) (d asDocumented) {
	t.Helper()
	require.NoError(t, json.Unmarshal(b, &d))
	for name, r := range d.Components.Responses {
		require.Empty(t, r.Ref, name)
	}
	for _, ops := range d.Paths {
		for method, op := range ops {
			for i, p := range op.Parameters {
				if p.Ref != "" {
					op.Parameters[i] = d.Components.Parameters[strings.TrimPrefix(p.Ref, "#/components/parameters/")]
				}
				require.NotEmpty(t, op.Parameters[i].Name, "%s %s", method, op.ID)
			}
			for code, r := range op.Responses {
				if r.Ref != "" {
					op.Responses[code] = d.Components.Responses[strings.TrimPrefix(r.Ref, "#/components/responses/")]
				}
			}
		}
	}
	return d
}

// The schemas of answers are those of the Go types. UPDATE=1 writes them anew.
func TestDocumentedSchemas(t *testing.T) {
	var doc map[string]any
	file, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(file, &doc))
	made := schemas{}
	for _, answer := range []any{
		list[watch.Status]{}, list[Override]{}, list[incident.Summary]{}, eventList{}, findingList{}, done{}, audit.Status{},
		watch.Status{}, memguard.Ledger{}, incident.Timeline{}, attach.Snapshot{}, incident.Report{},
	} {
		made.of(reflect.TypeOf(answer))
	}
	all := doc["components"].(map[string]any)["schemas"].(map[string]any)
	want := map[string]any{}
	for name, s := range all {
		if s.(map[string]any)[marker] == nil {
			want[name] = s // written by hand
		}
	}
	b, err := json.Marshal(made)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &want))
	if reflect.DeepEqual(want, all) {
		return
	}
	if os.Getenv("UPDATE") == "" {
		assert.Equal(t, want, all, "the answers have changed: run UPDATE=1 go test, look at what it writes, and think of those who read them")
		return
	}
	doc["components"].(map[string]any)["schemas"] = want
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	require.NoError(t, e.Encode(doc))
	require.NoError(t, os.WriteFile("openapi.json", out.Bytes(), 0o644))
	pack(t, out.Bytes())
}

func pack(t *testing.T, file []byte) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	require.NoError(t, err)
	_, err = w.Write(file)
	require.NoError(t, errors.Join(err, w.Close()))
	require.NoError(t, os.WriteFile("openapi.json.gz", b.Bytes(), 0o644))
}

// What is served is openapi.json.
func TestDocumentPacked(t *testing.T) {
	file, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	if os.Getenv("UPDATE") != "" {
		pack(t, file)
		return
	}
	text, err := openAPI()
	require.NoError(t, err)
	assert.Equal(t, string(file), string(text), "UPDATE=1 go test packs it again")
}

// Every route is in the document, with its parameters, and nothing else is.
func TestDocumentedRoutes(t *testing.T) {
	t.Parallel()
	text, err := openAPI()
	require.NoError(t, err)
	d := documented(t, text)
	assert.Equal(t, "3.1.0", d.OpenAPI)
	var want, got []string
	for _, r := range routes {
		params := slices.Clone(r.params)
		for _, p := range r.parts {
			if strings.HasPrefix(p, "{") {
				params = append(params, strings.Trim(p, "{}"))
			}
		}
		want = append(want, fmt.Sprint(r.method, r.path, slices.Sorted(slices.Values(params))))
	}
	ids := map[string]bool{}
	for path, ops := range d.Paths {
		for method, op := range ops {
			params := []string{}
			for _, p := range op.Parameters {
				if p.In != "header" {
					params = append(params, p.Name)
				}
			}
			got = append(got, fmt.Sprint(strings.ToUpper(method), path, slices.Sorted(slices.Values(params))))
			assert.False(t, ids[op.ID], op.ID)
			ids[op.ID] = true
		}
	}
	assert.ElementsMatch(t, want, got)
}

// A real server beside a real service answers everything that is documented, and
// every answer is as documented: the good ones and the refusals.
func TestDocumentedAnswers(t *testing.T) {
	t.Parallel()
	r := beside(t, service(t, "whole").Process.Pid)
	r.handed("app")
	require.Equal(t, 200, r.ask(alice, "PUT", at+"/runtimes/app/shed", `{"to":1,"reason":"r"}`).code)
	id := r.died()

	served := r.ask("", "GET", "/openapi/v3", "")
	assert.Equal(t, 401, served.code)
	served = r.ask(bob, "GET", "/openapi/v3", "")
	require.Equal(t, 200, served.code, "%s", served.body)
	d := documented(t, served.body)
	v := validator{d.Components.Schemas}
	known := map[string]string{"namespace": "default", "name": "app", "id": id, "file": "heap.pb.gz"}

	valid := func(what string, op operation, a *answered) {
		code := fmt.Sprint(a.code)
		res, ok := op.Responses[code]
		if !ok {
			res = op.Responses["default"]
			assert.GreaterOrEqual(t, a.code, 400, "%s: %d is not documented", what, a.code)
		}
		kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
		c, ok := res.Content[kind]
		require.True(t, ok, "%s: %d as %q is not documented", what, a.code, kind)
		if kind != "application/json" {
			return
		}
		var body any
		require.NoError(t, json.Unmarshal(a.body, &body))
		assert.Empty(t, v.check("", c.Schema, body), "%s: %.300s", what, a.body)
	}
	asked := 0
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range []string{"get", "put", "post", "delete"} {
			op, ok := d.Paths[path][method]
			if !ok {
				continue
			}
			asked++
			method = strings.ToUpper(method)
			where, unknown, query := path, path, url.Values{}
			for _, p := range op.Parameters {
				value, ok := known[p.Name]
				if !ok && p.Example != nil {
					value = fmt.Sprint(p.Example)
				}
				switch {
				case p.In == "path":
					require.NotEmpty(t, value, "%s: %s has no example", path, p.Name)
					where = strings.ReplaceAll(where, "{"+p.Name+"}", value)
					unknown = strings.ReplaceAll(unknown, "{"+p.Name+"}", map[bool]string{true: value, false: "no-such"}[p.Name == "namespace"])
				case p.In == "query" && value != "":
					query.Set(p.Name, value)
				}
			}
			body := ""
			if op.RequestBody != nil {
				example := op.RequestBody.Content["application/json"]
				assert.Empty(t, v.check("", example.Schema, example.Example), op.ID)
				b, err := json.Marshal(example.Example)
				require.NoError(t, err)
				body = string(b)
			}
			for _, q := range []string{"", "?" + query.Encode()} {
				if q == "?" {
					continue
				}
				a := r.ask(alice, method, where+q, body)
				assert.Less(t, a.code, 300, "%s %s: %s", method, where+q, a.body)
				valid(method+" "+where+q, op, a)
			}
			if body != "" {
				if method == "DELETE" {
					put := d.Paths[path]["put"].RequestBody.Content["application/json"].Example
					b, err := json.Marshal(put)
					require.NoError(t, err)
					require.Equal(t, 200, r.ask(alice, "PUT", where, string(b)).code)
				}
				a := r.ask(alice, method, where+"?dryRun=All", body)
				assert.Equal(t, 200, a.code, "%s: %s", where, a.body)
				valid(where, op, a)
				for _, wrong := range []string{`{}`, `{"reason":"r","expected":{"pid":1},"to":"no"}`, `[`} {
					a := r.ask(alice, method, where, wrong)
					assert.Equal(t, 400, a.code)
					valid(where+" with "+wrong, op, a)
				}
			}
			for token, code := range map[string]int{"": 401, "guess": 401, alice: 200} {
				a := r.ask(token, method, where+"?no-such-parameter=1", body)
				valid(where, op, a)
				assert.Equal(t, map[int]int{401: 401, 200: 400}[code], a.code, where)
			}
			if unknown != path {
				a := r.ask(alice, method, unknown, body)
				valid(unknown, op, a)
				if strings.Contains(unknown, "no-such") {
					assert.Equal(t, 404, a.code, unknown)
				}
			}
			if method == "GET" {
				get, head := r.ask(alice, "GET", where, ""), r.ask(alice, "HEAD", where, "")
				assert.Equal(t, get.code, head.code)
				assert.Equal(t, get.header.Get("Content-Type"), head.header.Get("Content-Type"))
				assert.Empty(t, head.body)
			}
			options := r.ask("", "OPTIONS", where, "")
			assert.Equal(t, http.StatusNoContent, options.code)
			assert.Contains(t, options.header.Get("Allow"), method)
			patch := r.ask(alice, "PATCH", where, body)
			r.refused(patch, 405, "MethodNotAllowed", "use ")
			assert.Equal(t, options.header.Get("Allow"), patch.header.Get("Allow"))
		}
	}
	assert.Equal(t, len(routes), asked)
	for _, format := range []string{"html", "md"} {
		a := r.ask(bob, "GET", at+"/incidents/"+id+"?format="+format, "")
		valid(format, d.Paths[base+"/incidents/{id}"]["get"], a)
		assert.Contains(t, string(a.body), "app")
	}
	a := r.ask(bob, "GET", at+"/incidents/"+id+"?format=html", "")
	assert.Contains(t, a.header.Get("Content-Security-Policy"), "default-src 'none'")
	assert.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
}

// died adds an incident of the target to the store.
func (r *rig) died() string {
	r.t.Helper()
	st, err := r.watcher.Status("app")
	require.NoError(r.t, err)
	tl, err := r.watcher.Timeline("app", time.Time{})
	require.NoError(r.t, err)
	rep, files := incident.New(&incident.Evidence{
		Target: "app", Process: *st.Process, Ended: time.Now(), Eye: st.Eye, Last: st.Guard, Ledger: st.Guard.Ledger, Timeline: tl,
		Exit: incident.Exit{Known: true, Signal: 9, From: "exit-hold"}, Stderr: []byte("fatal error: <script>alert(1)</script>\x1b[2J\n"),
	}, incident.Meta{})
	files = append(files, incident.File{Name: "heap.pb.gz", What: "a profile", Content: []byte("profile")})
	rep.Files = append(rep.Files, incident.Named{Name: "heap.pb.gz", What: "a profile", Bytes: 7})
	id, err := r.store.Add(rep, files)
	require.NoError(r.t, err)
	return id
}

// The tests' own validator finds what is wrong.
func TestValidator(t *testing.T) {
	t.Parallel()
	v := validator{map[string]any{"a": map[string]any{
		"type": "object", "required": []any{"n"}, "additionalProperties": false,
		"properties": map[string]any{
			"n": map[string]any{"type": []any{"integer", "null"}, "minimum": 0.0},
			"l": map[string]any{"type": "array", "items": map[string]any{"type": "string", "format": "date-time"}},
			"e": map[string]any{"enum": []any{"x"}},
			"o": map[string]any{"anyOf": []any{map[string]any{"type": "boolean"}, map[string]any{"type": "null"}}},
		},
	}}}
	for in, fine := range map[string]bool{
		`{"n":1,"l":["2026-01-02T15:04:05Z"],"e":"x","o":null}`: true, `{"n":null}`: true,
		`{}`: false, `{"n":-1}`: false, `{"n":1.5}`: false, `{"n":"1"}`: false, `{"n":1,"l":["now"]}`: false, `{"n":1,"l":null}`: false,
		`{"n":1,"e":"y"}`: false, `{"n":1,"o":0}`: false, `{"n":1,"m":1}`: false, `[]`: false,
	} {
		var value any
		require.NoError(t, json.Unmarshal([]byte(in), &value))
		wrong := v.check("", map[string]any{"$ref": "#/components/schemas/a"}, value)
		assert.Equal(t, fine, wrong == nil, "%s: %v", in, wrong)
	}
	assert.NotNil(t, v.check("", map[string]any{"$ref": "#/components/schemas/b"}, nil))
	assert.NotNil(t, v.check("", map[string]any{"pattern": "x"}, nil), "a keyword that it does not know is no silence")
}
