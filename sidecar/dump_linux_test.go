// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asPod runs a command as the user of service and sidecar, and returns its standard
// input when the sidecar sees what it runs.
func (r *running) asPod(c *exec.Cmd) io.WriteCloser {
	r.t.Helper()
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: podUID, Gid: podUID}
	}
	in, err := c.StdinPipe()
	require.NoError(r.t, err)
	require.NoError(r.t, c.Start())
	r.t.Cleanup(func() { in.Close(); _ = c.Process.Kill(); _ = c.Wait() })
	var list struct{ Items []struct{ State string } }
	require.Eventually(r.t, func() bool {
		r.get("/runtimes", &list)
		return len(list.Items) == 1 && list.Items[0].State == "running"
	}, 30*time.Second, 50*time.Millisecond)
	time.Sleep(2 * time.Second) // the exit is held by now
	return in
}

// podDir is a directory of that user alone.
func podDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "memguard-pod-*")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Getuid() == 0 {
		require.NoError(t, os.Chown(dir, podUID, podUID))
	}
	return dir
}

// report waits for an incident that comes after so many others, and returns its report.
func (r *running) report(after int) (incidentItem, string) {
	r.t.Helper()
	var list struct{ Items []incidentItem }
	require.Eventually(r.t, func() bool { r.get("/incidents", &list); return len(list.Items) > after }, 60*time.Second, 100*time.Millisecond)
	return list.Items[0], string(r.text("/apis/memguard.dev/v1alpha1/namespaces/default/incidents/" + list.Items[0].ID))
}

// A service of thousands of goroutines panics under memguard exec. What it prints is
// ten times what is kept of it, and the verdict says what it panicked of.
func TestCrowdPanicsUnderExec(t *testing.T) {
	service, state := build(t, "./testdata/crowd"), podDir(t)
	r, _ := configured(t, fmt.Sprintf("targets: [{name: crowd, exe: %s}]\nexec_state: %s\n", service, state))
	in := r.asPod(exec.Command(command(), "exec", "--state", state, "--", service))
	_, err := io.WriteString(in, "panic\n")
	require.NoError(t, err)
	i, report := r.report(0)
	assert.Equal(t, "go-panic", i.Cause)
	assert.Contains(t, i.Verdict, "ended with a Go panic")
	assert.Contains(t, i.Verdict, "the crowd is too large, in main.main (main.go:")
	assert.Contains(t, report, `"main.wait"`)
	t.Log(i.Verdict)
}

// Two lives of one service print to one file. What the first one died of is told of the
// first one, and not of the second, which prints more than is kept and is killed.
func TestCrowdsShareAFile(t *testing.T) {
	service, dir := build(t, "./testdata/crowd"), podDir(t)
	path := filepath.Join(dir, "stderr")
	r, _ := configured(t, fmt.Sprintf("targets: [{name: crowd, exe: %s, stderr: %s}]\n", service, path))
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	defer log.Close()
	life := func() (*exec.Cmd, io.WriteCloser) {
		c := exec.Command(service)
		c.Stderr = log
		return c, r.asPod(c)
	}
	c, in := life()
	_, err = io.WriteString(in, "panic\n")
	require.NoError(t, err)
	_ = c.Wait()
	i, _ := r.report(0)
	assert.Contains(t, i.Verdict, "the crowd is too large, in main.main (main.go:")

	first, err := log.Stat()
	require.NoError(t, err)
	c, in = life()
	_, err = io.WriteString(in, "talk\n")
	require.NoError(t, err)
	const said = 900 * 101 // bytes: see the program
	require.Eventually(t, func() bool { st, err := log.Stat(); return err == nil && st.Size() >= first.Size()+said }, 30*time.Second, 10*time.Millisecond)
	time.Sleep(time.Second)
	require.NoError(t, c.Process.Kill())
	_ = c.Wait()
	i, report := r.report(1)
	assert.Contains(t, i.Verdict, "was ended by SIGKILL")
	assert.Contains(t, report, "000000899 xxx", "its own last line")
	assert.NotContains(t, report, "the crowd is too large")
	t.Log(i.Verdict)
}
