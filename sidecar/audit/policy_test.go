// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const examplePolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
metadata: {name: example}
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ["/livez*", "/readyz*"]
- level: RequestResponse
  verbs: [update, create, delete]
  resources: [{group: memguard.dev, resources: ["runtimes/*"]}]
- level: Metadata
  userGroups: ["system:unauthenticated"]
  omitStages: [ResponseStarted]
`

func TestPolicy(t *testing.T) {
	t.Parallel()
	p, err := ParsePolicy("p", []byte(examplePolicy))
	require.NoError(t, err)
	assert.Equal(t, LevelNone, p.Decide(Attributes{Verb: "get", Path: "/livez/ping", Groups: []string{"system:unauthenticated"}}).Level)
	d := p.Decide(Attributes{Verb: "update", APIGroup: "memguard.dev", Resource: "runtimes", Subresource: "gc"})
	assert.Equal(t, Decision{Level: LevelRequestResponse, OmitStages: []Stage{StageRequestReceived}}, d)
	d = p.Decide(Attributes{Verb: "get", Groups: []string{"system:unauthenticated"}})
	assert.Equal(t, Decision{Level: LevelMetadata, OmitStages: []Stage{StageRequestReceived, StageResponseStarted}}, d)
	assert.Equal(t, LevelNone, p.Decide(Attributes{Verb: "get", Path: "/"}).Level)
}

func TestDecision(t *testing.T) {
	t.Parallel()
	e := event(1)
	e.RequestObject, e.ResponseObject = json.RawMessage(`{"a":1}`), json.RawMessage(`{"b":1}`)
	for _, tt := range []struct {
		d                   Decision
		ok, request, answer bool
	}{
		{Decision{}, false, false, false},
		{Decision{Level: LevelNone}, false, false, false},
		{Decision{Level: LevelMetadata}, true, false, false},
		{Decision{Level: LevelRequest}, true, true, false},
		{Decision{Level: LevelRequestResponse}, true, true, true},
		{Decision{Level: LevelRequestResponse, OmitStages: []Stage{StagePanic}}, false, false, false},
		{Decision{Level: LevelRequestResponse, OmitStages: []Stage{StagePanic}}.Must(), true, true, true},
		{Decision{}.Must(), true, false, false},
	} {
		got, ok := tt.d.At(StagePanic, e)
		require.Equal(t, tt.ok, ok, "%+v", tt.d)
		assert.Equal(t, tt.request, got.RequestObject != nil, "%+v", tt.d)
		assert.Equal(t, tt.answer, got.ResponseObject != nil, "%+v", tt.d)
		if ok {
			assert.Equal(t, StagePanic, got.Stage)
			assert.Equal(t, tt.d.Level, got.Level)
			assert.False(t, got.StageTime.IsZero())
		}
	}
}

func TestParsePolicyRefuses(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
	for text, want := range map[string]string{
		"": `begins with apiVersion: audit.k8s.io/v1 and kind: Policy; not with "" and ""`,
		"apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]": `not with "audit.k8s.io/v1beta1" and "Policy"`,
		head: `there are no rules`,
		head + "rules:\n- level: None\n- level: Meta\n":                         `line 5: rules[1]: level: "Meta" is not one of None, Metadata, Request, RequestResponse`,
		head + "rules:\n- verbs: [get]\n":                                       `line 4: rules[0]: level is missing`,
		head + "rules:\n- level: None\n  verb: [get]\n":                         `line 5: field verb not found`,
		head + "rules:\n- level: None\n  level: None\n":                         `line 5: `,
		head + "rules: [{level: None, nonResourceURLs: [metrics]}]":             `line 3: rules[0]: nonResourceURLs: "metrics" does not begin with "/"`,
		head + "rules: [{level: None, nonResourceURLs: ['/a*b']}]":              `"*" stands at the end only`,
		head + "rules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]": `write two rules`,
		head + "rules: [{level: None, resources: [{group: apps/v1}]}]":          `group "apps/v1" is not a DNS name`,
		head + "rules: [{level: None, resources: [{resourceNames: [a]}]}]":      `resourceNames need resources`,
		head + "rules: [{level: None, omitStages: [Start]}]":                    `rules[0]: omitStages: "Start" is not one of RequestReceived`,
		head + "omitStages: [Start]\nrules: [{level: None}]":                    `policy p: omitStages: "Start"`,
		head + "rules: {level: None}":                                           `line 3: cannot unmarshal`,
		"a: [":                                                                  `line 1: `,
	} {
		_, err := ParsePolicy("p", []byte(text))
		require.ErrorContains(t, err, want, text)
		require.ErrorContains(t, err, "audit: policy p: ", text)
	}
}

func TestOpenPolicy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	_, err := OpenPolicy(path)
	require.ErrorContains(t, err, "no such file")
	builtin, err := OpenPolicy("")
	require.NoError(t, err)
	for verb, want := range map[string]Level{
		"get": LevelNone, "list": LevelNone, "watch": LevelNone, "head": LevelNone,
		"create": LevelRequestResponse, "update": LevelRequestResponse, "delete": LevelRequestResponse, "post": LevelRequestResponse,
	} {
		assert.Equal(t, want, builtin.Decide(Attributes{Verb: verb}).Level, verb)
	}
	require.NoError(t, os.WriteFile(path, []byte(examplePolicy), 0o600))
	synctest.Test(t, func(t *testing.T) {
		f, err := OpenPolicy(path)
		require.NoError(t, err)
		get := Attributes{Verb: "get", Path: "/"}
		assert.Equal(t, LevelNone, f.Decide(get).Level)
		require.NoError(t, os.WriteFile(path, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Request}]"), 0o600))
		time.Sleep(2 * time.Second)
		assert.Equal(t, LevelRequest, f.Decide(get).Level)
		require.NoError(t, os.WriteFile(path, []byte("rules: []"), 0o600))
		time.Sleep(2 * time.Second)
		assert.Equal(t, LevelRequest, f.Decide(get).Level)
		require.ErrorContains(t, f.ReloadError(), "policy.yaml: ")
	})
}

func FuzzPolicy(f *testing.F) {
	f.Add([]byte(examplePolicy), "update", "memguard.dev", "runtimes", "gc", "default", "/")
	f.Add([]byte(builtin), "get", "", "", "", "", "/metrics")
	f.Add([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, nonResourceURLs: ['*']}, ~]"), "", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, b []byte, verb, group, resource, sub, ns, path string) {
		p, err := ParsePolicy("p", b)
		if err != nil {
			require.Nil(t, p)
			require.Contains(t, err.Error(), "audit: policy p: ")
			return
		}
		require.NotEmpty(t, p.rules)
		d := p.Decide(Attributes{Verb: verb, APIGroup: group, Resource: resource, Subresource: sub, Namespace: ns, Path: path})
		require.Contains(t, levels, d.Level)
		for _, s := range d.OmitStages {
			require.Contains(t, stages, s)
		}
		_, ok := d.Must().At(StageRequestReceived, Event{})
		require.True(t, ok, "what must be recorded is, whatever the policy says")
	})
}
