// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/sidecar/internal/reread"
)

// rules as somebody would write them.
const exampleRules = `
token_file: /etc/memguard/tokens
open_reads: metrics
rules:
- name: everybody reads
  groups: [system:authenticated]
  verbs: [get, list, watch]
  resources: ["*"]
  namespaces: ["*"]
  names: ["*"]
- name: governors pace in default
  users: [governor, "system:serviceaccount:gov:default"]
  groups: [governors]
  verbs: [update, delete]
  resources: [runtimes/gcpercent, runtimes/memorylimit]
  namespaces: [default]
  names: [app, web]
- name: on call does everything to runtimes
  users: [oncall]
  verbs: ["*"]
  resources: [runtimes, "runtimes/*"]
  namespaces: ["*"]
  names: ["*"]
- name: reload
  users: [oncall]
  verbs: [post]
  paths: [/-/reload]
- name: debug
  users: [oncall]
  verbs: [get]
  paths: ["/debug/*"]
- name: the root of all
  users: [root]
  verbs: ["*"]
  paths: ["*"]
- name: everybody posts
  users: ["*"]
  verbs: [post]
  paths: [/hello]
- name: open list
  users: ["system:anonymous"]
  verbs: [list]
  resources: [incidents]
  namespaces: ["*"]
  names: ["*"]
`

func parse(t testing.TB, text string) Config {
	var c Config
	require.NoError(t, reread.YAML([]byte(text), &c))
	return c
}

func user(name string, groups ...string) User {
	return User{Name: name, Groups: append(groups, AuthenticatedGroup), How: HowToken}
}

func TestAuthorize(t *testing.T) {
	t.Parallel()
	z, err := NewAuthorizer(parse(t, exampleRules))
	require.NoError(t, err)
	on := func(u User, verb, resource, sub, ns, name string) Attributes {
		return Attributes{User: u, Verb: verb, APIGroup: APIGroup, Resource: resource, Subresource: sub, Namespace: ns, Name: name}
	}
	at := func(u User, verb, path string) Attributes { return Attributes{User: u, Verb: verb, Path: path} }
	for _, tt := range []struct {
		name   string
		asked  Attributes
		reason string // empty: denied
	}{
		{"read by anybody known", on(user("x"), "get", "runtimes", "ledger", "default", "app"), `rules[0] "everybody reads"`},
		{"list needs the wildcard for names, and has it", on(user("x"), "list", "runtimes", "", "default", ""), `rules[0] "everybody reads"`},
		{"read by nobody", on(Anonymous(), "get", "runtimes", "", "default", "app"), ""},
		{"of another API group", Attributes{User: user("x"), Verb: "get", APIGroup: "apps", Resource: "runtimes", Name: "app"}, ""},
		{"write by name", on(user("governor"), "update", "runtimes", "gcpercent", "default", "app"), `rules[1] "governors pace in default"`},
		{"write by group", on(user("x", "governors"), "delete", "runtimes", "memorylimit", "default", "web"), `rules[1] "governors pace in default"`},
		{"other verb", on(user("governor"), "create", "runtimes", "gcpercent", "default", "app"), ""},
		{"other subresource", on(user("governor"), "update", "runtimes", "gc", "default", "app"), ""},
		{"the resource itself is not its subresource", on(user("governor"), "update", "runtimes", "", "default", "app"), ""},
		{"other namespace", on(user("governor"), "update", "runtimes", "gcpercent", "kube-system", "app"), ""},
		{"other target", on(user("governor"), "update", "runtimes", "gcpercent", "default", "db"), ""},
		{"a wildcard in the request is none", on(user("governor"), "update", "runtimes", "gcpercent", "default", "*"), ""},
		{"no target is not every target", on(user("governor"), "update", "runtimes", "gcpercent", "default", ""), ""},
		{"a verb named * is none", on(user("governor"), "*", "runtimes", "gcpercent", "default", "app"), ""},
		{"all subresources", on(user("oncall"), "create", "runtimes", "gc", "n", "app"), `rules[2] "on call does everything to runtimes"`},
		{"all subresources, not all resources", on(user("oncall"), "create", "incidents", "x", "n", "app"), ""},
		{"a path", at(user("oncall"), "post", "/-/reload"), `rules[3] "reload"`},
		{"a path by GET", at(user("oncall"), "get", "/-/reload"), ""},
		{"below a path", at(user("oncall"), "get", "/debug/pprof/heap"), `rules[4] "debug"`},
		{"beside a path", at(user("oncall"), "get", "/debugger"), ""},
		{"the path itself is not below it", at(user("oncall"), "get", "/debug"), ""},
		{"out of a path", at(user("oncall"), "get", "/debug/../-/secret"), ""},
		{"twice a slash", at(user("oncall"), "get", "/debug//x"), ""},
		{"every path", at(user("root"), "post", "/anything"), `rules[5] "the root of all"`},
		{"every path is no resource", on(user("root"), "update", "runtimes", "gc", "n", "app"), ""},
		{"metrics are open", at(Anonymous(), "get", "/metrics"), "open_reads: metrics"},
		{"not to be written", at(Anonymous(), "post", "/metrics"), ""},
		{"other paths are not", at(Anonymous(), "get", "/metrics/"), ""},
		{"a resource is no path", Attributes{User: Anonymous(), Verb: "get", APIGroup: APIGroup, Resource: "runtimes", Path: "/metrics"}, ""},
		{"the anonymous, by name", on(Anonymous(), "list", "incidents", "", "default", ""), `rules[7] "open list"`},
		{"everybody is who proved it", at(user("x"), "post", "/hello"), `rules[6] "everybody posts"`},
		{"everybody is not the anonymous", at(Anonymous(), "post", "/hello"), ""},
		{"everybody is not a user of no method", at(User{Name: "x"}, "post", "/hello"), ""},
		{"an empty request", Attributes{}, ""},
	} {
		allowed, reason := z.Authorize(tt.asked)
		assert.Equal(t, tt.reason != "", allowed, "%s: %s", tt.name, reason)
		if allowed {
			assert.Equal(t, tt.reason, reason, tt.name)
		} else {
			assert.Contains(t, reason, "no rule allows user", tt.name)
		}
	}
}

