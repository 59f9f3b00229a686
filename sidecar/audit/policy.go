// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"slices"
	"strings"
	"time"
)

// Attributes is what a policy looks at.
type Attributes struct {
	User        string
	Groups      []string
	Verb        string
	APIGroup    string
	Resource    string // empty: the request is for Path
	Subresource string
	Namespace   string
	Name        string
	Path        string
}

// Decision is what a policy says of a request.
type Decision struct {
	Level      Level
	OmitStages []Stage
	// OmitManagedFields is the policy's; objects here have no managed fields.
	OmitManagedFields bool
}

// Must is the decision for what is recorded whatever the policy says, a write or a
// denied request: at least at Metadata, with no stage left out.
func (d Decision) Must() Decision {
	if rank(d.Level) < rank(LevelMetadata) {
		d.Level = LevelMetadata
	}
	d.OmitStages = nil
	return d
}

// At returns the event as it is to be appended at a stage: with level, stage and time
// set, and without the objects that the level does not hold. ok is false where the
// decision is not to record it.
func (d Decision) At(s Stage, e Event) (_ Event, ok bool) {
	if rank(d.Level) < rank(LevelMetadata) || slices.Contains(d.OmitStages, s) {
		return Event{}, false
	}
	e.Level, e.Stage, e.StageTime = d.Level, s, MicroTime{time.Now()}
	if rank(d.Level) < rank(LevelRequest) {
		e.RequestObject = nil
	}
	if rank(d.Level) < rank(LevelRequestResponse) {
		e.ResponseObject = nil
	}
	return e, true
}

// levels in their order, each holding what the one before it holds.
var levels = []Level{LevelNone, LevelMetadata, LevelRequest, LevelRequestResponse}

// stages in the order that a request goes through them.
var stages = []Stage{StageRequestReceived, StageResponseStarted, StageResponseComplete, StagePanic}

// rank orders levels; what is no level counts as None.
func rank(l Level) int { return max(0, slices.Index(levels, l)) }

// Policy is an audit.k8s.io/v1 Policy. Use [ParsePolicy]. It does not change.
type Policy struct {
	rules             []rule
	omitStages        []Stage
	omitManagedFields bool
}

// rule is an audit.k8s.io/v1 PolicyRule. An empty list matches everything.
type rule struct {
	Level             Level           `yaml:"level"`
	Users             []string        `yaml:"users"`
	UserGroups        []string        `yaml:"userGroups"`
	Verbs             []string        `yaml:"verbs"`
	Resources         []groupResource `yaml:"resources"`
	Namespaces        []string        `yaml:"namespaces"`
	NonResourceURLs   []string        `yaml:"nonResourceURLs"`
	OmitStages        []Stage         `yaml:"omitStages"`
	OmitManagedFields *bool           `yaml:"omitManagedFields"`
}

// groupResource is an audit.k8s.io/v1 GroupResources.
type groupResource struct {
	Group         string   `yaml:"group"`
	Resources     []string `yaml:"resources"`
	ResourceNames []string `yaml:"resourceNames"`
}

// Decide returns the level and stages of the first rule that matches; None if there is
// none. It is k8s.io/apiserver/pkg/audit/policy's EvaluatePolicyRule;
// sidecar/conformance/audit holds the two against each other.
func (p *Policy) Decide(a Attributes) Decision {
	for i := range p.rules {
		r := &p.rules[i]
		if !r.matches(a) {
			continue
		}
		d := Decision{r.Level, slices.Concat(p.omitStages, r.OmitStages), p.omitManagedFields}
		if r.OmitManagedFields != nil {
			d.OmitManagedFields = *r.OmitManagedFields
		}
		return d
	}
	return Decision{LevelNone, p.omitStages, p.omitManagedFields}
}

func (r *rule) matches(a Attributes) bool {
	in := func(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }
	if !in(r.Users, a.User) || !in(r.Verbs, a.Verb) {
		return false
	}
	if len(r.UserGroups) > 0 && !slices.ContainsFunc(a.Groups, func(g string) bool { return slices.Contains(r.UserGroups, g) }) {
		return false
	}
	switch {
	case len(r.Namespaces) > 0 || len(r.Resources) > 0:
		return a.Resource != "" && in(r.Namespaces, a.Namespace) &&
			(len(r.Resources) == 0 || slices.ContainsFunc(r.Resources, func(g groupResource) bool { return g.matches(a) }))
	case len(r.NonResourceURLs) > 0:
		return a.Resource == "" && slices.ContainsFunc(r.NonResourceURLs, func(url string) bool {
			return url == "*" || url == a.Path || strings.HasSuffix(url, "*") && strings.HasPrefix(a.Path, strings.TrimRight(url, "*"))
		})
	}
	return true
}

func (g *groupResource) matches(a Attributes) bool {
	if g.Group != a.APIGroup && g.Group != "*" {
		return false
	}
	if len(g.Resources) == 0 {
		return true
	}
	if len(g.ResourceNames) > 0 && !slices.Contains(g.ResourceNames, a.Name) {
		return false
	}
	full := a.Resource
	if a.Subresource != "" {
		full += "/" + a.Subresource
	}
	return slices.ContainsFunc(g.Resources, func(s string) bool {
		return s == full || s == "*" ||
			a.Subresource != "" && s == "*/"+a.Subresource ||
			s == a.Resource+"/*" // the resource itself too, as there
	})
}
