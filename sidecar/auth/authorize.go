// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Attributes is what a request asks for.
type Attributes struct {
	User User
	Verb string // get, list, watch, create, update, delete; of a path: the method in lower case

	APIGroup    string
	Resource    string // empty: the request is for Path
	Subresource string
	Namespace   string
	Name        string // of the target; empty for a list

	Path string // outside the API, like /metrics
}

// Write reports whether the request may change something. A verb that is not known to
// only read is a write.
func (a Attributes) Write() bool {
	if a.Resource == "" {
		return a.Verb != "get" && a.Verb != "head" && a.Verb != "options"
	}
	return a.Verb != "get" && a.Verb != "list" && a.Verb != "watch"
}

// Values of Config.OpenReads.
const (
	openAll     = "all"
	openMetrics = "metrics"
	openNone    = "none"
)

var (
	resourceVerbs = []string{"get", "list", "watch", "create", "update", "delete"}
	pathVerbs     = []string{"get", "head", "options", "post", "put", "patch", "delete"}
)

// anything is the wildcard. It counts only where it stands alone in its list.
const anything = "*"

// Authorizer holds requests against rules. Use [NewAuthorizer]. It does not change.
type Authorizer struct {
	open  string
	rules []Rule
}

// NewAuthorizer takes the rules of a Config. The error names every rule that is wrong by
// its number and name, and says what to write.
func NewAuthorizer(c Config) (*Authorizer, error) {
	z := &Authorizer{open: c.OpenReads}
	var errs []error
	switch c.OpenReads {
	case openAll, openMetrics, openNone:
	case "":
		z.open = openNone
		if c.TokenFile == "" && c.ServiceAccounts == nil && len(c.Peers) == 0 && len(c.Rules) == 0 {
			z.open = openAll
		}
	default:
		errs = append(errs, fmt.Errorf("auth: open_reads: %q is not one of all, metrics, none", c.OpenReads))
	}
	for i, r := range c.Rules {
		for _, fault := range r.faults() {
			errs = append(errs, fmt.Errorf("auth: %s: %s", title(i, r), fault))
		}
		z.rules = append(z.rules, r)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return z, nil
}

func title(i int, r Rule) string {
	if r.Name == "" {
		return fmt.Sprintf("rules[%d]", i)
	}
	return fmt.Sprintf("rules[%d] %q", i, r.Name)
}

// faults says what is wrong with a rule. A list that is missing is a fault and not a
// wildcard: who forgets a line must not allow more than who writes it.
func (r Rule) faults() (faults []string) {
	say := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	lists := []struct {
		name   string
		values []string
		needed bool
	}{
		{"users", r.Users, len(r.Groups) == 0},
		{"groups", r.Groups, false},
		{"verbs", r.Verbs, true},
		{"resources", r.Resources, len(r.Paths) == 0},
		{"namespaces", r.Namespaces, len(r.Resources) > 0},
		{"names", r.Names, len(r.Resources) > 0},
		{"paths", r.Paths, false},
	}
	for _, l := range lists {
		if l.needed && len(l.values) == 0 {
			switch l.name {
			case "users":
				say(`it says nobody: write users or groups; ["*"] in users is everybody who proved who they are`)
			case "resources":
				say(`it says nothing that may be done: write resources or paths; ["*"] is everything`)
			default:
				say(`%s is missing: write what is allowed; ["*"] is everything`, l.name)
			}
		}
		for _, v := range l.values {
			switch {
			case v == "":
				say(`%s holds an empty text`, l.name)
			case v == anything && len(l.values) > 1:
				say(`%s holds "*" beside others: "*" stands alone`, l.name)
			case v == anything && l.name == "groups":
				say(`groups: everybody who proved who they are is the group %q`, AuthenticatedGroup)
			case v != anything && strings.Contains(v, "*") && l.name != "resources" && l.name != "paths":
				say(`%s: %q: there are no patterns; "*" stands alone for everything`, l.name, v)
			}
		}
	}
	if len(r.Paths) > 0 && len(r.Resources)+len(r.Namespaces)+len(r.Names) > 0 {
		say("a rule is for paths, or for resources, namespaces and names: write two rules")
	}
	known := resourceVerbs
	if len(r.Paths) > 0 {
		known = pathVerbs
	}
	for _, v := range r.Verbs {
		if v != anything && !slices.Contains(known, v) {
			say("verbs: %q is not one of %s", v, strings.Join(known, ", "))
		}
	}
	for _, v := range r.Resources {
		resource, sub, has := strings.Cut(v, "/")
		if v != anything && (resource == "" || has && sub == "" || strings.Contains(resource, "*") ||
			sub != anything && strings.ContainsAny(sub, "*/")) {
			say(`resources: %q is not RESOURCE, RESOURCE/SUBRESOURCE, RESOURCE/* or *`, v)
		}
	}
	for _, v := range r.Paths {
		if v != anything && (!strings.HasPrefix(v, "/") || strings.Contains(strings.TrimSuffix(v, "/*"), "*")) {
			say(`paths: %q is not /PATH, /PATH/* or *`, v)
		}
	}
	return faults
}

// Authorize reports whether the request is allowed, and by which rule, or why not.
// The reason is fit for the audit log and for the caller; it quotes what the caller sent.
func (z *Authorizer) Authorize(a Attributes) (allowed bool, reason string) {
	if !a.Write() {
		switch {
		case z.open == openAll:
			return true, "open_reads: all"
		case z.open == openMetrics && a.Resource == "" && a.Path == "/metrics":
			return true, "open_reads: metrics"
		}
	}
	for i, r := range z.rules {
		if r.allows(a) {
			return true, title(i, r)
		}
	}
	if a.Resource == "" {
		return false, fmt.Sprintf("no rule allows user %q to %s path %q", a.User.Name, a.Verb, a.Path)
	}
	what := a.Resource
	if a.Subresource != "" {
		what += "/" + a.Subresource
	}
	return false, fmt.Sprintf("no rule allows user %q to %s %s %q in namespace %q", a.User.Name, a.Verb, what, a.Name, a.Namespace)
}

// allows is called with rules that have no faults.
func (r Rule) allows(a Attributes) bool {
	if !r.speaksOf(a.User) || !holds(r.Verbs, a.Verb) {
		return false
	}
	if a.Resource == "" {
		return slices.ContainsFunc(r.Paths, func(p string) bool {
			under, ok := strings.CutSuffix(p, "/*")
			return p == anything || p == a.Path || ok && plain(a.Path) && strings.HasPrefix(a.Path, under+"/")
		})
	}
	// An empty name is a list of all of them: only "*" allows that.
	return a.APIGroup == APIGroup && holds(r.Namespaces, a.Namespace) && holds(r.Names, a.Name) &&
		slices.ContainsFunc(r.Resources, func(v string) bool {
			resource, sub, has := strings.Cut(v, "/")
			switch {
			case v == anything:
				return true
			case resource != a.Resource:
				return false
			case sub == anything:
				return a.Subresource != ""
			}
			return has == (a.Subresource != "") && sub == a.Subresource
		})
}

// plain reports whether a path says where it leads: "/debug/../x" is not under "/debug".
func plain(p string) bool {
	return p == path.Clean(p) || p == path.Clean(p)+"/"
}

func (r Rule) speaksOf(u User) bool {
	if slices.Contains(r.Users, u.Name) {
		return true
	}
	// Who proved nothing is not "everybody", whatever name they come under.
	if len(r.Users) == 1 && r.Users[0] == anything && u.How != HowAnonymous && u.How != "" {
		return true
	}
	return slices.ContainsFunc(u.Groups, func(g string) bool { return slices.Contains(r.Groups, g) })
}

// holds reports whether a list allows a value.
func holds(list []string, value string) bool {
	return len(list) == 1 && list[0] == anything || slices.Contains(list, value)
}
