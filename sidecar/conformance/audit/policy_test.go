// SPDX-License-Identifier: Apache-2.0

// Package audit holds sidecar/audit against Kubernetes' own code: the codec of
// audit.k8s.io/v1, the policy loader and the policy evaluator.
package audit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/memguard/memguard-go/sidecar/audit"
)

// Few words, so that rules and requests meet often.
var (
	users      = []string{"alice", "system:serviceaccount:default:app", "system:anonymous", ""}
	groups     = []string{"system:authenticated", "governors", "system:unauthenticated"}
	verbs      = []string{"get", "list", "update", "create", "delete", "post"}
	apiGroups  = []string{"", "memguard.dev", "apps", "*"}
	resources  = []string{"runtimes", "runtimes/gc", "runtimes/*", "*/gc", "*", "*/*", "pods", "incidents/files", "runtimes/"}
	plain      = []string{"runtimes", "pods", "incidents"}
	subs       = []string{"", "gc", "files", "*"}
	namespaces = []string{"default", "kube-system", ""}
	names      = []string{"app", "web", ""}
	urls       = []string{"/metrics", "/metrics*", "*", "/", "/*", "/healthz/*", "/debug**", "no-slash", "/a*b", ""}
	paths      = []string{"/metrics", "/metrics/x", "/", "/healthz", "/healthz/", "/healthz/ping", "/debug", "", "/debug*"}
	levels     = []string{"None", "Metadata", "Request", "RequestResponse", "", "metadata"}
	stages     = []string{"RequestReceived", "ResponseStarted", "ResponseComplete", "Panic", "Never"}
)

// some draws up to n words, or none half of the time.
func some(r *rand.Rand, n int, words []string) []string {
	if r.IntN(2) == 0 {
		return nil
	}
	out := make([]string, 1+r.IntN(n))
	for i := range out {
		out[i] = words[r.IntN(len(words))]
	}
	return out
}

// most draws one of the words, the last of which are rare.
func most(r *rand.Rand, words []string, rare int) string {
	if r.IntN(40) > 0 {
		words = words[:len(words)-rare]
	}
	return words[r.IntN(len(words))]
}

func yamlList(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// drawPolicy writes a policy file, which may be wrong.
func drawPolicy(r *rand.Rand) string {
	var b strings.Builder
	b.WriteString("apiVersion: audit.k8s.io/v1\nkind: Policy\n")
	stage := func(indent string) {
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "%somitStages: %s\n", indent, yamlList([]string{most(r, stages, 1), most(r, stages, 1)}))
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "%somitManagedFields: %t\n", indent, r.IntN(2) == 0)
		}
	}
	stage("")
	if r.IntN(60) == 0 {
		return b.String()
	}
	b.WriteString("rules:\n")
	for range 1 + r.IntN(5) {
		fmt.Fprintf(&b, "- level: %q\n", most(r, levels, 2))
		stage("  ")
		list := func(field string, words []string) {
			if words != nil {
				fmt.Fprintf(&b, "  %s: %s\n", field, yamlList(words))
			}
		}
		list("users", some(r, 2, users))
		list("userGroups", some(r, 2, groups))
		list("verbs", some(r, 3, verbs))
		kind := r.IntN(12)
		if kind < 7 || kind == 11 {
			list("namespaces", some(r, 2, namespaces))
			if r.IntN(3) > 0 {
				b.WriteString("  resources:\n")
				for range 1 + r.IntN(2) {
					fmt.Fprintf(&b, "  - group: %q\n", apiGroups[r.IntN(len(apiGroups))])
					res := some(r, 3, resources)
					if res != nil {
						fmt.Fprintf(&b, "    resources: %s\n", yamlList(res))
					}
					if r.IntN(3) == 0 && (res != nil || r.IntN(20) == 0) {
						fmt.Fprintf(&b, "    resourceNames: %s\n", yamlList([]string{names[r.IntN(len(names))]}))
					}
				}
			}
		}
		if kind >= 7 {
			n := len(urls)
			if r.IntN(20) > 0 {
				n -= 3
			}
			list("nonResourceURLs", some(r, 2, urls[:n]))
		}
	}
	return b.String()
}

func pick(r *rand.Rand, words []string) string { return words[r.IntN(len(words))] }

// TestPolicy draws policies and requests: both sides must load the same files and say the
// same of every request.
func TestPolicy(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	loaded, refused, hits := 0, 0, 0
	for range 1500 {
		text := drawPolicy(r)
		theirs, theirErr := policy.LoadPolicyFromBytes([]byte(text))
		ours, ourErr := audit.ParsePolicy("policy.yaml", []byte(text))
		require.Equal(t, theirErr == nil, ourErr == nil, "%s\ntheirs: %v\nours: %v", text, theirErr, ourErr)
		if theirErr != nil {
			refused++
			continue
		}
		loaded++
		evaluator := policy.NewPolicyRuleEvaluator(theirs)
		for range 25 {
			a := audit.Attributes{User: pick(r, users), Groups: some(r, 2, groups), Verb: pick(r, verbs)}
			if r.IntN(3) > 0 {
				a.APIGroup, a.Resource, a.Subresource = pick(r, apiGroups), pick(r, plain), pick(r, subs)
				a.Namespace, a.Name = pick(r, namespaces), pick(r, names)
			} else {
				a.Path = pick(r, paths)
			}
			want := evaluator.EvaluatePolicyRule(authorizer.AttributesRecord{
				User: &user.DefaultInfo{Name: a.User, Groups: a.Groups}, Verb: a.Verb, APIGroup: a.APIGroup, Resource: a.Resource,
				Subresource: a.Subresource, Namespace: a.Namespace, Name: a.Name, Path: a.Path, ResourceRequest: a.Resource != "",
			})
			got := ours.Decide(a)
			require.Equal(t, string(want.Level), string(got.Level), "%s\n%+v", text, a)
			require.Equal(t, want.OmitManagedFields, got.OmitManagedFields, "%s\n%+v", text, a)
			require.Equal(t, set(want.OmitStages), set(got.OmitStages), "%s\n%+v", text, a)
			if got.Level != audit.LevelNone {
				hits++
			}
		}
	}
	t.Logf("%d policies loaded, %d refused, %d requests recorded", loaded, refused, hits)
	assert.Greater(t, loaded, 500)
	assert.Greater(t, refused, 100)
	assert.Greater(t, hits, 2000)
}

func set[S ~string](list []S) []string {
	var out []string
	for _, s := range list {
		out = append(out, string(s))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestPolicyStricter are the files that the API server takes and we refuse.
func TestPolicyStricter(t *testing.T) {
	const head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
	for name, text := range map[string]string{
		"an unknown field, which it ignores with a warning": head + "rules: [{level: None, verb: [get]}]",
		"a field twice, of which it takes the last":         head + "rules: [{level: None, level: Metadata}]",
	} {
		_, err := policy.LoadPolicyFromBytes([]byte(text))
		require.NoError(t, err, name)
		_, err = audit.ParsePolicy("policy.yaml", []byte(text))
		require.ErrorContains(t, err, "line 3", name)
	}
}
