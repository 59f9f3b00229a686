// SPDX-License-Identifier: Apache-2.0

package target

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRules(t *testing.T) {
	t.Parallel()
	label := func(file string, match map[string]string) *Label { return &Label{file, match} }
	for _, test := range []struct {
		name  string
		rule  Rule
		field string // empty: it is right
		says  string
	}{
		{"pid", Rule{Name: "a", PID: 1}, "", ""},
		{"all", Rule{Name: "a-1.b", PID: 1, Command: "x*", Exe: "/a/[b-c]?", Cgroup: "/kubepods/*", Port: 65535, Labels: label("/l", map[string]string{"app": ""})}, "", ""},
		{"no name", Rule{PID: 1}, "name", "is missing"},
		{"bad name", Rule{Name: "Orders", PID: 1}, "name", "lower-case"},
		{"name with slash", Rule{Name: "a/b", PID: 1}, "name", "lower-case"},
		{"name ends in -", Rule{Name: "a-", PID: 1}, "name", "ends with a letter"},
		{"long name", Rule{Name: strings.Repeat("a", 64), PID: 1}, "name", "at most 63"},
		{"nothing asked", Rule{Name: "a"}, "conditions", "there are none"},
		{"negative pid", Rule{Name: "a", PID: -1}, "pid", "-1 is no process"},
		{"bad command", Rule{Name: "a", Command: "[x"}, "command", "syntax error in pattern"},
		{"command with path", Rule{Name: "a", Command: "/bin/x"}, "command", "base name of argv[0]"},
		{"bad exe", Rule{Name: "a", Exe: "/x["}, "exe", "syntax error in pattern"},
		{"relative exe", Rule{Name: "a", Exe: "bin/x"}, "exe", "begin with /"},
		{"bad cgroup", Rule{Name: "a", Cgroup: `/x\`}, "cgroup", "syntax error in pattern"},
		{"port", Rule{Name: "a", Port: 65536}, "port", "65536 is not from 1"},
		{"label file", Rule{Name: "a", Labels: label("labels", map[string]string{"a": "b"})}, "labels.file", "not a path from the root"},
		{"no labels", Rule{Name: "a", Labels: label("/l", nil)}, "labels.match", "names no label"},
		{"nameless label", Rule{Name: "a", Labels: label("/l", map[string]string{"": "b"})}, "labels.match", "has no name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := NewFinder([]Rule{{Name: "first", PID: 7}, test.rule})
			if test.field == "" {
				require.NoError(t, err)
				return
			}
			var re *RuleError
			require.ErrorAs(t, err, &re)
			assert.Equal(t, 1, re.Index)
			assert.Equal(t, test.field, re.Field)
			assert.ErrorContains(t, err, `target: rule 2 ("`+test.rule.Name+`"): `+test.field+": ")
			assert.ErrorContains(t, err, test.says)
		})
	}
	_, err := NewFinder([]Rule{{Name: "a", PID: 1}, {Name: "a", Port: 0}})
	assert.ErrorContains(t, err, "rule 1 has it already")
	assert.ErrorContains(t, err, "there are none", "all that is wrong is said at once")
}

func TestLabels(t *testing.T) {
	t.Parallel()
	got, err := parseLabels("app=\"orders\"\n\n# no\ntext=\"a\\\"b\\n=\"\nplain=x y\nempty=\"\"\n")
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"app": "orders", "text": "a\"b\n=", "plain": "x y", "empty": ""}, got)

	got, err = parseLabels("a=\"1\"\nnonsense\nb=\"open\nc=\"3\"")
	assert.EqualError(t, err, `line 2 is not key="value"`)
	assert.Equal(t, map[string]string{"a": "1", "c": "3"}, got, "the other lines count")
}

func FuzzLabels(f *testing.F) {
	f.Add("a=\"b\"\n")
	f.Add("=\n\"=\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		labels, err := parseLabels(text)
		lines := strings.Count(text, "\n") + 1
		if len(labels) > lines {
			t.Errorf("%d labels of %d lines", len(labels), lines)
		}
		for k := range labels {
			if k == "" || !strings.Contains(text, k) {
				t.Errorf("label %q is not in the text", k)
			}
		}
		if err == nil && strings.TrimSpace(text) != "" && !strings.Contains(text, "=") && !strings.Contains(text, "#") {
			t.Error("nothing of it is a label, and no error")
		}
	})
}
