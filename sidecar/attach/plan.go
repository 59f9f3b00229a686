// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/memguard/memguard-go/sidecar/attach/internal/procmem"
)

// plan collects pieces to be read in one go.
type plan struct {
	ranges []procmem.Range
	then   []func(b []byte)
	size   int
	buf    []byte // what was read
}

// reset empties the plan, for another one in the same memory.
func (p *plan) reset() {
	clear(p.then)
	p.ranges, p.then, p.size = p.ranges[:0], p.then[:0], 0
}

func (p *plan) add(addr uint64, n int, then func(b []byte)) {
	p.ranges = append(p.ranges, procmem.Range{Addr: addr, Len: n})
	p.then = append(p.then, then)
	p.size += n
}

// read reads a plan's pieces, in their order, and hands each out. They are valid
// until the plan is read again.
func (t *Target) read(p *plan) error {
	p.buf = slices.Grow(p.buf[:0], p.size)[:p.size]
	b := p.buf
	if err := t.mem.ReadAll(p.ranges, b); err != nil {
		return err
	}
	for i, r := range p.ranges {
		p.then[i](b[:r.Len:r.Len])
		b = b[r.Len:]
	}
	return nil
}

// ended returns the error of a process that is not there any more, or nil.
func (t *Target) ended(err error) error {
	if errors.Is(err, ErrGone) || !t.isAlive() {
		return fmt.Errorf("attach: pid %d: %w", t.pid, ErrGone)
	}
	return nil
}

// why explains why the scalars could not be read.
func (t *Target) why(err error) error {
	if err := t.ended(err); err != nil {
		return err
	}
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		return refused(t.pid, err)
	}
	return fmt.Errorf("attach: pid %d: %w", t.pid, err)
}
