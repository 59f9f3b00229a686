// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"slices"

	"github.com/memguard/memguard-go/sidecar/attach/internal/goexe"
)

// Bounds of one stack.
const (
	maxDepth      = 128     // frames, as runtime/pprof has it (runtime/mprof.go, maxProfStackDepth)
	maxStackBytes = 1 << 18 // from the innermost frame
	firstRead     = 1 << 10 // most stacks are shallower
)

// fn finds the function at an address in the process.
func (t *Target) fn(pc uint64) (goexe.Func, bool) {
	if pc < t.text {
		return goexe.Func{}, false
	}
	return t.exe.Table.Find(pc - t.text)
}

// name1 is the name of the function at pc, empty if there is none.
func (t *Target) name1(pc uint64) string {
	f, ok := t.fn(pc)
	if !ok {
		return ""
	}
	return f.Name()
}

// stacks unwinds stacks.
type stacks struct {
	t *Target
	b []byte // of the stack
	g []byte
}

// Why a stack is unknown.
var (
	errRuns    = errors.New("it runs: its registers are not in memory")
	errMoved   = errors.New("it went on while its stack was read")
	errOutside = errors.New("the saved stack pointer is not in its stack")
)

// of returns the addresses of the calls on a goroutine's stack, innermost first,
// as far as they can be told; why says what is missing. A goroutine that went on
// while its stack was read is read again, and then unknown.
func (s *stacks) of(g *g, k key) (pcs []uint64, why string) {
	switch k.status {
	case statusRunnable, statusSyscall, statusWaiting, statusPreempted, statusLeaked:
	case statusCopy:
		return nil, errMoved.Error()
	default:
		return nil, errRuns.Error()
	}
	for range tries {
		pcs, err := s.read(g)
		again, err2 := s.again(g.addr)
		again.addr = g.addr
		switch {
		case err2 != nil:
			return nil, err2.Error()
		case again.key() != g.key() || again.sp != g.sp || again.id != g.id:
			if again.key() != k {
				return nil, errMoved.Error() // it belongs to another cluster by now
			}
			*g = again
			continue
		case err != nil:
			return pcs, err.Error()
		}
		return pcs, ""
	}
	return nil, errMoved.Error()
}

// again reads a goroutine once more.
func (s *stacks) again(addr uint64) (g, error) {
	n := int(s.t.layout.G.Size)
	if cap(s.g) < n {
		s.g = make([]byte, n)
	}
	if err := s.t.mem.Read(addr, s.g[:n]); err != nil {
		return g{}, err
	}
	return s.t.g(s.g[:n]), nil
}

// read reads a stack and unwinds it.
func (s *stacks) read(g *g) ([]uint64, error) {
	if g.sp < g.lo || g.sp > g.hi || g.pc == 0 {
		return nil, errOutside
	}
	n := min(g.hi-g.sp, firstRead)
	for {
		if uint64(cap(s.b)) < n {
			s.b = make([]byte, n)
		}
		if err := s.t.mem.Read(g.sp, s.b[:n]); err != nil {
			return nil, err
		}
		pcs, more, err := s.unwind(g, s.b[:n])
		if more && n < min(g.hi-g.sp, maxStackBytes) {
			n = min(n*8, g.hi-g.sp, maxStackBytes)
			continue
		}
		return pcs, err
	}
}

// unwind follows the frames through stack, which begins at the goroutine's saved
// stack pointer. more is that it ends too early.
func (s *stacks) unwind(g *g, stack []byte) (pcs []uint64, more bool, err error) {
	link := s.t.exe.Arch == "arm64" // the innermost return address is in a register
	pc, at := g.pc, uint64(0)
	// The saved address is behind the call that parked the goroutine, or the
	// beginning of a function that did not run yet.
	exact := false
	for depth := 0; depth < maxDepth; depth++ {
		f, ok := s.t.fn(pc)
		if !ok {
			return pcs, false, errors.New("a return address that is not in the program")
		}
		name := f.Name()
		if name == "runtime.goexit" {
			return pcs, false, nil
		}
		call := pc
		if !exact && pc > s.t.text+uint64(f.Entry) {
			call--
		}
		pcs = append(pcs, call)
		if f.Top() {
			return pcs, false, nil
		}
		if f.SPWrite() {
			return pcs, false, errors.New("a frame of unknown size")
		}
		size, ok := f.FrameSize(pc - s.t.text)
		if !ok || size%8 != 0 {
			return pcs, false, errors.New("a frame of unknown size")
		}
		// A signal put these two where no call is.
		exact = name == "runtime.asyncPreempt" || name == "runtime.sigpanic"
		switch {
		case !link:
			if size > uint64(len(stack)) || at+size+8 > uint64(len(stack)) {
				return pcs, true, errors.New("deeper than is read")
			}
			pc = le.Uint64(stack[at+size:])
			at += size + 8
		case size == 0:
			if depth > 0 {
				return pcs, false, errors.New("a frame of unknown size")
			}
			pc = g.lr
		default:
			if size > uint64(len(stack)) || at+size > uint64(len(stack)) || at+8 > uint64(len(stack)) {
				return pcs, true, errors.New("deeper than is read")
			}
			pc = le.Uint64(stack[at:])
			at += size
		}
	}
	return pcs, false, nil
}

// frameCache remembers what addresses stand for: most goroutines share most of
// theirs.
type frameCache map[uint64][]goexe.Frame

// maxFrameCache bounds it.
const maxFrameCache = 1 << 15

// expand returns the lines of one address, inlined calls first.
func (c *frameCache) expand(t *Target, pc uint64) []goexe.Frame {
	if fr, ok := (*c)[pc]; ok {
		return fr
	}
	f, ok := t.fn(pc)
	if !ok {
		return nil
	}
	fr := slices.DeleteFunc(f.Frames(pc-t.text, func(off uint64, b []byte) error {
		return t.exe.Bytes(t.gofunc-t.bias+off, b)
	}), func(f goexe.Frame) bool { return f.File == "<autogenerated>" }) // method wrappers, which Go's own stacks leave out too
	if *c == nil || len(*c) >= maxFrameCache {
		*c = frameCache{}
	}
	(*c)[pc] = fr
	return fr
}
