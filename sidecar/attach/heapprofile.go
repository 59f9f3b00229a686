// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/memguard/memguard-go/sidecar/attach/internal/goexe"
	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
)

// heapProfile are the allocations that the runtime sampled, one in rate bytes on
// average, as of the last completed cycle (runtime/mprof.go).
type heapProfile struct {
	rate    int64
	records []record
	lines   map[uint64][]goexe.Frame // by return address
}

// record is one bucket: a stack and what was allocated there in objects of one
// size. Not scaled.
type record struct {
	pcs                 []uint64 // return addresses; each stands for one line
	allocs, frees       int64
	allocated, released int64 // bytes
}

// Bounds of a heap profile.
const (
	maxBuckets  = 1 << 20
	maxPCs      = 4 << 20 // in all stacks together
	maxNstk     = 1024    // the runtime keeps 128 and what inlining adds
	typeMemProf = 1
)

// heapProfile reads the runtime's list of buckets. They are never freed, so the
// list can be followed while the target runs.
func (t *Target) heapProfile(ctx context.Context, s *Snapshot, sc *scalars) error {
	switch {
	case !sc.has["runtime.mbuckets"]:
		return errors.New("runtime.mbuckets not found in the " + t.located)
	case !sc.has["runtime.MemProfileRate"]:
		return errors.New("the sampling rate was not found in the " + t.located)
	case int64(sc.rate) <= 0:
		return errors.New("the target does not sample its allocations: its linker saw no use of runtime.MemProfile, or MemProfileRate is 0")
	}
	p := &heapProfile{rate: int64(sc.rate), lines: map[uint64][]goexe.Frame{}}
	l := &t.layout.Bucket
	page := pages{t: t}
	// An active cycle that is not flushed yet is what a profile would flush first.
	flush := -1
	if sc.has["runtime.mProfCycle"] && sc.profCycle&1 == 0 {
		flush = int(sc.profCycle >> 1 % 3)
	}
	var all []record // with all cycles, for a target that has not completed one
	active := false
	pcs := 0
	seen := 0
	for at := sc.mbuckets; at != 0; seen++ {
		if seen == maxBuckets {
			return fmt.Errorf("%d buckets: %w", seen, errTooMany)
		}
		if seen%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		head, err := page.at(at, int(l.SizeOf))
		if err != nil {
			return err
		}
		size, depth, next := u64(head, l.Size), u64(head, l.Depth), u64(head, l.AllNext)
		if u64(head, l.Type) != typeMemProf || depth > maxNstk || size > maxStack<<10 {
			return fmt.Errorf("a bucket of type %d with %d frames and %d bytes", u64(head, l.Type), depth, size)
		}
		if pcs += int(depth); pcs > maxPCs {
			return fmt.Errorf("%d frames: %w", pcs, errTooMany)
		}
		b, err := page.at(at+uint64(l.SizeOf), int(depth)*8+int(l.Record))
		if err != nil {
			return err
		}
		r := record{pcs: make([]uint64, depth)}
		for i := range r.pcs {
			r.pcs[i] = le.Uint64(b[8*i:])
		}
		cycles := b[8*depth:]
		rest := r
		if err := t.add(&r, cycles, 0, size); err != nil {
			return err
		}
		if flush >= 0 {
			if err := t.add(&r, cycles, 1+flush, size); err != nil {
				return err
			}
		}
		active = active || r.allocs != 0 || r.frees != 0
		for i := range 4 {
			if err := t.add(&rest, cycles, i, size); err != nil {
				return err
			}
		}
		if r.allocs != 0 {
			p.records = append(p.records, r)
		}
		if !active && rest.allocs != 0 {
			all = append(all, rest)
		}
		at = next
	}
	if !active { // as runtime.MemProfile does before the first cycle
		p.records = all
	}
	for _, r := range p.records {
		for _, pc := range r.pcs {
			if _, ok := p.lines[pc]; !ok {
				p.lines[pc] = t.frames.expand(t, pc-1)
			}
		}
	}
	s.heap = p
	return nil
}

// add adds one cycle of a bucket: 0 is what is published, 1 to 3 are to come.
func (t *Target) add(r *record, cycles []byte, i int, size uint64) error {
	l := &t.layout.Bucket
	off := layout.Off(i) * l.Cycle
	allocs, frees := u64(cycles, off+l.Allocs), u64(cycles, off+l.Frees)
	if frees > allocs && i == 0 || allocs > math.MaxInt64/max(size, 1) || frees > math.MaxInt64/max(size, 1) {
		return fmt.Errorf("a bucket with %d allocations and %d frees of %d bytes", allocs, frees, size)
	}
	if l.Bytes.Has() {
		// A release that counts bytes too tells whether this is the right place.
		if n := u64(cycles, off+l.Bytes); distance(n, allocs*size) > 2*size {
			return fmt.Errorf("a bucket with %d allocations of %d bytes that are %d bytes", allocs, size, n)
		}
	}
	r.allocs += int64(allocs)
	r.frees += int64(frees)
	r.allocated += int64(allocs * size)
	r.released += int64(frees * size)
	return nil
}

// pages reads small structures that lie close together, page by page: a page
// that holds one is there.
type pages struct {
	t    *Target
	base uint64
	b    []byte
}

// at returns n bytes at addr, valid until the next call.
func (p *pages) at(addr uint64, n int) ([]byte, error) {
	const page = 4096
	if addr > math.MaxInt64 {
		return nil, fmt.Errorf("an address of %#x", addr)
	}
	if addr < p.base || addr+uint64(n) > p.base+uint64(len(p.b)) {
		base := addr &^ (page - 1)
		size := (addr + uint64(n) - base + page - 1) &^ (page - 1)
		p.b = append(p.b[:0], make([]byte, size)...)
		p.base = base
		if err := p.t.mem.Read(base, p.b); err != nil {
			p.b = p.b[:0]
			return nil, err
		}
	}
	i := addr - p.base
	return p.b[i : i+uint64(n)], nil
}
