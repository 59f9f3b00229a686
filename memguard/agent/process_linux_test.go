// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The test binary is also the service, and a stranger who asks.
func TestMain(m *testing.M) {
	switch role, arg, _ := strings.Cut(os.Getenv("MEMGUARD_TEST_ROLE"), " "); role {
	case "":
		os.Exit(m.Run())
	case "service":
		if arg != "" { // in a mount namespace of its own: nobody outside sees this
			check(syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""))
			check(syscall.Mount("tmpfs", arg, "tmpfs", 0, ""))
		}
		s, err := Serve(memguard.Start(memguard.Config{}), Config{})
		check(err)
		fmt.Println(s.Path())
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
	case "stranger":
		resp, err := over(arg).Get("http://memguard/v1/status")
		if err != nil {
			fmt.Println(err)
			return
		}
		b, err := io.ReadAll(resp.Body)
		fmt.Println(resp.StatusCode, string(b), err)
	}
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// service starts a process with an agent.
func service(t *testing.T, tmp, arg string, attr *syscall.SysProcAttr) (pid int, path string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "MEMGUARD_TEST_ROLE=service "+arg, "XDG_RUNTIME_DIR=", "TMPDIR="+tmp)
	cmd.SysProcAttr = attr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	if err := cmd.Start(); err != nil && attr != nil {
		t.Skip("namespaces cannot be made here: ", err)
	} else {
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err, line)
	path = strings.TrimSpace(line)
	require.True(t, strings.HasPrefix(path, tmp), path)
	return cmd.Process.Pid, path
}

// The agent of another process is found by its pid alone.
func TestDial(t *testing.T) {
	t.Parallel()
	tmp := shortDir(t)
	pid, path := service(t, tmp, "", nil)
	c, err := Dial(pid)
	require.NoError(t, err)
	defer c.Close()
	assert.Equal(t, filepath.Join(tmp, dirName(os.Geteuid()), strconv.Itoa(pid)+".sock"), path)
	status, err := c.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, pid, status.PID)
	require.NotNil(t, status.Hand)
	r, err := c.Report(t.Context())
	require.NoError(t, err)
	assert.Equal(t, pid, r.PID)
	_, ok := r.Ledger.Row(memguard.RowUnused)
	assert.True(t, ok, "seen from inside")

	e, err := c.Do(t.Context(), memguard.Order{Action: memguard.SetGCPercent, To: 42, Reason: "a test"})
	require.NoError(t, err)
	assert.Equal(t, memguard.Applied, e.Kind)
	status, err = c.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 42, status.Hand.Wanted.GCPercent)
	es, err := c.Events(t.Context(), 0, 0)
	require.NoError(t, err)
	assert.NotEmpty(t, es)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = c.Events(ctx, 1<<40, time.Minute)
	assert.ErrorIs(t, err, context.DeadlineExceeded)

	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Eventually(t, func() bool { return gone(pid) }, time.Minute, time.Millisecond)
	_, err = c.Status(t.Context())
	assert.ErrorIs(t, err, memguard.ErrGone)
	_, err = Dial(pid)
	assert.ErrorIs(t, err, ErrNone, "its socket is still there")
	assert.FileExists(t, path)
}

// So is that of a process in a container: pid 1 of its own, with a /tmp of its own.
func TestDialIntoAContainer(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("making namespaces needs root")
	}
	tmp := shortDir(t)
	pid, path := service(t, tmp, tmp, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS})
	assert.Equal(t, filepath.Join(tmp, dirName(0), "1.sock"), path)
	assert.NoFileExists(t, path, "not in our mount namespace")
	c, err := Dial(pid)
	require.NoError(t, err)
	defer c.Close()
	status, err := c.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, pid, status.PID, "as we number it")
}

// Where somebody else listens in the place of the process, nothing is sent.
func TestDialRefusesAnImpostor(t *testing.T) {
	t.Parallel()
	tmp := shortDir(t)
	cmd := exec.Command("sleep", "60")
	cmd.Env = []string{"TMPDIR=" + tmp}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	_, err := Dial(cmd.Process.Pid)
	assert.ErrorIs(t, err, ErrNone)
	dir := filepath.Join(tmp, dirName(os.Geteuid()))
	require.NoError(t, os.Mkdir(dir, 0o700))
	l, err := net.Listen("unix", filepath.Join(dir, strconv.Itoa(cmd.Process.Pid)+".sock"))
	require.NoError(t, err)
	defer l.Close()
	_, err = Dial(cmd.Process.Pid)
	assert.ErrorIs(t, err, ErrNone)
	assert.ErrorContains(t, err, fmt.Sprintf("pid %d listens there", os.Getpid()))
	_, err = Dial(4194999)
	assert.ErrorIs(t, err, ErrNone)
}

// Another user is kept out twice: by the directory, and by the kernel's word on
// who connects.
func TestAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	_, s, _ := serving(t)
	const nobody = 65534
	open := shortDir(t) // where the binary can be run by everybody
	require.NoError(t, os.Chmod(open, 0o755))
	exe := filepath.Join(open, "stranger")
	// By another process: a child of this one, forked by another test, would inherit a
	// descriptor that writes, and the file were busy.
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, exec.Command("cp", self, exe).Run())
	require.NoError(t, os.Chmod(exe, 0o755))
	asks := func() string {
		cmd := exec.Command(exe)
		cmd.Dir = "/"
		cmd.Env = []string{"MEMGUARD_TEST_ROLE=stranger " + s.path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	assert.Contains(t, asks(), "permission denied")

	require.NoError(t, os.Chmod(filepath.Dir(s.path), 0o755))
	require.NoError(t, os.Chmod(s.path, 0o666))
	answer := asks()
	assert.Contains(t, answer, "403")
	assert.Contains(t, answer, `"code":"forbidden"`)
	assert.Contains(t, answer, "ask as user 0")
}
