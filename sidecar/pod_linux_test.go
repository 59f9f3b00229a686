// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// podUID is the user of service and sidecar: one that no other process has.
const podUID = 61347

// build builds a program of the module and returns its path, which every user may
// execute.
func build(t testing.TB, pkg string, flags ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "memguard-test-*")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, filepath.Base(pkg))
	c := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), pkg)...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// imageFlags build the binary of the sidecar's image, as deploy/Dockerfile does.
var imageFlags = []string{"-trimpath", "-tags=memguard_sidecar,nethttpomithttp2", "-ldflags=-s -w -funcalign=16"}

// command is that binary.
var command = sync.OnceValue(func() string {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("memguard-test-%d", os.Getpid()))
	c := exec.Command("go", append(append([]string{"build"}, imageFlags...), "-o", path, "./cmd/memguard")...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	if err != nil {
		panic(string(out))
	}
	return path
})

func TestMain(m *testing.M) {
	code := m.Run()
	os.Remove(filepath.Join(os.TempDir(), fmt.Sprintf("memguard-test-%d", os.Getpid())))
	os.Exit(code)
}

// running is a sidecar that runs.
type running struct {
	t    testing.TB
	url  string
	dir  string // of its state
	cmd  *exec.Cmd
	logs *logBuffer
}

// logBuffer keeps what a process says.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var listening = regexp.MustCompile(`msg=listening url=(\S+)/`)

// start starts the real command beside whatever runs, as podUID without a
// capability if we are root.
func start(t testing.TB, args ...string) *running {
	t.Helper()
	dir, err := os.MkdirTemp("", "memguard-state-*")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return startIn(t, dir, args...)
}

func startIn(t testing.TB, dir string, args ...string) *running {
	t.Helper()
	r := &running{t: t, dir: dir, logs: &logBuffer{}}
	r.cmd = exec.Command(command(), append([]string{"sidecar", "--listen", "127.0.0.1:0", "--state-dir", dir}, args...)...)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		r.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: podUID, Gid: podUID}
		require.NoError(t, os.Chown(dir, podUID, podUID))
	}
	pipe, err := r.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, r.cmd.Start())
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		if t.Failed() {
			t.Logf("the sidecar said:\n%s", r.logs)
		}
	})
	found := make(chan string, 1)
	go func() {
		for s := bufio.NewScanner(pipe); s.Scan(); {
			fmt.Fprintln(r.logs, s.Text())
			if m := listening.FindStringSubmatch(s.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	select {
	case r.url = <-found:
	case <-time.After(20 * time.Second):
		require.FailNow(t, "the sidecar does not listen", "%s", r.logs)
	}
	return r
}

// get reads an answer of the API into v.
func (r *running) get(path string, v any) {
	r.t.Helper()
	body := r.text("/apis/memguard.dev/v1alpha1/namespaces/default" + path)
	require.NoError(r.t, json.Unmarshal(body, v), "%s", body)
}

func (r *running) text(path string) []byte {
	r.t.Helper()
	resp, err := http.Get(r.url + path)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	require.Equal(r.t, http.StatusOK, resp.StatusCode, "%s: %s", path, body)
	return body
}

// pod starts a service as the first process of its own pid and mount namespaces, in
// a memory cgroup, as a user without any capability.
func pod(t *testing.T, service string, args ...string) (*exec.Cmd, *sandbox.Sandbox) {
	t.Helper()
	for _, tool := range []string{"unshare", "setpriv", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s(1) here to make namespaces with", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("only root may make pid and mount namespaces")
	}
	box, err := sandbox.New("pod", 128<<20)
	if err != nil {
		if os.Getenv("MEMGUARD_REQUIRE_CGROUP") != "" {
			require.NoError(t, err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() { assert.NoError(t, box.Close()) })
	// The file system of its own at /mnt is seen by nobody else.
	script := `mount -t proc proc /proc && mount -t tmpfs tmpfs /mnt && mkdir -m 700 /mnt/evidence && chown $0 /mnt/evidence &&
		exec setpriv --reuid $0 --regid $0 --clear-groups --no-new-privs --bounding-set -all -- "$@"`
	c := exec.Command("unshare", append([]string{"--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, fmt.Sprint(podUID), service}, args...)...)
	c.Stderr = os.Stderr
	require.NoError(t, box.Start(c))
	t.Cleanup(func() { _ = c.Process.Kill() })
	return c, box
}

type incidentItem struct {
	ID      string `json:"id"`
	Verdict string `json:"verdict"`
	Cause   string `json:"cause"`
	Target  string `json:"target"`
}

// incidents waits for the first incident of the sidecar.
func (r *running) incident() incidentItem {
	r.t.Helper()
	var list struct{ Items []incidentItem }
	require.Eventually(r.t, func() bool {
		r.get("/incidents", &list)
		return len(list.Items) > 0
	}, 60*time.Second, 200*time.Millisecond)
	return list.Items[0]
}

// A service that has never heard of memguard is killed by the kernel for lack of
// memory. The sidecar beside it, of the same user and without any capability, says
// so, and names the function whose memory it was.
func TestPodKilled(t *testing.T) {
	service := build(t, "./testdata/leaky", "-ldflags=-s -w")
	r := start(t, "--exe", service, "--name", "leaky")
	c, box := pod(t, service, "-rate", "12")
	i := r.incident()
	_ = c.Wait()
	kills, err := box.Kills()
	require.NoError(t, err)
	require.EqualValues(t, 1, kills, "the kernel killed it")

	assert.Equal(t, "oom-kill", i.Cause)
	assert.Equal(t, "leaky", i.Target)
	report := string(r.text("/apis/memguard.dev/v1alpha1/namespaces/default/incidents/" + i.ID))
	assert.True(t, strings.Contains(report, "main.remember"), "the leaking function is not in it")
	assert.True(t, strings.Contains(report, "main.await"), "what the goroutines wait in is not in it")
	for _, format := range []string{"html", "md"} {
		text := string(r.text("/apis/memguard.dev/v1alpha1/namespaces/default/incidents/" + i.ID + "?format=" + format))
		assert.True(t, strings.Contains(text, "main.remember"), format)
	}
	t.Log(i.Verdict)
}

// The same service with memguard in it: its black box and what it captured on the
// way, in a file system that only it sees, are part of the incident.
func TestPodKilledWithGuard(t *testing.T) {
	service := build(t, "./testdata/leaky", "-ldflags=-s -w", "-tags=guarded")
	r := start(t, "--exe", service, "--name", "leaky")
	c, box := pod(t, service, "-rate", "12", "-evidence", "/mnt/evidence")
	i := r.incident()
	_ = c.Wait()
	kills, err := box.Kills()
	require.NoError(t, err)
	require.EqualValues(t, 1, kills, "the kernel killed it")

	assert.Equal(t, "oom-kill", i.Cause)
	report := string(r.text("/apis/memguard.dev/v1alpha1/namespaces/default/incidents/" + i.ID))
	assert.True(t, strings.Contains(report, "main.remember"), "the leaking function is not in it")
	var v struct {
		BlackBox *struct{ Records json.Number } `json:"black_box"`
		Files    []struct{ Name string }        `json:"files"`
	}
	require.NoError(t, json.Unmarshal([]byte(report), &v))
	require.NotNil(t, v.BlackBox, "what the guard wrote down before the kill")
	var names []string
	for _, f := range v.Files {
		names = append(names, f.Name)
	}
	assert.Contains(t, strings.Join(names, " "), "heap", "captured on the way")
	t.Log(i.Verdict, names)
}
