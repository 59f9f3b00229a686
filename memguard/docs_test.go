// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// docs/findings.md is what the table of findings says. UPDATE=1 writes it.
func TestFindingsDoc(t *testing.T) {
	t.Parallel()
	const path = "../docs/findings.md"
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.MkdirAll("../docs", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(findingsMarkdown()), 0o644))
		return
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, findingsMarkdown(), string(text), "UPDATE=1 rewrites it")
}

func TestFindingsTable(t *testing.T) {
	t.Parallel()
	seen := map[ID]bool{}
	for _, d := range Docs() {
		assert.Regexp(t, `^[a-z]+(-[a-z]+)*$`, string(d.ID), "metric labels and alert rules use it")
		assert.False(t, seen[d.ID], "%s is there twice", d.ID)
		seen[d.ID] = true
		assert.Regexp(t, `^[A-Z].*\.$`, d.Means, "sentences")
		assert.Regexp(t, `^[A-Z/].*\.$`, d.Remedy, "sentences")
		for _, phrase := range []string{d.Signal, d.Raised} {
			assert.False(t, strings.HasSuffix(phrase, "."), "%s: the page adds the full stop: %q", d.ID, phrase)
		}
		assert.Regexp(t, `info|warning|critical`, d.Raised, "%s: at which severity", d.ID)
		assert.Equal(t, d, d.ID.doc())
	}
	assert.Equal(t, Doc{ID: "no-such"}, ID("no-such").doc())

	// What is handed out is a copy.
	Docs()[0].Remedy = "reboot"
	assert.NotEqual(t, "reboot", Docs()[0].Remedy)
}

// The signals that the table names are metrics that are read.
func TestFindingsNameRealMetrics(t *testing.T) {
	t.Parallel()
	read := map[string]bool{newRuntimeReader().pauses[0].Name: true}
	for _, s := range newRuntimeReader().samples {
		read[s.Name] = true
	}
	for _, s := range newRuntimeReader().cpu {
		read[s.Name] = true
	}
	metric := regexp.MustCompile("`(/[^`]+:[^`]+)`")
	found := 0
	for _, d := range Docs() {
		for _, m := range metric.FindAllStringSubmatch(d.Signal, -1) {
			assert.True(t, read[m[1]], "%s: %s is not read", d.ID, m[1])
			found++
		}
	}
	assert.Greater(t, found, 5)
}
