// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"context"
	"errors"
	"slices"

	"github.com/memguard/memguard-go/sidecar/attach/internal/procmem"
)

// Bounds of a walk over many structures of one size.
const (
	walkChunk = 1 << 15 // pointers that are read and sorted at a time
	walkBytes = 1 << 20 // bytes that are read at a time
	walkGap   = 1 << 10 // unwanted bytes between two structures that cost less than another piece
	maxSpans  = 1 << 28 // 2 TiB of single pages
	maxGs     = 1 << 28
)

var errTooMany = errors.New("more than a process can have")

// walk reads the structures of size bytes that a slice of pointers in the target
// points to, in the order of their addresses where they are close together, and
// calls f with each. The bytes are valid until f returns. Structures that cannot
// be read are counted.
func (t *Target) walk(ctx context.Context, s slice, size int, f func(addr uint64, b []byte)) (bad uint64, err error) {
	raw := make([]byte, 8*min(s.len, walkChunk))
	ptrs := make([]uint64, 0, len(raw)/8)
	for at := uint64(0); at < s.len; at += walkChunk {
		if err := ctx.Err(); err != nil {
			return bad, err
		}
		n := min(s.len-at, walkChunk)
		if err := t.mem.Read(s.ptr+8*at, raw[:8*n]); err != nil {
			return bad, err
		}
		ptrs = ptrs[:0]
		for i := range n {
			switch p := le.Uint64(raw[8*i:]); {
			case p>>56 != 0: // no address of a process
				bad++
			case p != 0:
				ptrs = append(ptrs, p)
			}
		}
		slices.Sort(ptrs)
		n2, err := t.walkSome(ptrs, size, f)
		bad += n2
		if err != nil {
			return bad, err
		}
	}
	return bad, nil
}

// walkSome reads the structures at sorted addresses.
func (t *Target) walkSome(ptrs []uint64, size int, f func(addr uint64, b []byte)) (bad uint64, err error) {
	var ranges []procmem.Range
	for len(ptrs) > 0 {
		ranges = ranges[:0]
		total, n := 0, 0
		for ; n < len(ptrs); n++ {
			p := ptrs[n]
			if k := len(ranges); k > 0 {
				last := &ranges[k-1]
				if end := last.Addr + uint64(last.Len); p < end+walkGap {
					grow := int(p + uint64(size) - min(end, p+uint64(size)))
					if total+grow > walkBytes {
						break
					}
					last.Len += grow
					total += grow
					continue
				}
			}
			if total+size > walkBytes || len(ranges) == 1024 {
				break
			}
			ranges = append(ranges, procmem.Range{Addr: p, Len: size})
			total += size
		}
		group := ptrs[:n]
		ptrs = ptrs[n:]
		t.buf = slices.Grow(t.buf[:0], total)[:total]
		err := t.mem.ReadAll(ranges, t.buf)
		switch {
		case err == nil:
			deliver(group, ranges, t.buf, size, f)
		case t.ended(err) != nil:
			return bad, t.ended(err)
		default: // one by one
			for _, p := range group {
				if t.mem.Read(p, t.buf[:size]) != nil {
					bad++
					continue
				}
				f(p, t.buf[:size])
			}
		}
	}
	return bad, nil
}

// deliver hands out the structures of a group that was read as ranges.
func deliver(group []uint64, ranges []procmem.Range, b []byte, size int, f func(addr uint64, b []byte)) {
	r, at := 0, 0 // the range, and where its bytes begin
	for _, p := range group {
		for p+uint64(size) > ranges[r].Addr+uint64(ranges[r].Len) {
			at += ranges[r].Len
			r++
		}
		i := at + int(p-ranges[r].Addr)
		f(p, b[i:i+size])
	}
}
