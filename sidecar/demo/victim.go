// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// victim is the service under its limit.
type victim struct {
	cmd      *exec.Cmd
	url      string
	enforced string
	box      *sandbox.Sandbox // nil where no memory cgroup may be made
	dead     chan struct{}    // closed when the service has ended and was waited for
	cancel   context.CancelFunc
}

// start starts the service under the limit and waits until it listens.
func start(ctx context.Context, exe string, limit uint64) (*victim, error) {
	box, err := sandbox.New("demo", limit)
	return startIn(ctx, exe, limit, box, err)
}

// startIn starts the service in box, or where there is none because of noBox,
// under a watched limit.
func startIn(ctx context.Context, exe string, limit uint64, box *sandbox.Sandbox, noBox error) (*victim, error) {
	ctx, cancel := context.WithCancel(ctx)
	v := &victim{cmd: exec.CommandContext(ctx, exe, "-addr", "127.0.0.1:0"), box: box, dead: make(chan struct{}), cancel: cancel}
	var stderr bytes.Buffer
	v.cmd.Stderr = &stderr
	stdout, err := v.cmd.StdoutPipe()
	switch {
	case err != nil:
	case noBox == nil:
		v.enforced = fmt.Sprintf("the kernel (memory cgroup v%d)", box.Version())
		err = box.Start(v.cmd)
	case errors.Is(noBox, sandbox.ErrUnsupported):
		v.enforced = fmt.Sprintf("this demo, which watches the resident size (%v)", noBox)
		if err = v.cmd.Start(); err == nil {
			go v.watchRSS(ctx, limit)
		}
	default:
		err = noBox
	}
	if err != nil {
		v.closeBox()
		cancel()
		return nil, fmt.Errorf("demo: starting the service: %w", err)
	}
	lines := bufio.NewScanner(stdout)
	for v.url == "" && lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			v.url = "http://" + addr
		}
	}
	go func() {
		for lines.Scan() { // drain: a full pipe would stop the service
		}
		_ = v.cmd.Wait()
		close(v.dead)
	}()
	if v.url == "" {
		v.Close()
		return nil, fmt.Errorf("demo: the service ended before it listened: %v: %s", v.cmd.ProcessState, stderr.Bytes())
	}
	return v, nil
}

// Close ends the service and removes its cgroup.
func (v *victim) Close() {
	v.cancel() // kills it, if it lives
	<-v.dead
	v.closeBox()
}

func (v *victim) closeBox() {
	if v.box != nil {
		_ = v.box.Close()
	}
}

// kills is the kernel's own count of processes killed at the limit.
func (v *victim) kills() memguard.Count {
	if v.box != nil {
		if n, err := v.box.Kills(); err == nil {
			return memguard.Known(n)
		}
	}
	return memguard.Count{}
}

// watchRSS stands in for the kernel: it kills when the resident size passes the
// limit.
func (v *victim) watchRSS(ctx context.Context, limit uint64) {
	src, err := memguard.Open(v.cmd.Process.Pid)
	if err != nil {
		return
	}
	defer src.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var s memguard.Sample
	for src.Read(&s) == nil {
		if rss, ok := s.Process.RSS.Get(); ok && rss > limit {
			_ = v.cmd.Process.Kill()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
