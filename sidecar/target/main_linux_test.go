// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The test binary plays services, too: what its first argument says, until its
// standard input ends. It says a line when it is ready.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || !strings.HasPrefix(os.Args[1], "play-") {
		os.Exit(m.Run())
	}
	must := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	in := bufio.NewReader(os.Stdin)
	switch os.Args[1] {
	case "play-wait":
		fmt.Println("ready")
	case "play-chroot":
		must(syscall.Chroot(os.Args[2]))
		must(os.Chdir("/"))
		fmt.Println("ready")
	case "play-listen": // when told
		fmt.Println("ready")
		_, err := in.ReadString('\n')
		must(err)
		l, err := net.Listen(os.Args[2], os.Args[3])
		must(err)
		fmt.Println(l.Addr().(*net.TCPAddr).Port)
		_, err = in.ReadString('\n')
		must(err)
		l.Close()
		fmt.Println("closed")
	case "play-exec": // another program, when told
		fmt.Println("ready")
		_, err := in.ReadString('\n')
		must(err)
		must(syscall.Exec(os.Args[2], os.Args[2:], os.Environ()))
	case "play-scan":
		f, err := NewFinder([]Rule{{Name: "x", Exe: os.Args[2]}})
		must(err)
		found, blind := f.Scan(context.Background())
		must(json.NewEncoder(os.Stdout).Encode(map[string]any{"found": len(found), "blind": blind}))
	}
	_, _ = io.Copy(io.Discard, in)
}

// service is a process that a test plays with.
type service struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (s *service) say(t *testing.T, what string) (answer string) {
	t.Helper()
	_, err := io.WriteString(s.in, what+"\n")
	require.NoError(t, err)
	return s.hear(t)
}

func (s *service) hear(t *testing.T) string {
	t.Helper()
	line, err := s.out.ReadString('\n')
	require.NoError(t, err, "%s", line)
	return strings.TrimSpace(line)
}

// play starts one. The program is a copy of ours with its own name, so that parallel
// tests do not find each other's.
func play(t testing.TB, name string, args ...string) *service {
	t.Helper()
	exe := filepath.Join(t.TempDir(), name)
	self, err := os.Executable()
	require.NoError(t, err)
	if os.Link(self, exe) != nil { // another file system
		b, err := os.ReadFile(self)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(exe, b, 0o755))
	}
	return launch(t, exec.Command(exe, args...))
}

func launch(t testing.TB, cmd *exec.Cmd) *service {
	t.Helper()
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &service{cmd, in, bufio.NewReader(out)}
}
