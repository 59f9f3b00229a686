// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain is every process of an experiment, too, and the program that
// TestSignal ends.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == interruptedArg {
		os.Exit(interrupted())
	}
	if len(os.Args) == 3 && os.Args[1] == measureArg {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// Every claim is whole, and what it says can be found.
func TestClaims(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) {
			assert.Regexp(t, `^[a-z][a-z-]+$`, c.Name)
			assert.False(t, names[c.Name], "the name is taken")
			names[c.Name] = true
			assert.Regexp(t, `^(|[0-4]\.[0-9])$`, c.Article)
			assert.Regexp(t, `\.$`, c.Says)
			assert.NotEmpty(t, c.Signal)
			assert.Contains(t, []Verdict{True, Partly, False, Changed}, c.Expect)
			assert.NotEmpty(t, c.Why)
			assert.NotNil(t, c.measure)
		})
	}
	// A paragraph of an article may be wrong; all that it does not say, we say because it is so.
	for _, c := range all {
		if c.Article == "" {
			assert.Equal(t, True, c.Expect, c.Name)
		}
	}
}

// build compiles the command as a user gets it: without the race detector, with
// which a program has other stacks and another resident size.
func build(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "claims")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("executable file not found")) {
		t.Skip("the go command cannot be run here: ", err)
	}
	require.NoError(t, err, "%s", out)
	return exe
}

// The real thing: all experiments on this toolchain and this kernel. None is
// shortened; what changes the machine's settings is skipped, with the reason.
func TestEveryExperiment(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	c := exec.Command(build(t), "--json")
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var got struct {
		On      map[string]any
		Results []map[string]any
	}
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &got), "%v\n%s", err, stderr.String())
	for _, r := range got.Results {
		if why := r["skipped"]; why != nil {
			t.Logf("%s skipped: %s", r["name"], why)
			assert.Nil(t, r["verdict"])
			continue
		}
		assert.Nil(t, r["error"], "%s", r["name"])
		assert.Equal(t, r["expected"], r["verdict"], "%s: %s", r["name"], r["happened"])
		assert.NotEmpty(t, r["happened"], "%s", r["name"])
		measured, _ := r["measured"].([]any)
		require.NotEmpty(t, measured, "%s", r["name"])
		for _, m := range measured {
			assert.NotEmpty(t, m.(map[string]any)["figures"], "%s", r["name"])
		}
	}
	assert.NoError(t, err, "%s", stderr.String())
	assert.Len(t, got.Results, len(all))
	assert.Equal(t, len(all), strings.Count(stderr.String(), " of "), "progress, a line each:\n%s", stderr.String())
	for _, key := range []string{"go", "system", "cpus", "cgo"} {
		assert.Contains(t, got.On, key)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args   []string
		status int
		stdout string // patterns
		stderr string
	}{
		"help":            {[]string{"--help"}, exitFine, `usage: claims`, `^$`},
		"list":            {[]string{"--list"}, exitFine, `(?m)^goal-overshoot +1\.2 +A burst`, `^$`},
		"list of some":    {[]string{"--list", "--only", "stack-exit"}, exitFine, `^stack-exit[^\n]*\n$`, `^$`},
		"list as JSON":    {[]string{"--list", "--json", "--only", "stack-exit"}, exitFine, `^\[{"name":"stack-exit","article":"2.4","claim":`, `^$`},
		"unknown flag":    {[]string{"--fast"}, exitUsage, `^$`, `flag provided but not defined: -fast`},
		"unknown claim":   {[]string{"--only", "stack-exit,nonsense"}, exitUsage, `^$`, `no claim "nonsense"`},
		"two formats":     {[]string{"--json", "--markdown"}, exitUsage, `^$`, `exclude each other`},
		"argument":        {[]string{"stack-exit"}, exitUsage, `^$`, `unexpected argument "stack-exit"`},
		"one":             {[]string{"--only", "discarded-make"}, exitFine, `FALSE +discarded-make \(article 2\.2\)(.|\n)*1 claims: 1 false\.\n$`, `1 of 1: discarded-make`},
		"one in markdown": {[]string{"--only", "discarded-make", "--markdown"}, exitFine, `(?m)^\| \[discarded-make\]\(#discarded-make\) \| 2\.2 \| false \|$`, `.`},
		"not touched":     {[]string{"--only", "overcommit"}, exitFine, `SKIPPED +overcommit(.|\n)*--touch-kernel`, `.`},
		"measure unknown": {[]string{measureArg, "nonsense"}, exitUsage, `^$`, `no experiment "nonsense"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			assert.Equal(t, tt.status, run(tt.args, &stdout, &stderr), "%s", stderr.String())
			assert.Regexp(t, tt.stdout, stdout.String())
			assert.Regexp(t, tt.stderr, stderr.String())
		})
	}
}

// A verdict that is not the expected one is said, and is the exit status.
func TestSurprise(t *testing.T) {
	t.Parallel()
	i := slices.IndexFunc(all, func(c Claim) bool { return c.Name == "discarded-make" })
	surprising := all[i]
	surprising.Expect = True
	p := program{[]Claim{surprising}, t.TempDir()}
	var stdout, stderr bytes.Buffer
	assert.Equal(t, exitSurprise, p.run(nil, &stdout, &stderr), "%s", stderr.String())
	assert.Regexp(t, `contradicts what was found before,\s+which\s+is:\s+true\.`, stdout.String())
	assert.Contains(t, stdout.String(), "1 claims: 1 false; 1 against what was found before.")

	// An experiment that cannot be run outweighs it.
	failing := surprising
	failing.Name = "nonsense" // which the other process does not know
	p.claims = append(p.claims, failing)
	stdout.Reset()
	assert.Equal(t, exitBlind, p.run(nil, &stdout, &stderr))
	assert.Regexp(t, `ERROR +nonsense(.|\n)*exit status 2: claims: no\s+experiment`, stdout.String())
}

// docs/claims.md is what the command prints: every claim that there is, with the
// verdict that is expected. Its figures are those of the run that it names.
func TestDocs(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../../docs/claims.md")
	require.NoError(t, err, "go run ./bench/cmd/claims --markdown --touch-kernel >docs/claims.md")
	head, sections, _ := strings.Cut(string(b), "\n## ")
	assert.Regexp(t, `Ran on go1\.\d+\S* linux/\w+, kernel \d\S+, \d+ CPUs`, head)
	var documented []string
	for section := range strings.SplitSeq(sections, "\n## ") {
		name, text, _ := strings.Cut(section, "\n")
		documented = append(documented, name)
		i := slices.IndexFunc(all, func(c Claim) bool { return c.Name == name })
		if !assert.GreaterOrEqual(t, i, 0, "there is no claim %q any more", name) {
			continue
		}
		c := all[i]
		outcome := capital(string(c.Expect))
		assert.Regexp(t, `(?s)^\n> `+regexp.QuoteMeta(c.Says)+`\n\n\*\*`+outcome+`\.\*\*`, text, name)
		assert.Contains(t, text, "- **Watch:** "+c.Signal+"\n", name)
		assert.Contains(t, head, "| ["+name+"](#"+name+") |")
	}
	var names []string
	for _, c := range all {
		names = append(names, c.Name)
	}
	assert.Equal(t, names, documented)
}
