// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// releases are the toolchains of the matrix.
var releases = []string{"go1.21.13", "go1.22.12", "go1.23.12", "go1.24.13", "go1.25.8", "go1.26.8", "go1.27.3"}

// current is the toolchain that runs the tests.
var current = strings.Fields(runtime.Version())[0]

// build is a way of building a target.
type build struct {
	release string
	flags   string // of go build
	cgo     bool
	env     string
}

func (b build) String() string {
	s := b.release + " " + b.flags
	if b.cgo {
		s += " cgo"
	}
	s += " " + b.env
	return strings.TrimSpace(s)
}

var built struct {
	sync.Mutex
	dir  string
	bins map[string]string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// compile builds the truth program, once for each way.
func compile(tb testing.TB, b build) string {
	built.Lock()
	defer built.Unlock()
	if bin := built.bins[b.String()]; bin != "" {
		return bin
	}
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "attach")
		require.NoError(tb, err)
		built.dir, built.bins = dir, map[string]string{}
	}
	bin := filepath.Join(built.dir, fmt.Sprintf("target%d", len(built.bins)))
	args := append([]string{"build", "-o", bin}, strings.Fields(b.flags)...)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "-s,-w", "-s -w")
		args[i] = strings.ReplaceAll(args[i], "-N,-l", "-N -l")
	}
	c := exec.Command("go", append(args, ".")...)
	c.Dir = "testdata/truth"
	cgo := "CGO_ENABLED=0"
	if b.cgo {
		cgo = "CGO_ENABLED=1"
	}
	c.Env = append(os.Environ(), "GOTOOLCHAIN="+b.release, "GOFLAGS=-mod=mod", "GOWORK=off", cgo, b.env)
	out, err := c.CombinedOutput()
	require.NoError(tb, err, "%s: %s", b, out)
	built.bins[b.String()] = bin
	return bin
}

// truth is a running target.
type truth struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

// start runs a target until the test ends.
func start(tb testing.TB, bin string, args ...string) *truth {
	return startCommand(tb, exec.Command(bin, args...))
}

func startCommand(tb testing.TB, c *exec.Cmd) *truth {
	return startWith(tb, c, (*exec.Cmd).Start)
}

func startWith(tb testing.TB, c *exec.Cmd, run func(*exec.Cmd) error) *truth {
	in, err := c.StdinPipe()
	require.NoError(tb, err)
	out, err := c.StdoutPipe()
	require.NoError(tb, err)
	if c.Stderr == nil {
		c.Stderr = os.Stderr
	}
	require.NoError(tb, run(c))
	tb.Cleanup(func() {
		in.Close()
		c.Process.Kill()
		c.Wait()
	})
	p := &truth{c, in, bufio.NewReader(out)}
	line, err := p.out.ReadString('\n')
	require.NoError(tb, err)
	require.Equal(tb, "ready\n", line)
	return p
}

func (p *truth) pid() int { return p.cmd.Process.Pid }

// ask sends a command and returns the line that answers it.
func (p *truth) ask(tb testing.TB, command string) string {
	_, err := fmt.Fprintln(p.in, command)
	require.NoError(tb, err)
	line, err := p.out.ReadString('\n')
	require.NoError(tb, err)
	return line
}

// said is what the target says of itself; see testdata/truth.
type said struct {
	MemStats   runtime.MemStats
	Goroutines uint64
	GCPercent  int64
	Limit      uint64
}

func (p *truth) truth(tb testing.TB) said {
	var s said
	require.NoError(tb, json.Unmarshal([]byte(p.ask(tb, "truth")), &s))
	return s
}

// open attaches for the length of the test.
func open(tb testing.TB, pid int) *Target {
	t, err := Open(pid)
	require.NoError(tb, err)
	tb.Cleanup(func() { t.Close() })
	return t
}
