// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/memguard/memguard-go/sidecar/control"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/watch"
	"github.com/stretchr/testify/require"
)

// What the fixture says, a sidecar could have said: every key of it is one of the
// real types', and of the same kind. So a key that is renamed there fails here.
func TestFixtureIsWhatASidecarSays(t *testing.T) {
	f := newFixture(t)
	f.story()
	strict := func(said, into any) {
		t.Helper()
		b, err := json.Marshal(said)
		require.NoError(t, err)
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		require.NoError(t, d.Decode(into), "%s", b)
	}
	strict(f.targets, new([]watch.Status))
	strict(f.events, new([]watch.Event))
	strict(f.incidents, new([]incident.Summary))
	strict(f.overrides, new([]control.Override))
	for _, line := range f.timelines {
		strict(line, new(incident.Timeline))
	}
	for _, r := range f.reports {
		// Severity of nothing is written, and not read back.
		for _, n := range r["notes"].([]object) {
			delete(n, "severity")
		}
		strict(r, new(incident.Report))
	}
}
