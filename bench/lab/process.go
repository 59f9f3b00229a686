// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is one part of a run: a copy of this program.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer     // the part's life line: it is to end when this closes
	done  chan struct{} // closed when it has ended and all its output was read
	ended time.Time
}

// settings are the variables by which a user's shell would change a victim.
var settings = []string{"GOGC=", "GOMEMLIMIT=", "GODEBUG=", "GOTRACEBACK=", roleEnv + "="}

// spawn starts a copy of this program as r, by start. What it writes goes to
// stdout and stderr; work, if any, gets what a victim says of its work.
func spawn(r role, start func(*exec.Cmd) error, dir string, env []string, stdout, stderr, work io.Writer) (*process, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = stdout, stderr
	for _, kv := range os.Environ() {
		if !hasAnyPrefix(kv, settings) {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(append(cmd.Env, env...), roleEnv+"="+string(text))
	cmd.WaitDelay = 2 * time.Second // for output that somebody else holds open
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, stdin: stdin, done: make(chan struct{})}
	heard := make(chan struct{})
	if work == nil {
		close(heard)
	} else {
		read, write, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer write.Close()
		cmd.ExtraFiles = []*os.File{write}
		go func() {
			defer close(heard)
			defer read.Close()
			_, _ = io.Copy(work, read)
		}()
	}
	if err := start(cmd); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // ProcessState says it all
		p.ended = time.Now()
		<-heard
	}()
	return p, nil
}

// stop asks the process to end, kills it after a grace, and waits.
func (p *process) stop(grace time.Duration) {
	p.stdin.Close()
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// cpu is the processor time that the ended process took.
func (p *process) cpu() time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// how says how the ended process ended, and whether by SIGKILL.
func (p *process) how() (text string, sigkill bool) {
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return ws.Signal().String(), ws.Signal() == syscall.SIGKILL
	}
	return fmt.Sprintf("exit status %d", p.cmd.ProcessState.ExitCode()), false
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// lines is a writer that calls each with every line. A line that grows beyond
// maxLine is cut there.
type lines struct {
	each func(string)
	part []byte
}

const maxLine = 4 << 10

func (l *lines) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		head, tail, whole := cutLine(rest)
		l.part = append(l.part, head[:min(len(head), maxLine-len(l.part))]...)
		rest = tail
		if whole {
			l.each(string(l.part))
			l.part = l.part[:0]
		}
	}
	return len(b), nil
}

// flush ends the last line, if it has no end of its own.
func (l *lines) flush() {
	if len(l.part) > 0 {
		l.each(string(l.part))
		l.part = nil
	}
}

func cutLine(b []byte) (head, tail []byte, whole bool) {
	for i, c := range b {
		if c == '\n' {
			return b[:i], b[i+1:], true
		}
	}
	return b, nil, false
}
