// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"os"
	"testing"

	"github.com/memguard/memguard-go/bench/lab"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unguarded is plain Go, under which all of the smoke subset has to die.
var unguarded = lab.Contender{Name: "plain", Setup: "Go as it is"}

func TestMain(m *testing.M) {
	if lab.IsChild() { // a part of the run in TestProcessSmoke
		os.Exit(lab.Main(nil, All, unguarded))
	}
	os.Exit(m.Run())
}

// The quick subset for real: the kernel kills every one of them.
func TestProcessSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some 20 s of real services and kills")
	}
	probe, err := sandbox.New("scenario-test", 64*mib)
	if errors.Is(err, sandbox.ErrUnsupported) {
		t.Skip("no memory cgroup may be made here: ", err)
	}
	require.NoError(t, err)
	require.NoError(t, probe.Close())

	dir := t.TempDir()
	require.Zero(t, lab.Main([]string{"run", "--smoke", "--guard", "plain", "--timeout", "60s", "--json", dir}, All, unguarded))
	got, err := lab.ReadResults(dir)
	require.NoError(t, err)
	require.Len(t, got.Results, 3)
	for _, r := range got.Results {
		assert.Equal(t, lab.Killed, r.Outcome, "%s: %v", r.Scenario, r.Stderr)
		assert.NotZero(t, r.Kills, r.Scenario)
		if assert.NotEmpty(t, r.Deaths, r.Scenario) {
			assert.Equal(t, "victim", r.Deaths[0].Who, r.Scenario)
			assert.True(t, r.Deaths[0].Kernel, r.Scenario)
		}
	}
}
