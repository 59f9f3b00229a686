// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/memguard/memguard-go/bench/lab"
	"github.com/memguard/memguard-go/bench/scenario"
)

// The test binary runs itself as a child: the variable says what to do.
const jobEnv = "MEMGUARD_PEERS_JOB"

func TestMain(m *testing.M) {
	if lab.IsChild() { // a part of the run in TestProcessSmoke
		os.Exit(lab.Main(nil, scenario.All, All...))
	}
	kind, name, ok := strings.Cut(os.Getenv(jobEnv), " ")
	if !ok {
		os.Exit(m.Run())
	}
	answer := os.Stdout
	os.Stdout = os.Stderr // some of the libraries log to it
	var out any
	switch kind {
	case "goleak":
		out = runGoleak(name)
	case "library":
		out = runLibrary(name)
	case "holmes":
		out = runHolmes(name)
	case "well", "blocked":
		out = runGuard(name, kind == "blocked")
	case "use":
		out = use(name)
	case "refuse":
		out = refuse(name)
	}
	if err := json.NewEncoder(answer).Encode(out); err != nil {
		panic(err)
	}
}

// child runs a job in a process and a directory of its own.
func child(t *testing.T, job string, into any, env ...string) {
	self, err := os.Executable()
	if !assert.NoError(t, err) {
		return
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Dir = t.TempDir()
	cmd.Env = append(append(os.Environ(), env...), jobEnv+"="+job)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if assert.NoError(t, err, "%s\n%s", job, &stderr) {
		assert.NoError(t, json.Unmarshal(out, into), job)
	}
}
