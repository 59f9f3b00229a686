// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recorder is a test that is allowed to fail.
type recorder struct{ failures []string }

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// The checks look at the whole process, so none of these runs beside another.

func TestProcessVerifyNone(t *testing.T) {
	defer VerifyNone(t)
	var r recorder
	VerifyNone(&r)
	require.Empty(t, r.failures)

	stop := make(chan struct{})
	go func() { <-stop }() // left behind
	VerifyNone(&r, Patience(200*time.Millisecond))
	require.Len(t, r.failures, 1)
	source, err := os.ReadFile("verify_test.go")
	require.NoError(t, err)
	line := 1 + strings.Count(strings.Split(string(source), "// left behind\n")[0], "\n")
	assert.Contains(t, r.failures[0], "leak: 1 goroutine is left behind in [chan receive]")
	assert.Contains(t, r.failures[0], fmt.Sprintf("created by github.com/memguard/memguard-go/memguard/leak.TestProcessVerifyNone\n        %s:%d", thisFile(), line))
	assert.Contains(t, r.failures[0], "chan-receive: ")

	r.failures = nil
	VerifyNone(&r, IgnoreFunc("github.com/memguard/memguard-go/memguard/leak.TestProcessVerifyNone.func1"))
	VerifyNone(&r, IgnoreFunc("github.com/memguard/memguard-go/memguard/leak.TestProcessVerifyNone")) // its creator
	VerifyNone(&r, IgnoreCurrent())
	VerifyNone(&r, Ignore(func(c *Cluster) bool { return c.State == "chan receive" }))
	assert.Empty(t, r.failures)

	go func() {
		time.Sleep(50 * time.Millisecond)
		close(stop)
	}()
	VerifyNone(&r)
	assert.Empty(t, r.failures, "what ends by itself is waited for")
}

func thisFile() string {
	_, file, _, _ := runtime.Caller(1)
	return file
}

func TestProcessVerifyFlat(t *testing.T) {
	defer VerifyNone(t)
	var r recorder
	stop, full := make(chan struct{}), make(chan struct{})
	pool := false
	VerifyFlat(&r, 10, func() {
		if !pool {
			pool = true
			for range 50 {
				go func() { <-stop }()
			}
		}
		go func() {}()
	})
	require.Empty(t, r.failures, "a pool that fills once is no growth")
	VerifyFlat(&r, 10, func() {
		go func() { full <- struct{}{} }() // grows
	}, Patience(200*time.Millisecond))
	require.Len(t, r.failures, 1)
	assert.Contains(t, r.failures[0], "leak: 10 goroutines more after 10 calls in [chan send]")
	assert.Contains(t, r.failures[0], "created by ")
	close(stop)
	for range 12 {
		<-full
	}
}

// TestVerifyQueues: a finalizer or cleanup that blocks fails a test, and the
// message names its line. In processes of their own.
func TestVerifyQueues(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	source, err := os.ReadFile("queue_test.go")
	require.NoError(t, err)
	for job, kind := range map[string]string{"finalizer stalls": "finalizer", "cleanup stalls": "cleanup"} {
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), jobEnv+"="+job, jobEnv+"_VERIFY=1")
		out, err := cmd.Output()
		require.NoError(t, err)
		var failures []string
		require.NoError(t, json.Unmarshal(out, &failures))
		require.Len(t, failures, 1, "%s: %q", job, failures)
		assert.Contains(t, failures[0], "leak: the "+kind+" queue does not get on")
		_, place, ok := strings.Cut(failures[0], "queue_test.go:")
		require.True(t, ok, failures[0])
		var line int
		_, err = fmt.Sscan(place, &line)
		require.NoError(t, err)
		assert.Contains(t, strings.Split(string(source), "\n")[line-1], "// here it blocks")
	}
}
