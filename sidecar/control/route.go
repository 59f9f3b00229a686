// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net/http"
	"slices"
	"strings"
)

// route is one thing that can be asked for.
type route struct {
	method      string
	path        string // as in the OpenAPI document
	verb        string // of authorisation and audit
	resource    string // empty: outside the API
	subresource string
	do          func(*Server, *call) (answer, error)

	parts  []string
	params []string // keys of the query
}

// changes reports whether the route is a write. No other acts.
func (t *route) changes() bool { return t.method != http.MethodGet }

const base = "/apis/" + Group + "/" + Version + "/namespaces/{namespace}"

// routes are all there are.
var routes = func() []*route {
	const one = base + "/runtimes/{name}"
	rs := []*route{
		{method: "GET", path: "/openapi/v3", verb: "get", do: (*Server).document},
		{method: "GET", path: base + "/runtimes", verb: "list", resource: "runtimes", do: (*Server).runtimes},
		{method: "GET", path: one, verb: "get", resource: "runtimes", do: (*Server).runtime},
		{method: "GET", path: one + "/ledger", verb: "get", resource: "runtimes", do: (*Server).ledger},
		{method: "GET", path: one + "/findings", verb: "get", resource: "runtimes", do: (*Server).findings},
		{method: "GET", path: one + "/timeline", verb: "get", resource: "runtimes", do: (*Server).timeline, params: []string{"since"}},
		{method: "GET", path: one + "/snapshot", verb: "get", resource: "runtimes", do: (*Server).snapshot},
		{method: "GET", path: one + "/overrides", verb: "get", resource: "runtimes", do: (*Server).overrides},
		{method: "GET", path: one + "/profiles/{profile}", verb: "get", resource: "runtimes", do: (*Server).profile},
		{method: "GET", path: base + "/events", verb: "watch", resource: "events", do: (*Server).events, params: []string{"after", "wait", "watch", "target"}},
		{method: "GET", path: base + "/incidents", verb: "list", resource: "incidents", do: (*Server).incidents, params: []string{"target"}},
		{method: "GET", path: base + "/incidents/{id}", verb: "get", resource: "incidents", do: (*Server).incident, params: []string{"format"}},
		{method: "GET", path: base + "/incidents/{id}/files/{file}", verb: "get", resource: "incidents", do: (*Server).incidentFile},
		{method: "POST", path: one + "/gc", verb: "create", resource: "runtimes", do: (*Server).change},
		{method: "POST", path: one + "/freeosmemory", verb: "create", resource: "runtimes", do: (*Server).change},
		{method: "POST", path: one + "/capture", verb: "create", resource: "runtimes", do: (*Server).change},
	}
	for _, s := range settings {
		rs = append(rs,
			&route{method: "PUT", path: one + "/" + s.name, verb: "update", resource: "runtimes", do: (*Server).change},
			&route{method: "DELETE", path: one + "/" + s.name, verb: "delete", resource: "runtimes", do: (*Server).takeBack})
	}
	for _, t := range rs {
		t.parts = strings.Split(strings.TrimPrefix(t.path, "/"), "/")
		const first = 7 // apis, group, version, namespaces, namespace, resource, name: as Kubernetes takes paths apart
		if len(t.parts) > first {
			t.subresource = t.parts[first]
		}
		if t.changes() {
			t.params = []string{"dryRun"}
		}
	}
	return rs
}()

// find returns the route of a request, and what its path says. The methods are
// those that there are at this path; HEAD is a GET whose body is not sent.
func find(method string, parts []string) (t *route, values map[string]string, methods []string) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, r := range routes {
		v, ok := match(r.parts, parts)
		if !ok {
			continue
		}
		methods = append(methods, r.method)
		if r.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		if r.method == method {
			t, values = r, v
		}
	}
	if methods != nil {
		methods = append(methods, http.MethodOptions)
		slices.Sort(methods)
	}
	return t, values, methods
}
