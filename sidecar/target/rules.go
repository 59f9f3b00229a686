// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// RuleError is what is wrong with a rule.
type RuleError struct {
	Rule  string // its name
	Index int    // in the list, from 0
	Field string // as in the configuration file
	Err   error
}

func (e *RuleError) Error() string {
	return fmt.Sprintf("target: rule %d (%q): %s: %v", e.Index+1, e.Rule, e.Field, e.Err)
}

func (e *RuleError) Unwrap() error { return e.Err }

// maxName is how long a rule's name may be: that of a DNS label.
const maxName = 63

// check returns everything that is wrong with the rules.
func check(rules []Rule) error {
	var errs []error
	names := map[string]int{}
	for i := range rules {
		r := &rules[i]
		bad := func(field, format string, args ...any) {
			errs = append(errs, &RuleError{r.Name, i, field, fmt.Errorf(format, args...)})
		}
		switch first, twice := names[r.Name]; {
		case r.Name == "":
			bad("name", "is missing")
		case !validName(r.Name):
			bad("name", "may have lower-case letters, digits, - and . and begins and ends with a letter or digit, at most %d", maxName)
		case twice:
			bad("name", "rule %d has it already", first+1)
		default:
			names[r.Name] = i
		}
		if r.PID < 0 {
			bad("pid", "%d is no process", r.PID)
		}
		if _, err := path.Match(r.Command, ""); err != nil {
			bad("command", "%q: %w", r.Command, err)
		}
		if strings.Contains(r.Command, "/") {
			bad("command", "%q: this is the base name of argv[0]; a path is for exe", r.Command)
		}
		for field, glob := range map[string]string{"exe": r.Exe, "cgroup": r.Cgroup} {
			if _, err := path.Match(glob, ""); err != nil {
				bad(field, "%q: %w", glob, err)
			} else if glob != "" && glob[0] != '/' && glob[0] != '*' && glob[0] != '[' && glob[0] != '?' {
				bad(field, "%q matches nothing: these paths begin with /", glob)
			}
		}
		if r.Port < 0 || r.Port > 65535 {
			bad("port", "%d is not from 1 to 65535", r.Port)
		}
		if l := r.Labels; l != nil {
			if l.File == "" || l.File[0] != '/' {
				bad("labels.file", "%q is not a path from the root of the process", l.File)
			}
			if len(l.Match) == 0 {
				bad("labels.match", "names no label")
			}
			if slices.Contains(slices.Collect(maps.Keys(l.Match)), "") {
				bad("labels.match", "a label has no name")
			}
		}
		if r.PID == 0 && r.Command == "" && r.Exe == "" && r.Cgroup == "" && r.Port == 0 && r.Labels == nil {
			bad("conditions", "there are none: pid, command, exe, cgroup, port or labels")
		}
	}
	return errors.Join(errs...)
}

func validName(s string) bool {
	ends := func(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
	if len(s) > maxName || !ends(s[0]) || !ends(s[len(s)-1]) {
		return false
	}
	for _, c := range []byte(s) {
		if !ends(c) && c != '-' && c != '.' {
			return false
		}
	}
	return true
}
