// SPDX-License-Identifier: Apache-2.0

// Package demo shows two lives of one real HTTP service under one real memory
// limit and one load: unguarded, and guarded by memguard.
//
// The limit is a memory cgroup's, and the kernel kills. Where no memory cgroup
// may be made, the resident size is watched instead and the demo kills, and the
// outcome says so.
package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// service is the package of the service.
const service = "github.com/memguard/memguard-go/examples/orders"

// The load is made for this limit and this time: see load.go.
const (
	limit    = 128 << 20
	lifetime = 14 * time.Second
)

// Config says what to run. Say and Show must be set.
type Config struct {
	Service string // executable of the service; empty builds examples/orders
	Keep    string // directory where the evidence stays; empty keeps none

	// Open looks at the unguarded service from outside. It returns what is to be
	// done when the look is over. Nil is memguard.Open: the kernel's view alone.
	Open func(ctx context.Context, pid int) (*memguard.Source, func(), error)

	Say  func(line string) // steps, as they begin
	Show func(Now)         // the state, four times a second
}

// Now is the state of a life at one time.
type Now struct {
	Guarded bool
	Second  float64 // since the load began
	Usage   uint64  // bytes
	Limit   uint64
	Deaths  int
}

// Outcome is what became of both lives.
type Outcome struct {
	Limit     uint64  `json:"limit_bytes"`
	Enforced  string  `json:"enforced_by"` // who kills at the limit
	Seconds   float64 `json:"seconds"`     // of load, in each life
	Unguarded *Life   `json:"unguarded"`
	Guarded   *Life   `json:"guarded"`
	// Evidence is where the guarded service's evidence was kept; empty if it was not.
	Evidence string `json:"evidence,omitempty"`
}

// Run builds the service and lets it live twice. A context that ends stops
// everything. Nothing is left behind either way, but for what cfg keeps.
func Run(ctx context.Context, cfg Config) (*Outcome, error) {
	// What an earlier demo left that was killed itself.
	if n, err := sandbox.Sweep(); n > 0 && err == nil {
		cfg.Say(fmt.Sprintf("removed %d cgroups of demos that were killed", n))
	}
	dir, err := os.MkdirTemp("", "memguard-demo-")
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	defer os.RemoveAll(dir)
	exe := cfg.Service
	if exe == "" {
		cfg.Say("building " + service)
		if exe, err = build(ctx, dir); err != nil {
			return nil, err
		}
	}
	evidence := filepath.Join(dir, "evidence")
	if cfg.Keep != "" {
		if evidence, err = filepath.Abs(cfg.Keep); err != nil {
			return nil, fmt.Errorf("demo: %w", err)
		}
	}
	return run(ctx, cfg, exe, evidence, newPlace, lifetime)
}

// run is Run with a built service, in places that open makes.
func run(ctx context.Context, cfg Config, exe, evidence string, open func(uint64) (*place, error), lifetime time.Duration) (*Outcome, error) {
	out := &Outcome{Limit: limit, Seconds: lifetime.Seconds()}
	live := func(guard, say string) (*Life, error) {
		p, err := open(limit)
		if err != nil {
			return nil, err
		}
		defer p.close()
		out.Enforced = p.enforced
		cfg.Say(fmt.Sprintf("%s; the limit of %d MiB is enforced by %s", say, limit>>20, p.enforced))
		return live(ctx, &cfg, p, exe, guard, lifetime)
	}
	var err error
	if out.Unguarded, err = live("", "first life: the service as it is"); err != nil {
		return nil, err
	}
	if out.Guarded, err = live(evidence, "second life: the same with -guard"); err != nil {
		return nil, err
	}
	if cfg.Keep != "" {
		out.Evidence = evidence
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
		return "", errors.New("demo: the go command is not on the PATH: it builds the service; install Go, or name a built one with --service")
	case err != nil && ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", fmt.Errorf("demo: building %s: %w\n%s  run it inside a checkout of memguard, or name a built service with --service", service, err, text)
	}
	return exe, nil
}
