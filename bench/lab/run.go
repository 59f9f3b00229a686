// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// Times of a run.
const (
	backOff   = time.Second      // before a dead service is started again
	partGrace = 2 * time.Second  // for a part to end when the run is over
	loadGrace = 10 * time.Second // for answers that are still due
)

// bout is one run to be made: a scenario under a guard.
type bout struct {
	scenario *Scenario
	guard    *Contender
	repeat   int
	limit    uint64
	duration time.Duration
	show     func(moment) // may be nil
}

// moment is what can be seen of a run under way.
type moment struct {
	elapsed time.Duration
	usage   uint64
	kills   uint64
	done    uint64
}

// a run under way.
type run struct {
	*bout
	sandbox *sandbox.Sandbox
	group   *cgroup.Group
	dir     string
	addr    string
	start   time.Time

	mu   sync.Mutex // guards what follows
	r    *Result
	told uint64 // kernel kills that have a Death
	tail int    // where the next line of a full Stderr goes
	cpu  time.Duration
}

// run makes the run. The error wraps sandbox.ErrUnsupported where no memory
// cgroup may be made; it is ctx's when that ended before the run did.
func (b *bout) run(ctx context.Context) (_ *Result, err error) {
	s, err := sandbox.New("oomlab-"+b.scenario.Name+"-"+b.guard.Name, b.limit)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	group, err := cgroup.OpenDir(s.Dir())
	if err != nil {
		return nil, err
	}
	defer group.Close()
	dir, err := os.MkdirTemp("", "oomlab-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	x := &run{bout: b, sandbox: s, group: group, dir: dir, addr: addr, start: time.Now()}
	x.r = &Result{
		Scenario: b.scenario.Name, Guard: b.guard.Name, Repeat: b.repeat, Start: x.start,
		Limit: b.limit, Planned: b.duration.Seconds(),
		Deaths: []Death{}, Memory: []Usage{}, Work: []Work{}, Events: []Event{}, Stderr: []string{}, Artefacts: []File{},
	}
	if err := cmp.Or(x.act(ctx), ctx.Err()); err != nil {
		return nil, err
	}
	return x.r, x.judge()
}

// act runs the parts until the time is over or the victim is done for.
func (x *run) act(ctx context.Context) error {
	timed, cancel := context.WithDeadline(ctx, x.start.Add(x.duration))
	defer cancel()
	living, kill := context.WithCancel(context.WithoutCancel(ctx)) // ends when the victim is to end
	defer kill()

	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { x.watch(living) })
	errs := make(chan error, 3)
	part := func(f func() error) { parts.Go(func() { errs <- f() }) }

	victim := make(chan struct{})
	part(func() error {
		defer close(victim)
		return x.victim(timed, living)
	})
	wait := 1
	if x.scenario.Neighbour != nil {
		wait++
		part(func() error { return x.neighbour(living) })
	}
	loaded := make(chan struct{})
	if x.scenario.Load != nil {
		wait++
		part(func() error {
			defer close(loaded)
			return x.load(ctx, timed)
		})
	} else {
		close(loaded)
	}
	select {
	case <-timed.Done():
	case <-victim:
	}
	cancel()
	<-loaded // the answers that are due are answered
	kill()
	var err error
	for range wait {
		err = errors.Join(err, <-errs)
	}
	x.r.Ran = seconds(time.Since(x.start))
	return err
}

func (x *run) role(part string) role {
	h := fnv.New64a() // the same arrivals for every guard
	fmt.Fprint(h, x.scenario.Name, x.repeat)
	return role{part, x.scenario.Name, x.guard.Name, x.limit, x.addr, h.Sum64()}
}

