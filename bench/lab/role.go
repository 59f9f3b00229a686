// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"time"
)

// The parts of a run. Each is a copy of the program of its own, which learns
// from its environment what it is.
const (
	victimPart    = "victim"
	neighbourPart = "neighbour"
	loadPart      = "load"
)

// role is what a copy of the program is told to be.
type role struct {
	Part     string
	Scenario string
	Guard    string
	Limit    uint64
	Addr     string
	Seed     uint64
}

const roleEnv = "MEMGUARD_OOMLAB_ROLE"

// IsChild reports whether this process is a part of somebody's run. Main takes
// care of it; a test binary that calls Main asks before it runs its tests.
func IsChild() bool { return os.Getenv(roleEnv) != "" }

// A victim reports its work on this descriptor: the first of exec.Cmd.ExtraFiles.
const workFD = 3

const (
	workEvery = 100 * time.Millisecond // between two reports of a victim
	loadEvery = 500 * time.Millisecond // between two reports of a load generator
)

// exitGuard is the exit status of a victim whose guard did not start: it is not
// started again.
const exitGuard = 4

// child plays the part that the environment names, and returns the exit status.
func child(scenarios []Scenario, contenders []Contender) int {
	signal.Ignore(os.Interrupt) // Ctrl-C is for the lab, which ends us in its own order
	var r role
	if err := json.Unmarshal([]byte(os.Getenv(roleEnv)), &r); err != nil {
		return fail(fmt.Errorf("%s: %w", roleEnv, err))
	}
	i := slices.IndexFunc(scenarios, func(s Scenario) bool { return s.Name == r.Scenario })
	if i < 0 {
		return fail(fmt.Errorf("%s: no scenario %q", roleEnv, r.Scenario))
	}
	s := &scenarios[i]

	// The lab holds the other end of our standard input. It ends when the run is
	// over, and also when the lab was killed.
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
		time.AfterFunc(orphanGrace, func() { os.Exit(fail(errors.New("the part did not end with its context"))) })
	}()

	var err error
	switch r.Part {
	case victimPart:
		c := slices.IndexFunc(contenders, func(c Contender) bool { return c.Name == r.Guard })
		if c < 0 {
			return fail(fmt.Errorf("%s: no guard %q", roleEnv, r.Guard))
		}
		return playVictim(ctx, r, s, &contenders[c])
	case neighbourPart:
		err = s.Neighbour(ctx, r.Limit)
	case loadPart:
		err = playLoad(ctx, r, s)
	default:
		err = fmt.Errorf("%s: no part %q", roleEnv, r.Part)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fail(err)
	}
	return 0
}

// orphanGrace is far above what the lab itself waits for a part to end.
const orphanGrace = 30 * time.Second

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "oomlab:", err)
	return 1
}

func playVictim(ctx context.Context, r role, s *Scenario, c *Contender) int {
	var hooks Hooks
	if c.Start != nil {
		var err error
		if hooks, err = c.Start(r.Limit); err != nil {
			fail(fmt.Errorf("guard %s: %w", c.Name, err))
			return exitGuard
		}
	}
	var done, refused atomic.Uint64
	h := &Host{
		Limit: r.Limit,
		Hooks: complete(hooks, &refused),
		Done:  func(n int) { done.Add(uint64(max(n, 0))) },
	}
	h.Serve = func(ctx context.Context, handler http.Handler) error { return serve(ctx, r.Addr, h.Hooks, handler) }

	out := os.NewFile(workFD, "work")
	report := func() { fmt.Fprintf(out, "%d %d\n", done.Load(), refused.Load()) }
	go func() {
		for range time.Tick(workEvery) {
			report()
		}
	}()
	err := s.Victim(ctx, h)
	report()
	if closed := h.Hooks.Close(); closed != nil {
		return fail(fmt.Errorf("guard %s: close: %w", c.Name, closed))
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fail(err)
	}
	return 0
}

// complete fills in what a contender leaves out, and counts refusals.
func complete(h Hooks, refused *atomic.Uint64) Hooks {
	enter := h.Enter
	h.Enter = func(ctx context.Context, route string) (func(), bool) {
		if enter == nil {
			return func() {}, true
		}
		leave, ok := enter(ctx, route)
		if !ok {
			refused.Add(1)
		}
		if leave == nil {
			leave = func() {}
		}
		return leave, ok
	}
	if h.Handler == nil {
		h.Handler = func(h http.Handler) http.Handler { return h }
	}
	if h.Listener == nil {
		h.Listener = func(l net.Listener) net.Listener { return l }
	}
	if h.OnCompact == nil {
		h.OnCompact = func(func()) {}
	}
	if h.Close == nil {
		h.Close = func() error { return nil }
	}
	return h
}

func serve(ctx context.Context, addr string, hooks Hooks, handler http.Handler) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: hooks.Handler(handler), ConnState: hooks.ConnState, ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(hooks.Listener(l)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// playLoad drives the service, from when it listens, and reports to standard output.
func playLoad(ctx context.Context, r role, s *Scenario) error {
	for {
		conn, err := net.Dial("tcp", r.Addr)
		if err == nil {
			conn.Close()
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
	c := newClient(r.Addr, r.Limit, r.Seed)
	out := json.NewEncoder(os.Stdout)
	over := make(chan error, 1)
	go func() { over <- s.Load(ctx, c) }()
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := out.Encode(c.tally()); err != nil {
				return err
			}
		case err := <-over:
			return errors.Join(err, out.Encode(c.tally()))
		}
	}
}
