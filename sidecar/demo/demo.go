// SPDX-License-Identifier: Apache-2.0

// Package demo drives a real HTTP service into a real memory limit and tells
// from what is left why it died.
//
// The limit is a memory cgroup's, and the kernel kills. Where no memory cgroup
// may be created, the resident size is watched instead and the demo kills, and
// the outcome says so.
package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// service is the package of the service that dies.
const service = "github.com/memguard/memguard-go/examples/orders"

// longest is when the demo gives up on a service that does not die.
const longest = 90 * time.Second

// Config says what to run.
type Config struct {
	Service string            // executable of the service; empty builds examples/orders
	Limit   uint64            // bytes
	Say     func(line string) // steps, as they begin
	Show    func(Point)       // the state, twice a second while the service lives
}

// Point is the state at one time.
type Point struct {
	Second float64 `json:"second"` // since the load began
	Usage  uint64  `json:"usage_bytes"`
	Left   float64 `json:"seconds_left,omitempty"` // 0: no forecast
}

// Outcome is what happened, from the evidence that is left.
type Outcome struct {
	Limit    uint64         `json:"limit_bytes"`
	Enforced string         `json:"enforced_by"` // who kills at the limit
	Seconds  float64        `json:"seconds"`     // from the first request to the death
	Exit     string         `json:"exit"`        // as the kernel reported it to the parent
	Killed   bool           `json:"killed"`      // by SIGKILL
	OOMKills memguard.Count `json:"oom_kills"`   // the cgroup's own count; unknown without a cgroup
	Answered uint64         `json:"requests_answered"`
	Failed   uint64         `json:"requests_failed"`
	Points   []Point        `json:"points"`
	Growth   []Growth       `json:"growth"`   // by row, the largest first
	Warned   []Warning      `json:"warnings"` // raised before the death, in order
	// Before is the last report that the service itself gave.
	Before *memguard.Report `json:"before"`
}

// Growth is how one row of the ledger changed from the first to the last report.
type Growth struct {
	Row  string `json:"row"`
	From int64  `json:"from_bytes"`
	To   int64  `json:"to_bytes"`
}

// Warning is a finding and when it was raised.
type Warning struct {
	memguard.Finding
	Second float64 `json:"second"`
}

// Run builds the service, starts it under the limit, drives it until it dies,
// and returns what happened. A context that ends stops everything; nothing is
// left behind either way.
func Run(ctx context.Context, cfg Config) (*Outcome, error) {
	// What an earlier demo left that was killed itself.
	if n, err := sandbox.Sweep(); n > 0 && err == nil {
		cfg.Say(fmt.Sprintf("removed %d cgroups of demos that were killed", n))
	}
	exe := cfg.Service
	if exe == "" {
		dir, err := os.MkdirTemp("", "memguard-demo-")
		if err != nil {
			return nil, fmt.Errorf("demo: %w", err)
		}
		defer os.RemoveAll(dir)
		cfg.Say("building " + service)
		if exe, err = build(ctx, dir); err != nil {
			return nil, err
		}
	}
	out := &Outcome{Limit: cfg.Limit}
	v, err := start(ctx, exe, cfg.Limit)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	out.Enforced = v.enforced
	cfg.Say(fmt.Sprintf("the service is pid %d at %s; its limit of %d MiB is enforced by %s", v.cmd.Process.Pid, v.url, cfg.Limit>>20, v.enforced))
	cfg.Say("sending orders, each with its own idempotency key")

	if err := drive(ctx, v, out, cfg.Show); err != nil {
		return nil, err
	}
	return out, nil
}

// build compiles the service.
func build(ctx context.Context, dir string) (string, error) {
	exe := filepath.Join(dir, "orders")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", exe, service)
	text, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("demo: the go command is not on the PATH: it builds the service that dies; install Go, or name a built one with --service")
	case err != nil && ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", fmt.Errorf("demo: building %s: %w\n%s  run it inside a checkout of memguard, or name a built service with --service", service, err, text)
	}
	return exe, nil
}

// drive sends load until the service dies, and fills out.
func drive(ctx context.Context, v *victim, out *Outcome, show func(Point)) error {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	begin := time.Now()
	l := startLoad(ctx, v.url)
	w := &witness{victim: v, begin: begin, out: out, warned: map[memguard.ID]memguard.Severity{}}

	looks := time.NewTicker(250 * time.Millisecond)
	defer looks.Stop()
	for i := 0; ; i++ {
		select {
		case <-v.dead:
			out.Seconds = time.Since(begin).Seconds()
			l.stop()
			out.Answered, out.Failed = l.answered.Load(), l.failed.Load()
			out.Exit, out.Killed = v.exit()
			out.OOMKills = v.kills()
			w.close()
			return nil
		case <-ctx.Done():
			l.stop()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("demo: the service did not reach its limit within %v: %d requests answered, %d failed", longest, l.answered.Load(), l.failed.Load())
			}
			return ctx.Err()
		case <-looks.C:
			w.look(ctx)
			if n := len(out.Points); n > 0 && i%2 == 0 {
				show(out.Points[n-1])
			}
		}
	}
}

// exit says how the service ended.
func (v *victim) exit() (how string, killed bool) {
	state := v.cmd.ProcessState
	if state == nil {
		return "unknown", false
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	killed = ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
	return state.String(), killed
}
