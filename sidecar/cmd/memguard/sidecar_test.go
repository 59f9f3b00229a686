// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A number that is written as 0 is refused by the name of its key, and not taken for
// what is so without it.
func TestSidecarCheckRefusesZero(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sidecar.yaml")
	check := func(text string, args ...string) (int, string) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		code, stdout, stderr := execute("", append([]string{"sidecar", "--config", path, "--check"}, args...)...)
		return code, stdout + stderr
	}
	const ok = "state_dir: state\ntargets: [{name: a, exe: /a}]\n"
	code, says := check(ok + "exit_hold: 0s\naudit: {max_age_days: 0}\n")
	require.Equal(t, 0, code, says)
	code, says = check(ok + "interval: 0s\nwrites: {per_minute: 0, burst: 0}\naudit: {max_size: 0, max_files: 0}\nincidents: {max_count: 0, max_size: 0}\n")
	assert.Equal(t, exitUsage, code)
	for _, key := range []string{"interval", "writes.per_minute", "writes.burst", "audit.max_size", "audit.max_files", "incidents.max_count", "incidents.max_size"} {
		assert.Contains(t, says, key+": 0", "all at once")
	}
	code, says = check("state_dir: state\ntargets: [{name: a, exe: /a, port: 0}]\n")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, says, "targets[0].port: 0 is no port")
	code, says = check(ok, "--exe", "/b", "--name", "b", "--port", "0")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, says, "--port: 0 is no port")
}