// victim runs the service: again and again after it died, where a load waits for
// it, as it would be in the world. A victim that drives itself has one life.
func (x *run) victim(timed, living context.Context) error {
	env := x.scenario.Env
	if x.guard.Env != nil {
		env = append(env[:len(env):len(env)], x.guard.Env(x.limit)...)
	}
	for life := 0; ; life++ {
		out := &lines{each: func(line string) { x.hear(life, line) }}
		work := &lines{each: x.worked}
		p, err := spawn(x.role(victimPart), x.sandbox.Start, x.dir, env, out, out, work)
		if err != nil {
			return fmt.Errorf("starting the victim: %w", err)
		}
		x.mu.Lock()
		x.r.Lives++
		x.mu.Unlock()
		ordered := false
		select {
		case <-p.done:
		case <-living.Done():
			ordered = true
			p.stop(partGrace)
		}
		out.flush()
		again := x.ended(p, victimPart, life, ordered) && x.scenario.Load != nil
		if !again {
			return nil
		}
		select {
		case <-timed.Done():
			return nil
		case <-time.After(backOff):
		}
	}
}

// neighbour runs the other process of the cgroup, once.
func (x *run) neighbour(living context.Context) error {
	out := &lines{each: func(line string) { x.hear(-1, "neighbour: "+line) }}
	p, err := spawn(x.role(neighbourPart), x.sandbox.Start, x.dir, x.scenario.Env, out, out, nil)
	if err != nil {
		return fmt.Errorf("starting the neighbour: %w", err)
	}
	ordered := false
	select {
	case <-p.done:
	case <-living.Done():
		ordered = true
		p.stop(partGrace)
	}
	out.flush()
	x.ended(p, neighbourPart, -1, ordered)
	return nil
}

// ended records the end of a process. It reports whether it was a death.
func (x *run) ended(p *process, who string, life int, ordered bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if who == victimPart {
		x.cpu += p.cpu()
	}
	how, sigkill := p.how()
	d := Death{At: seconds(p.ended.Sub(x.start)), Who: who, How: how, Named: []Named{}}
	// The kernel counts a kill before it sends the signal (__oom_kill_process,
	// mm/oom_kill.c).
	if kills, err := x.sandbox.Kills(); err == nil && sigkill && kills > x.told {
		d.Kernel = true
		x.told++
	}
	if p.cmd.ProcessState.Success() || ordered && !d.Kernel {
		return false
	}
	if p.cmd.ProcessState.ExitCode() == exitGuard {
		x.r.Error = "the guard did not start"
		return false
	}
	if who == victimPart {
		d.Named = append(d.Named, named(x.r.Events, life, d.At)...)
	}
	x.r.Deaths = append(x.r.Deaths, d)
	return true
}

// load runs the load generator, outside of the cgroup.
func (x *run) load(ctx, timed context.Context) error {
	var heard error
	out := &lines{each: func(line string) {
		var t Tally
		if err := json.Unmarshal([]byte(line), &t); err != nil {
			heard = fmt.Errorf("load generator: %w in %q", err, line)
			return
		}
		x.tallied(&t)
	}}
	var last string
	stderr := &lines{each: func(line string) { last = line }}
	p, err := spawn(x.role(loadPart), (*exec.Cmd).Start, x.dir, nil, out, stderr, nil)
	if err != nil {
		return fmt.Errorf("starting the load generator: %w", err)
	}
	select {
	case <-p.done:
	case <-timed.Done():
		if ctx.Err() != nil {
			p.stop(0)
			return nil
		}
		p.stop(loadGrace)
	}
	stderr.flush()
	if !p.cmd.ProcessState.Success() {
		how, _ := p.how()
		return fmt.Errorf("load generator: %s: %s", how, last)
	}
	return heard
}

// freeAddr returns a loopback address where nobody listens. Its port is below
// those that the system gives to outgoing connections (ip_local_port_range):
// while the service is down, a connection must not find itself there.
func freeAddr() (string, error) {
	var first error
	for port := 20000 + os.Getpid()%5000; port < 32000; port++ {
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", addr)
		if err == nil {
			return addr, l.Close()
		}
		if first == nil {
			first = err
		}
	}
	return "", fmt.Errorf("no free port: %w", first)
}
