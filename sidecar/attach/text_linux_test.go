// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestText reads the page and the JSON of a real target.
func TestText(t *testing.T) {
	p := start(t, compile(t, build{release: current}), "-goroutines=1000", "-finalizers=300")
	s, err := open(t, p.pid()).Snapshot(t.Context(), Spans|Goroutines)
	require.NoError(t, err)
	for _, width := range []int{0, 40, 132} {
		var b bytes.Buffer
		require.NoError(t, s.WriteText(&b, width, false))
		for line := range strings.Lines(b.String()) {
			assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), max(width, 80), line)
		}
	}
	var b bytes.Buffer
	require.NoError(t, s.WriteText(&b, 100, false))
	for _, want := range []string{"GOROUTINES: 1001", "600  chan receive", "main.receiver  main.go:", "created by main.main", "FINALIZERS: 300 PENDING", "SIZE CLASSES", "phase"} {
		assert.Contains(t, b.String(), want)
	}
	t.Logf("\n%s", b.String())

	raw, err := json.Marshal(s)
	require.NoError(t, err)
	var v map[string]any
	require.NoError(t, json.Unmarshal(raw, &v))
	for _, key := range []string{"go_version", "how", "heap", "gc", "goroutines", "size_classes", "finalizers", "unknown"} {
		assert.Contains(t, v, key)
		assert.NotNil(t, v[key], key)
	}
	g := v["goroutines"].(map[string]any)
	assert.EqualValues(t, 1001, g["total"])
	assert.EqualValues(t, 600, g["clusters"].([]any)[0].(map[string]any)["count"])
}
