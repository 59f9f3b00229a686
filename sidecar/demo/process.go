// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/memguard/memguard-go/pacer/gctrace"
)

// process is one run of the service.
type process struct {
	cmd    *exec.Cmd
	url    string
	began  time.Time
	dead   chan struct{} // closed when it has ended and was waited for
	cancel context.CancelFunc

	// Of the collector's own lines; to be read when it is dead.
	gcCPU time.Duration
	procs int // GOMAXPROCS; 0 before the first cycle
}

// begin starts the service in a place and waits until it listens.
func begin(ctx context.Context, p *place, exe, guard string) (*process, error) {
	ctx, cancel := context.WithCancel(ctx)
	args := []string{"-addr", "127.0.0.1:0"}
	if guard != "" {
		args = append(args, "-guard", guard)
		if p.box == nil { // the guard cannot read off what nobody enforces
			args = append(args, "-limit", strconv.FormatUint(p.limit, 10))
		}
	}
	s := &process{cmd: exec.CommandContext(ctx, exe, args...), dead: make(chan struct{}), cancel: cancel}
	for _, kv := range os.Environ() { // as a container starts it
		name, _, _ := strings.Cut(kv, "=")
		if name != "GOGC" && name != "GOMEMLIMIT" && name != "GODEBUG" {
			s.cmd.Env = append(s.cmd.Env, kv)
		}
	}
	s.cmd.Env = append(s.cmd.Env, "GODEBUG=gctrace=1")
	var stdout, stderr io.ReadCloser
	err := func() (err error) {
		if stdout, err = s.cmd.StdoutPipe(); err != nil {
			return err
		}
		if stderr, err = s.cmd.StderrPipe(); err != nil {
			return err
		}
		return p.start(s.cmd)
	}()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("demo: starting the service: %w", err)
	}
	s.began = time.Now()

	var complaint tail
	var drained sync.WaitGroup
	drained.Go(func() { s.collect(io.TeeReader(stderr, &complaint)) })
	lines := bufio.NewScanner(stdout)
	for s.url == "" && lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			s.url = "http://" + addr
		}
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdout) // a full pipe would stop the service
		drained.Wait()
		_ = s.cmd.Wait()
		close(s.dead)
	}()
	if s.url == "" {
		s.close()
		return nil, fmt.Errorf("demo: the service ended before it listened: %v: %s", s.cmd.ProcessState, complaint)
	}
	return s, nil
}

// collect adds up what the collector says of itself (GODEBUG=gctrace=1).
func (s *process) collect(stderr io.Reader) {
	r := gctrace.NewReader(stderr)
	for r.Scan() {
		if c, ok := r.Record().(*gctrace.Cycle); ok {
			s.gcCPU += c.GCCPU()
			s.procs = c.Procs
		}
	}
	_, _ = io.Copy(io.Discard, stderr) // whatever the reader did not like
}

// tail keeps the end of what is written to it.
type tail []byte

func (t *tail) Write(b []byte) (int, error) {
	const most = 4 << 10
	*t = append(*t, b...)
	*t = (*t)[max(0, len(*t)-most):]
	return len(b), nil
}

// stop asks the service to end, and makes it end if it does not.
func (s *process) stop() {
	const patience = 5 * time.Second
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.dead:
	case <-time.After(patience):
	}
	s.close()
}

// close ends the service.
func (s *process) close() {
	s.cancel() // kills it, if it lives
	<-s.dead
}

// exit says how the service ended.
func (s *process) exit() (how string, killed bool) {
	state := s.cmd.ProcessState
	if state == nil {
		return "unknown", false
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	killed = ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
	return state.String(), killed
}
