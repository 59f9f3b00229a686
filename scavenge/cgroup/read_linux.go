// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Read reads everything the kernel says about the group, limits anew each
// time. What single files refuse is unknown in the Reading and explained in
// its Errs. The error is ErrGone when the group was removed; what could still
// be read, the ancestors, is in the Reading.
func (g *Group) Read() (Reading, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var r Reading
	if g.closed {
		return r, fmt.Errorf("cgroup: read %s: %w", g.dir, fs.ErrClosed)
	}
	r.Errs = g.absent
	r.Usage = g.number(&r, fileUsage)
	r.Peak = g.number(&r, filePeak)
	g.readStat(&r)
	r.WorkingSet = workingSet(r.Usage, &r.Stat)
	g.readLevels(&r)
	g.readSwap(&r)
	g.parse(&r, fileEvents, func(text []byte) int { return parseEvents(text, &r.Events) })
	g.parse(&r, fileLocalEvents, func(text []byte) int { return parseEvents(text, &r.LocalEvents) })
	if g.version == 1 {
		g.readFailcnt(&r)
	}
	r.PSI = g.psi
	g.parse(&r, filePSI, func(text []byte) int { return parsePSI(text, &r.PSI) })

	for _, err := range r.Errs[len(g.absent):] {
		if errors.Is(err, ErrGone) {
			return r, err
		}
	}
	return r, nil
}

func (g *Group) readStat(r *Reading) {
	g.parse(r, fileStat, func(text []byte) int {
		return parseStat(g.version, slices.Clone(text), &r.Stat)
	})
	if kernel := g.number(r, fileKernel); kernel.ok {
		r.Stat.fields[Kernel] = kernel
	}
}

func (g *Group) readLevels(r *Reading) {
	r.Limit, r.High = Unlimited(), Unlimited()
	r.Levels = make([]Level, len(g.levels))
	for i := range g.levels {
		from, l := &g.levels[i], &r.Levels[i]
		l.Dir, l.High = from.dir, Unlimited()
		if i == 0 {
			l.Usage = r.Usage
		} else {
			l.Usage = g.numberOf(r, &from.usage)
		}
		l.Limit = g.limitOf(r, &from.limit)
		if g.version == 2 {
			l.High = g.limitOf(r, &from.high)
		}
		r.Limit = r.Limit.tighter(l.Limit)
		r.High = r.High.tighter(l.High)
	}
	if g.version == 1 {
		r.Limit = r.Limit.tighter(statLimit(&r.Stat, HierarchicalLimit))
	}
	for _, l := range r.Levels {
		if _, bounded := r.Limit.Value(); bounded && l.Limit == r.Limit {
			r.LimitFrom = l.Dir
			break
		}
	}
}

func (g *Group) readSwap(r *Reading) {
	if g.version == 2 {
		r.Swap = g.number(r, fileSwap)
		r.SwapLimit = Unlimited()
		if !g.host {
			r.SwapLimit = g.limitOf(r, &g.files[fileSwapLimit])
		}
		return
	}
	r.Swap = r.Stat.fields[Swap]
	r.SwapLimit = g.limitOf(r, &g.files[fileSwapLimit]).tighter(statLimit(&r.Stat, HierarchicalMemsw))
	if both, ok := r.SwapLimit.Value(); ok {
		limit, ok := r.Limit.Value()
		if r.SwapLimit = (Limit{}); ok {
			r.SwapLimit = LimitOf(both - min(limit, both))
		}
	}
}

// readFailcnt counts the hits of both limits of version 1: a charge fails at
// the one for memory plus swap or at the one for memory. The kernel asks the
// first one first, and kernels of late (seen on 6.18) do not count its hits:
// where it is not above the other, two zeros mean nothing.
func (g *Group) readFailcnt(r *Reading) {
	r.Events.Max = g.number(r, fileFailcnt)
	if n, ok := g.number(r, fileFailcntSwap).Value(); ok && r.Events.Max.ok {
		r.Events.Max.n += n
	}
	if swap, ok := r.SwapLimit.Value(); ok && swap == 0 && r.Events.Max == ValueOf(0) {
		r.Events.Max = Value{}
		r.Errs = append(r.Errs, errBlindFailcnt)
	}
}

var errBlindFailcnt = errors.New("cgroup: memory.failcnt says nothing where the limit of memory plus swap is not above that of memory")

func statLimit(s *Stat, f Field) Limit {
	if n, ok := s.Bytes(f); ok {
		return LimitOf(n)
	}
	return Limit{}
}

// number reads a file that has one number. A file that this version does not
// have or that could not be opened is unknown without a further word: absent
// has it.
func (g *Group) number(r *Reading, i int) Value { return g.numberOf(r, &g.files[i]) }

func (g *Group) numberOf(r *Reading, f *file) (v Value) {
	g.parseFile(r, f, func(text []byte) int {
		n, ok := parseUint(text)
		if !ok {
			return 1
		}
		v = ValueOf(n)
		return 0
	})
	return v
}

func (g *Group) limitOf(r *Reading, f *file) (l Limit) {
	g.parseFile(r, f, func(text []byte) int {
		var ok bool
		if l, ok = parseLimit(text); !ok {
			return 1
		}
		return 0
	})
	return l
}

func (g *Group) parse(r *Reading, i int, parse func([]byte) (bad int)) {
	g.parseFile(r, &g.files[i], parse)
}

// parseFile reads one file and has it parsed; what went wrong goes to r.Errs.
func (g *Group) parseFile(r *Reading, f *file, parse func([]byte) (bad int)) {
	if f.fd < 0 {
		return
	}
	text, err := g.readAll(f)
	if err != nil {
		r.Errs = append(r.Errs, g.fail(f, err))
		return
	}
	if len(text) == 0 {
		r.Errs = append(r.Errs, fmt.Errorf("cgroup: %s: empty", f.path))
	} else if bad := parse(text); bad > 0 {
		r.Errs = append(r.Errs, fmt.Errorf("cgroup: %s: %d of %d lines not understood, beginning %q",
			f.path, bad, max(1, bytes.Count(text, newline)), text[:min(len(text), 40)]))
	}
}

// maxFile bounds what one file may hold. The largest, memory.stat, has 2 KiB.
const maxFile = 1 << 20

// readAll reads a file by one pread: the kernel prints it anew for each read,
// and two halves of it would not belong together.
func (g *Group) readAll(f *file) ([]byte, error) {
	for {
		n, err := f.pread(g.buf)
		if err != nil {
			return nil, err
		}
		if n < len(g.buf) {
			return g.buf[:n], nil
		}
		if n >= maxFile {
			return nil, fmt.Errorf("longer than %d bytes", maxFile)
		}
		g.buf = make([]byte, 4*n)
	}
}
