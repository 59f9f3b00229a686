// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"
)

// A measurement has two more processes, copies of this program: the service and
// the load. They get orders by standard input, one JSON value each, and answer
// each by one on standard output. They end when their input does.

// role is what a copy of the program is told to be.
type role struct {
	Load    bool `json:",omitempty"` // else the service
	Profile bool `json:",omitempty"` // the service keeps a CPU profile, and watches its guard
}

const roleEnv = "MEMGUARD_OVERHEAD_ROLE"

// IsChild reports whether this process is a part of somebody's measurement. Main
// takes care of it; a test binary that calls Main asks before it runs its tests.
func IsChild() bool { return os.Getenv(roleEnv) != "" }

func child(stderr io.Writer) int {
	signal.Ignore(os.Interrupt) // Ctrl-C is for the parent, which ends us
	var r role
	err := json.Unmarshal([]byte(os.Getenv(roleEnv)), &r)
	switch {
	case err != nil:
		err = fmt.Errorf("%s: %w", roleEnv, err)
	case r.Load:
		err = playLoad()
	default:
		err = playService(r)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitCannot
	}
	return exitFine
}

// order is what a part is told.
type order struct {
	Do     verb
	Way    string        `json:",omitempty"` // of be
	To     addresses     `json:",omitzero"`  // of send and pair: where the service listens
	PID    int           `json:",omitempty"` // of pair: the service's
	Window int           `json:",omitempty"` // of pair: requests in each
	For    time.Duration `json:",omitempty"` // of send and pair
	Rate   float64       `json:",omitempty"` // of send: requests a second, between pauses
	Seed   uint64        `json:",omitempty"` // of send and pair
}

type verb string

const (
	be     verb = "be"     // of the service: run that way from here on; addresses
	look   verb = "look"   // of the service: a usage
	quiet  verb = "quiet"  // of the service: no work of its own any more, and nothing kept idle; a usage
	finish verb = "finish" // of the service: write the CPU profile; a usage
	send   verb = "send"   // of the load: requests when they come; a tally
	pair   verb = "pair"   // of the load: requests one after the other; a bout
)

// orphanGrace is for a part to end by itself when the parent has.
const orphanGrace = 2 * time.Second

// obey carries out orders until there are no more.
func obey(do func(order) (any, error)) error {
	orders := make(chan order)
	go func() {
		defer close(orders)
		for in := json.NewDecoder(os.Stdin); ; {
			var o order
			if err := in.Decode(&o); err != nil {
				time.AfterFunc(orphanGrace, func() { os.Exit(exitCannot) }) // one may be under way
				return
			}
			orders <- o
		}
	}()
	out := json.NewEncoder(os.Stdout)
	for o := range orders {
		answer, err := do(o)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Do, err)
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

// part is a process that obeys.
type part struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.Closer
	orders *json.Encoder
	answer *json.Decoder
	stderr tail
}

// spawn starts a copy of this program as r, by start, in the directory dir. It is
// killed when ctx ends.
func spawn(ctx context.Context, r role, dir string, start func(*exec.Cmd) error) (*part, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &part{name: "the service", cmd: exec.CommandContext(ctx, self)}
	if r.Load {
		p.name = "the load"
	}
	p.cmd.Dir, p.cmd.Stderr = dir, &p.stderr
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "GOGC", "GOMEMLIMIT", "GODEBUG", "GOMAXPROCS", roleEnv: // a healthy service is as it comes
		default:
			p.cmd.Env = append(p.cmd.Env, kv)
		}
	}
	p.cmd.Env = append(p.cmd.Env, roleEnv+"="+string(text))
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.stdin, p.orders, p.answer = stdin, json.NewEncoder(stdin), json.NewDecoder(stdout)
	if err := start(p.cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	return p, nil
}

// ask gives an order and waits for the answer. After an error the part is done for.
func (p *part) ask(o order, answer any) error {
	err := p.orders.Encode(o)
	if err == nil {
		err = p.answer.Decode(answer)
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", p.name, o.Do, err)
	}
	return nil
}

// end ends the part and waits for it.
func (p *part) end() error {
	p.stdin.Close()
	if err := p.cmd.Wait(); err != nil {
		if text := p.stderr.String(); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 4 << 10
	t.b = append(t.b, p...)
	t.b = t.b[max(len(t.b)-most, 0):]
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.b)) }

var errOrder = errors.New("no such order for this part")
