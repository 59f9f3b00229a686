// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/pacer/exectrace"
)

// docs/pacer.md shows the longest stretch of each phase in one recording: what
// this test prints.
func TestPacerDoc(t *testing.T) {
	t.Parallel()
	r := trace(t, "go1.26.8.trace", 0)
	var b strings.Builder
	for p := range exectrace.NumPhases {
		var longest *exectrace.Segment
		for i := range r.Timeline {
			s := &r.Timeline[i]
			if s.Phase == exectrace.Phase(p) && s.Merged == 1 && (longest == nil || s.End-s.Start > longest.End-longest.Start) {
				longest = s
			}
		}
		require.NotNil(t, longest, exectrace.Phase(p))
		fmt.Fprintf(&b, "%-17s  at %-7s  for %-7s  heap %-8s  goal %s\n", longest.Phase, dur(longest.Start),
			dur(longest.End-longest.Start), optBytes(longest.Heap), optBytes(longest.Goal))
	}
	t.Log("\n" + b.String())

	path := filepath.Join("..", "..", "..", "docs", "pacer.md")
	doc, err := os.ReadFile(path)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(doc), "TestPacerDoc -v -->\n```\n")
	require.True(t, ok)
	_, tail, ok := strings.Cut(rest, "```\n")
	require.True(t, ok)
	want := head + "TestPacerDoc -v -->\n```\n" + b.String() + "```\n" + tail
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(doc))
}
