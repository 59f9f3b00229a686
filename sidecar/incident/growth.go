// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"github.com/google/pprof/profile"
	"github.com/memguard/memguard-go/memguard/leak"
)

// mostProfile bounds a profile, unpacked: a process may have written zeros by the
// gigabyte. Parsed it takes several times that.
const mostProfile = 32 << 20

// Growth is where memory of the heap was allocated: what came between two heap
// profiles, or what there was in the last one.
type Growth struct {
	Base  string  `json:"base,omitempty"` // the earlier profile; empty if there is none
	Later string  `json:"later"`
	Total int64   `json:"total"` // bytes: grown if there is a Base, else in use
	Top   []Stack `json:"top"`   // the most bytes first
}

// Stack is one place that allocates, with all calls that lead to it.
type Stack struct {
	Bytes   int64        `json:"bytes"`
	Objects int64        `json:"objects"`
	Func    string       `json:"func"` // the innermost of the program's own
	Stack   []leak.Frame `json:"stack"`
}

// share is the part of the total, 0 to 1.
func (g *Growth) share(s *Stack) float64 {
	if g.Total <= 0 {
		return 0
	}
	return min(float64(s.Bytes)/float64(g.Total), 1)
}

// errProfile says that a profile is not of the heap.
var errProfile = errors.New("not a heap profile")

// parseHeap reads a heap profile in pprof's format, whose bytes may be anything.
func parseHeap(b []byte) (p *profile.Profile, bytesAt, objectsAt int, err error) {
	if bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		zip, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, 0, 0, err
		}
		if b, err = io.ReadAll(io.LimitReader(zip, mostProfile+1)); err != nil {
			return nil, 0, 0, err
		}
	}
	if len(b) > mostProfile {
		return nil, 0, 0, fmt.Errorf("more than %d MiB unpacked", mostProfile>>20)
	}
	if p, err = profile.ParseUncompressed(b); err == nil {
		err = p.CheckValid()
	}
	if err != nil {
		return nil, 0, 0, err
	}
	bytesAt, objectsAt = -1, -1
	for i, t := range p.SampleType {
		switch t.Type {
		case "inuse_space":
			bytesAt = i
		case "inuse_objects":
			objectsAt = i
		}
	}
	if bytesAt < 0 || objectsAt < 0 {
		return nil, 0, 0, errProfile
	}
	return p, bytesAt, objectsAt, nil
}

// grown compares two heap profiles, or shows the later one if base is nil.
func grown(base, later []byte) (*Growth, error) {
	places := map[string]*Stack{}
	g := &Growth{}
	for _, in := range []struct {
		b    []byte
		sign int64
	}{{later, 1}, {base, -1}} {
		if in.b == nil {
			continue
		}
		p, bytesAt, objectsAt, err := parseHeap(in.b)
		if err != nil {
			return nil, fmt.Errorf("heap profile: %w", err)
		}
		for _, s := range p.Sample {
			stack := stackOf(s)
			key := keyOf(stack)
			place := places[key]
			if place == nil {
				place = &Stack{Stack: stack}
				places[key] = place
			}
			// Sums of hostile figures may wrap, and show as nonsense: no harm.
			place.Bytes += in.sign * s.Value[bytesAt]
			place.Objects += in.sign * s.Value[objectsAt]
			g.Total += in.sign * s.Value[bytesAt]
		}
	}
	for _, s := range places {
		if s.Bytes > 0 {
			g.Top = append(g.Top, *s)
		}
	}
	sort.Slice(g.Top, func(i, j int) bool {
		a, b := &g.Top[i], &g.Top[j]
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(keyOf(a.Stack), keyOf(b.Stack))) < 0
	})
	g.Top = slices.Clone(g.Top[:min(len(g.Top), mostStacks)])
	for i := range g.Top {
		s := &g.Top[i]
		s.Stack = frames(s.Stack)
		s.Func = own(s.Stack).Func
	}
	return g, nil
}

// stackOf are the calls of a sample, innermost first.
func stackOf(s *profile.Sample) (stack []leak.Frame) {
	for _, loc := range s.Location {
		for _, l := range loc.Line {
			if l.Function == nil {
				continue
			}
			if len(stack) == mostFrames {
				return stack
			}
			stack = append(stack, leak.Frame{Func: l.Function.Name, File: l.Function.Filename, Line: int(l.Line)})
		}
	}
	return stack
}

// keyOf names a stack by its functions: a line may differ between two looks.
func keyOf(stack []leak.Frame) string {
	var b strings.Builder
	for _, f := range stack {
		b.WriteString(f.Func)
		b.WriteByte(0)
	}
	return b.String()
}
