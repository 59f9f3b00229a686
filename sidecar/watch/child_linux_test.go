// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/internal/brink"
	"github.com/memguard/memguard-go/sidecar/target"
)

var built struct {
	sync.Mutex
	dir  string
	bins map[string]string
}

func TestMain(m *testing.M) {
	brink.KeepIfAsked()
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// program builds the service once with the given flags, and returns a copy of its
// own for the test: its path is what rules go by.
func programFile(tb testing.TB, flags ...string) string {
	tb.Helper()
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "watch")
		require.NoError(tb, err)
		built.dir, built.bins = dir, map[string]string{}
	}
	key := fmt.Sprint(flags)
	bin := built.bins[key]
	if bin == "" {
		bin = filepath.Join(built.dir, fmt.Sprint("service", len(built.bins)))
		c := exec.Command("go", append(append([]string{"build", "-o", bin}, flags...), "./testdata/service")...)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := c.CombinedOutput()
		require.NoError(tb, err, "%s", out)
		built.bins[key] = bin
	}
	at := filepath.Join(tb.TempDir(), "service")
	b, err := os.ReadFile(bin)
	require.NoError(tb, err)
	require.NoError(tb, os.WriteFile(at, b, 0o755))
	return at
}

// child is a running service.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	t   testing.TB
}

func startChild(tb testing.TB, bin string, env ...string) *child {
	return startChildBy(tb, bin, (*exec.Cmd).Start, env...)
}

func startChildBy(tb testing.TB, bin string, run func(*exec.Cmd) error, env ...string) *child {
	tb.Helper()
	c := exec.Command(bin)
	c.Env = append(os.Environ(), env...)
	in, err := c.StdinPipe()
	require.NoError(tb, err)
	out, err := c.StdoutPipe()
	require.NoError(tb, err)
	require.NoError(tb, run(c))
	p := &child{c, in, bufio.NewReader(out), tb}
	tb.Cleanup(p.kill)
	line, err := p.out.ReadString('\n')
	require.NoError(tb, err)
	require.Contains(tb, line, "ready")
	return p
}

func (p *child) pid() int { return p.cmd.Process.Pid }

// kill ends it, and waits for it.
func (p *child) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// tell gives an order, and waits until it is done.
func (p *child) tell(order ...any) {
	p.t.Helper()
	p.order(order...)
	line, err := p.out.ReadString('\n')
	require.NoError(p.t, err)
	require.Contains(p.t, line, "done")
}

// order gives an order that is not answered.
func (p *child) order(order ...any) {
	p.t.Helper()
	_, err := fmt.Fprintln(p.in, order...)
	require.NoError(p.t, err)
}

// watched is a Watcher that runs for the test.
type watched struct {
	*Watcher
	t    testing.TB
	dead chan *incident.Evidence
	stop func()
}

func watch(tb testing.TB, cfg Config) *watched {
	tb.Helper()
	ww := &watched{t: tb, dead: make(chan *incident.Evidence, 256)}
	died := cfg.Died
	cfg.Died = func(e *incident.Evidence) {
		if died != nil {
			died(e)
		}
		ww.dead <- e
	}
	w, err := New(cfg)
	require.NoError(tb, err)
	ww.Watcher = w
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = w.Run(ctx)
	}()
	ww.stop = sync.OnceFunc(func() {
		cancel()
		<-over
	})
	tb.Cleanup(ww.stop)
	return ww
}

const patience = time.Minute // of a loaded machine

// until waits for a target's status.
func (w *watched) until(name string, what string, ok func(*Status) bool) Status {
	w.t.Helper()
	var st Status
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if st, err = w.Status(name); err == nil && ok(&st) {
			return st
		}
	}
	require.FailNow(w.t, "waited in vain", "for %s: %s: %s eye %s %+v %v", name, what, st.State, st.Eye, st.Sources, err)
	return st
}

// sees waits until a target is the process and was looked at.
func (w *watched) sees(name string, pid int) Status {
	w.t.Helper()
	return w.until(name, fmt.Sprint("process ", pid), func(st *Status) bool {
		return st.Process != nil && st.Process.PID == pid && st.Guard != nil
	})
}

// death waits for the next one.
func (w *watched) death() *incident.Evidence {
	w.t.Helper()
	select {
	case e := <-w.dead:
		return e
	case <-time.After(patience):
		require.FailNow(w.t, "no death was told", "%+v", w.Events(context.Background(), 0))
		return nil
	}
}

func (st *Status) source(name string) Source {
	for _, s := range st.Sources {
		if s.Name == name {
			return s
		}
	}
	return Source{}
}

func exeRule(name, bin string) []target.Rule { return []target.Rule{{Name: name, Exe: bin}} }

func newSleep(tb testing.TB, bin string) *exec.Cmd {
	c := exec.Command(bin, "600")
	require.NoError(tb, c.Start())
	tb.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c
}
