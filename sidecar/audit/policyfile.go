// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/memguard/memguard-go/sidecar/internal/reread"
)

// builtin is the policy without a file: what acts is recorded with its body, and the
// answer's; reads are not. Denied requests are recorded anyway.
const builtin = `apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  verbs: [get, list, watch, head, options]
- level: RequestResponse
`

// PolicyFile is a policy that is read again when its file changes. Use [OpenPolicy].
type PolicyFile struct{ file *reread.Value[*Policy] }

// OpenPolicy reads a policy file. An empty path is the built-in policy: writes with their
// bodies, reads not at all.
func OpenPolicy(path string) (*PolicyFile, error) {
	file, err := reread.New(func(read reread.Read) (*Policy, error) {
		if path == "" {
			return ParsePolicy("built-in policy", []byte(builtin))
		}
		b, err := read(path)
		if err != nil {
			return nil, fmt.Errorf("audit: policy: %w", err)
		}
		return ParsePolicy(path, b)
	})
	if err != nil {
		return nil, err
	}
	return &PolicyFile{file}, nil
}

// Decide is [Policy.Decide] of the file as it is now, or as it was when it was last good.
func (f *PolicyFile) Decide(a Attributes) Decision { return f.file.Get().Decide(a) }

// ReloadError says what is wrong with the file while its old content stays in force.
func (f *PolicyFile) ReloadError() error { return f.file.Err() }

// ParsePolicy reads a policy file. It is strict: an unknown field is an error, where the
// API server only warns. The error names the file, every line and rule that is wrong, and
// what may stand there.
func ParsePolicy(name string, b []byte) (*Policy, error) {
	var doc struct {
		APIVersion        string         `yaml:"apiVersion"`
		Kind              string         `yaml:"kind"`
		Metadata          map[string]any `yaml:"metadata"`
		Rules             []rule         `yaml:"rules"`
		OmitStages        []Stage        `yaml:"omitStages"`
		OmitManagedFields bool           `yaml:"omitManagedFields"`
	}
	if err := reread.YAML(b, &doc); err != nil {
		return nil, fmt.Errorf("audit: policy %s: %w", name, err)
	}
	var errs []error
	lines := ruleLines(b)
	say := func(i int, format string, args ...any) {
		where := ""
		if i >= 0 {
			where = fmt.Sprintf("rules[%d]: ", i)
			if i < len(lines) {
				where = fmt.Sprintf("line %d: %s", lines[i], where)
			}
		}
		errs = append(errs, fmt.Errorf("audit: policy %s: %s%s", name, where, fmt.Sprintf(format, args...)))
	}
	if doc.APIVersion != "audit.k8s.io/v1" || doc.Kind != "Policy" {
		say(-1, "begins with apiVersion: audit.k8s.io/v1 and kind: Policy; not with %q and %q", doc.APIVersion, doc.Kind)
	}
	if len(doc.Rules) == 0 {
		say(-1, `there are no rules: nothing would be recorded; write "rules: [{level: Metadata}]" for everything`)
	}
	for _, fault := range stageFaults(doc.OmitStages) {
		say(-1, "%s", fault)
	}
	for i := range doc.Rules {
		for _, fault := range doc.Rules[i].faults() {
			say(i, "%s", fault)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &Policy{doc.Rules, doc.OmitStages, doc.OmitManagedFields}, nil
}

// group is a DNS subdomain, which API groups are.
var group = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// faults are those of k8s.io/apiserver/pkg/apis/audit/validation.
func (r *rule) faults() (faults []string) {
	say := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	switch {
	case r.Level == "":
		say("level is missing: write one of %s", join(levels))
	case !slices.Contains(levels, r.Level):
		say("level: %q is not one of %s", r.Level, join(levels))
	}
	for _, url := range r.NonResourceURLs {
		switch {
		case url == "*":
		case !strings.HasPrefix(url, "/"):
			say(`nonResourceURLs: %q does not begin with "/"`, url)
		case strings.Contains(url[:len(url)-1], "*"):
			say(`nonResourceURLs: %q: "*" stands at the end only`, url)
		}
	}
	for _, g := range r.Resources {
		if g.Group != "" && g.Group != "*" && (len(g.Group) > 253 || !group.MatchString(g.Group)) {
			say(`resources: group %q is not a DNS name: write it without a version`, g.Group)
		}
		if len(g.ResourceNames) > 0 && len(g.Resources) == 0 {
			say("resources: resourceNames need resources beside them")
		}
	}
	if len(r.NonResourceURLs) > 0 && len(r.Resources)+len(r.Namespaces) > 0 {
		say("a rule is for nonResourceURLs, or for resources and namespaces: write two rules")
	}
	return append(faults, stageFaults(r.OmitStages)...)
}

func stageFaults(omit []Stage) (faults []string) {
	for _, s := range omit {
		if !slices.Contains(stages, s) {
			faults = append(faults, fmt.Sprintf("omitStages: %q is not one of %s", s, join(stages)))
		}
	}
	return faults
}

func join[S ~string](list []S) string {
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(s))
	}
	return b.String()
}

// ruleLines returns the line at which each rule begins.
func ruleLines(b []byte) (lines []int) {
	var doc struct {
		Rules []yaml.Node `yaml:"rules"`
	}
	if yaml.Unmarshal(b, &doc) != nil {
		return nil
	}
	for _, n := range doc.Rules {
		lines = append(lines, n.Line)
	}
	return lines
}