func TestAuthorizeWithoutRules(t *testing.T) {
	t.Parallel()
	read := Attributes{User: Anonymous(), Verb: "list", APIGroup: APIGroup, Resource: "runtimes"}
	for _, tt := range []struct {
		name string
		c    Config
		want bool
	}{
		{"nothing is set: reads are open", Config{}, true},
		{"who names users means them", Config{TokenFile: "tokens"}, false},
		{"peers", Config{Peers: []Peer{{}}}, false},
		{"open on purpose", Config{TokenFile: "tokens", OpenReads: "all"}, true},
		{"closed on purpose", Config{OpenReads: "none"}, false},
	} {
		z, err := NewAuthorizer(tt.c)
		require.NoError(t, err)
		allowed, _ := z.Authorize(read)
		assert.Equal(t, tt.want, allowed, tt.name)
		for _, verb := range []string{"create", "update", "delete", "patch", "", "*", "GET"} {
			write := read
			write.Verb = verb
			require.True(t, write.Write())
			allowed, _ = z.Authorize(write)
			assert.False(t, allowed, "%s: %s", tt.name, verb)
		}
	}
}

func TestRuleFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`rules: [{}]`:                                                                                     `rules[0]: it says nobody`,
		`rules: [{name: r, verbs: ["*"]}]`:                                                                `rules[0] "r": it says nothing that may be done`,
		`rules: [{users: [a], paths: [/x]}]`:                                                              `verbs is missing: write what is allowed; ["*"] is everything`,
		`rules: [{users: [a], verbs: [get], resources: [runtimes]}]`:                                      `namespaces is missing`,
		`rules: [{users: [a], verbs: [get], resources: [runtimes], namespaces: [n]}]`:                     `names is missing`,
		`rules: [{users: [a, "*"], verbs: [get], paths: [/x]}]`:                                           `"*" stands alone`,
		`rules: [{users: ["a*"], verbs: [get], paths: [/x]}]`:                                             `there are no patterns`,
		`rules: [{users: [""], verbs: [get], paths: [/x]}]`:                                               `users holds an empty text`,
		`rules: [{groups: ["*"], verbs: [get], paths: [/x]}]`:                                             `system:authenticated`,
		`rules: [{users: [a], verbs: [read], paths: [/x]}]`:                                               `"read" is not one of get, head`,
		`rules: [{users: [a], verbs: [put], resources: [r], namespaces: [n], names: [x]}]`:                `"put" is not one of get, list`,
		`rules: [{users: [a], verbs: [get], resources: ["*/gc"], namespaces: [n], names: [x]}]`:           `"*/gc" is not RESOURCE`,
		`rules: [{users: [a], verbs: [get], resources: ["r/"], namespaces: [n], names: [x]}]`:             `"r/" is not RESOURCE`,
		`rules: [{users: [a], verbs: [get], resources: ["r/a/b"], namespaces: [n], names: [x]}]`:          `"r/a/b" is not RESOURCE`,
		`rules: [{users: [a], verbs: [get], resources: ["r*"], namespaces: [n], names: [x]}]`:             `"r*" is not RESOURCE`,
		`rules: [{users: [a], verbs: [get], paths: [metrics]}]`:                                           `"metrics" is not /PATH`,
		`rules: [{users: [a], verbs: [get], paths: [/a*]}]`:                                               `"/a*" is not /PATH`,
		`rules: [{users: [a], verbs: [get], paths: [/a], resources: [r], namespaces: [n], names: ["*"]}]`: `write two rules`,
		`open_reads: yes-please`:                                                                          `"yes-please" is not one of all, metrics, none`,
	} {
		_, err := NewAuthorizer(parse(t, text))
		require.ErrorContains(t, err, want, text)
	}
	// All that is wrong is said at once.
	_, err := NewAuthorizer(parse(t, `rules: [{}, {name: second}]`))
	require.ErrorContains(t, err, `rules[0]: verbs is missing`)
	require.ErrorContains(t, err, `rules[1] "second": verbs is missing`)
}

