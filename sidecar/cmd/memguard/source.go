// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/scavenge/smaps"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/spf13/cobra"
)

// source is a Source with an eye on the runtime of a Go program, where it can
// be read from outside.
type source struct {
	*memguard.Source
	target *attach.Target // nil where it cannot
}

// openSource opens a process. Why its runtime cannot be read is in the samples.
func openSource(ctx context.Context, pid int) (*source, error) {
	src, err := memguard.Open(pid)
	if err != nil {
		return nil, err
	}
	s := &source{Source: src}
	target, err := attach.Open(pid)
	switch {
	case err == nil:
		s.target = target
		src.See(func(r *memguard.Runtime) ([]smaps.Range, error) {
			snapshot, err := target.Snapshot(ctx, 0)
			if err != nil {
				return nil, err
			}
			*r = snapshot.Runtime()
			return snapshot.Arenas, nil
		})
	case !errors.Is(err, attach.ErrNotGo):
		src.See(func(*memguard.Runtime) ([]smaps.Range, error) { return nil, err })
	}
	return s, nil
}

// Close closes the eye. The Source is closed by whoever reads it.
func (s *source) Close() {
	if s.target != nil {
		_ = s.target.Close()
	}
}

// eye says who saw what is printed.
type eye string

// The eyes, the best first.
const (
	eyeAgent  eye = "agent"
	eyeAttach eye = "attach"
	eyeKernel eye = "kernel"
)

// write says it to a person.
func (e eye) write(w io.Writer) error {
	says := map[eye]string{
		eyeAgent:  "by the service's own guard, from inside",
		eyeAttach: "in the process's memory, read as it runs",
		eyeKernel: "in the kernel's files alone",
	}
	_, err := fmt.Fprintf(w, "\nSeen %s (%s).\n", says[e], e)
	return err
}

// eye is what looks through a source.
func (s *source) eye() eye {
	if s.target != nil {
		return eyeAttach
	}
	return eyeKernel
}

// dialAgent finds the agent of a process whose guard answers; nil if there is
// none. Why an agent cannot be asked that should be there is said.
func dialAgent(c *cobra.Command, pid int) *agent.Client {
	a, err := agent.Dial(pid)
	if err != nil {
		return nil
	}
	if _, err := a.Status(c.Context()); err != nil {
		say(c.ErrOrStderr(), fmt.Errorf("%w\n  so the process is looked at from outside", err))
		a.Close()
		return nil
	}
	return a
}
