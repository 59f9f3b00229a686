// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/scavenge/smaps"
	"github.com/memguard/memguard-go/sidecar/attach"
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