// FuzzRules: whatever stands in the file, what acts needs a rule that names its user or
// one of its groups, and a rule without "*" allows nothing that it does not name.
func FuzzRules(f *testing.F) {
	f.Add([]byte(exampleRules), "alice", "governors", "update", "runtimes", "gcpercent", "default", "app", "")
	f.Add([]byte(`rules: [{users: ["*"], verbs: ["*"], paths: ["/a/*"]}]`), "alice", "", "post", "", "", "", "", "/a/../b")
	f.Add([]byte("rules: [{}]\nopen_reads: all"), "", "", "get", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, file []byte, name, group, verb, resource, sub, ns, target, path string) {
		var c Config
		if reread.YAML(file, &c) != nil {
			return
		}
		z, err := NewAuthorizer(c)
		if err != nil {
			return
		}
		a := Attributes{User: User{Name: name, Groups: []string{group}, How: HowToken}, Verb: verb, APIGroup: APIGroup,
			Resource: resource, Subresource: sub, Namespace: ns, Name: target, Path: path}
		allowed, reason := z.Authorize(a)
		require.NotEmpty(t, reason)
		if !allowed || !a.Write() {
			return
		}
		require.True(t, slices.ContainsFunc(c.Rules, func(r Rule) bool {
			who := slices.Contains(r.Users, name) || slices.Contains(r.Users, "*") || slices.Contains(r.Groups, group)
			what := slices.Contains(r.Verbs, verb) || slices.Contains(r.Verbs, "*")
			if resource == "" {
				return who && what && len(r.Paths) > 0
			}
			where := (slices.Contains(r.Namespaces, ns) || slices.Contains(r.Namespaces, "*")) &&
				(slices.Contains(r.Names, target) || slices.Contains(r.Names, "*"))
			return who && what && where && len(r.Resources) > 0
		}), "%s allowed %+v", reason, a)
	})
}
