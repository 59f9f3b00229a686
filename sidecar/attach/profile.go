// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/google/pprof/profile"
	"github.com/memguard/memguard-go/sidecar/attach/internal/goexe"
)

// ErrNotTaken is that a snapshot was taken without the part that is asked for,
// or that the part could not be read.
var ErrNotTaken = errors.New("attach: not in this snapshot")

// profiler puts a profile together.
type profiler struct {
	p         *profile.Profile
	s         *Snapshot
	locations map[locationKey]*profile.Location
	functions map[string]*profile.Function
	unknowns  map[string]*profile.Location
}

// locationKey is an address, or only the innermost line of it.
type locationKey struct {
	pc        uint64
	innermost bool
}

func (s *Snapshot) profiler(types ...*profile.ValueType) *profiler {
	mapping := &profile.Mapping{ID: 1, Start: s.start, Limit: s.limit, File: s.How.Exe, BuildID: s.How.BuildID,
		HasFunctions: true, HasFilenames: true, HasLineNumbers: true, HasInlineFrames: true}
	return &profiler{
		p:         &profile.Profile{SampleType: types, TimeNanos: s.Time.UnixNano(), Mapping: []*profile.Mapping{mapping}},
		s:         s,
		locations: map[locationKey]*profile.Location{},
		functions: map[string]*profile.Function{},
		unknowns:  map[string]*profile.Location{},
	}
}

// location is the location of an address with the lines that it stands for.
func (b *profiler) location(k locationKey, frames []goexe.Frame) *profile.Location {
	if loc := b.locations[k]; loc != nil {
		return loc
	}
	if k.innermost && len(frames) > 1 {
		frames = frames[:1]
	}
	loc := &profile.Location{ID: uint64(len(b.p.Location) + 1), Address: k.pc, Mapping: b.p.Mapping[0]}
	for _, f := range frames {
		loc.Line = append(loc.Line, profile.Line{Function: b.function(f), Line: int64(f.Line)})
	}
	b.locations[k] = loc
	b.p.Location = append(b.p.Location, loc)
	return loc
}

func (b *profiler) function(f goexe.Frame) *profile.Function {
	key := f.Func + "\x00" + f.File
	fn := b.functions[key]
	if fn == nil {
		fn = &profile.Function{ID: uint64(len(b.p.Function) + 1), Name: f.Func, SystemName: f.Func, Filename: f.File, StartLine: int64(f.StartLine)}
		b.functions[key] = fn
		b.p.Function = append(b.p.Function, fn)
	}
	return fn
}

// WriteGoroutines writes a goroutine profile in pprof's format, with state, wait
// reason and creator as labels: created_by is the function of the go statement,
// created_at its "file:line" (leak.Parse reads these two). Like runtime/pprof it leaves out the runtime's own
// goroutines. A stack that is unknown, as that of a goroutine that runs, or
// unknown from some frame on, has one frame that says so. Unless the snapshot was taken with Stacks, the stacks
// of goroutines that look the same are those of a few of them.
func (s *Snapshot) WriteGoroutines(w io.Writer) error {
	if s.Goroutines.Clusters == nil {
		return ErrNotTaken
	}
	b := s.profiler(&profile.ValueType{Type: "goroutine", Unit: "count"})
	b.p.PeriodType, b.p.Period = &profile.ValueType{Type: "goroutine", Unit: "count"}, 1
	for _, c := range s.Goroutines.Clusters {
		if c.System {
			continue
		}
		sample := &profile.Sample{Value: []int64{int64(min(c.Count, math.MaxInt64))}, Label: map[string][]string{"state": {c.State}}}
		at := ""
		if c.CreatedBy.File != "" {
			at = fmt.Sprintf("%s:%d", c.CreatedBy.File, c.CreatedBy.Line)
		}
		for key, v := range map[string]string{"reason": c.Reason, "created_by": c.CreatedBy.Func, "created_at": at} {
			if v != "" {
				sample.Label[key] = []string{v}
			}
		}
		for i, pc := range c.pcs {
			if frames := c.lines[i]; len(frames) > 0 {
				sample.Location = append(sample.Location, b.location(locationKey{pc, false}, frames))
			}
		}
		if c.StackWhy != "" {
			sample.Location = append(sample.Location, b.unknown(goexe.Frame{Func: "[stack unknown: " + c.StackWhy + "]"}))
			if c.Start != "" {
				sample.Location = append(sample.Location, b.unknown(goexe.Frame{Func: c.Start}))
			}
		}
		b.p.Sample = append(b.p.Sample, sample)
	}
	return b.write(w)
}

// unknown is a location without an address.
func (b *profiler) unknown(f goexe.Frame) *profile.Location {
	if loc := b.unknowns[f.Func]; loc != nil {
		return loc
	}
	loc := &profile.Location{ID: uint64(len(b.p.Location) + 1), Line: []profile.Line{{Function: b.function(f)}}}
	b.unknowns[f.Func] = loc
	b.p.Location = append(b.p.Location, loc)
	return loc
}

func (b *profiler) write(w io.Writer) error {
	if err := b.p.CheckValid(); err != nil {
		return err
	}
	return b.p.Write(w)
}

// WriteHeap writes a heap profile in pprof's format: what was allocated since
// start and what is in use as of the last cycle, scaled from the samples as
// runtime/pprof does (runtime/pprof/protomem.go).
func (s *Snapshot) WriteHeap(w io.Writer) error {
	if s.heap == nil {
		return ErrNotTaken
	}
	b := s.profiler(
		&profile.ValueType{Type: "alloc_objects", Unit: "count"}, &profile.ValueType{Type: "alloc_space", Unit: "bytes"},
		&profile.ValueType{Type: "inuse_objects", Unit: "count"}, &profile.ValueType{Type: "inuse_space", Unit: "bytes"})
	b.p.PeriodType, b.p.Period = &profile.ValueType{Type: "space", Unit: "bytes"}, s.heap.rate
	b.p.DefaultSampleType = "inuse_space"
	for _, r := range s.heap.records {
		sample := &profile.Sample{Value: make([]int64, 4), NumLabel: map[string][]int64{}, NumUnit: map[string][]string{}}
		sample.Value[0], sample.Value[1] = scale(r.allocs, r.allocated, s.heap.rate)
		sample.Value[2], sample.Value[3] = scale(r.allocs-r.frees, r.allocated-r.released, s.heap.rate)
		if r.allocs > 0 {
			sample.NumLabel["bytes"], sample.NumUnit["bytes"] = []int64{r.allocated / r.allocs}, []string{"bytes"}
		}
		locs := r.locations(b, true)
		if len(locs) == 0 { // nothing but the runtime
			locs = r.locations(b, false)
		}
		sample.Location = locs
		b.p.Sample = append(b.p.Sample, sample)
	}
	return b.write(w)
}

// locations are a record's frames; without the runtime's own above the first of
// the program's.
func (r *record) locations(b *profiler, hide bool) []*profile.Location {
	var locs []*profile.Location
	for _, pc := range r.pcs {
		frames := b.s.heap.lines[pc]
		if len(frames) == 0 || frames[0].Func == "runtime.goexit" {
			continue
		}
		if hide = hide && (strings.HasPrefix(frames[0].Func, "runtime.") || strings.HasPrefix(frames[0].Func, "internal/runtime/")); !hide {
			locs = append(locs, b.location(locationKey{pc - 1, true}, frames))
		}
	}
	return locs
}

// scale undoes the sampling (runtime/pprof/protomem.go, scaleHeapSample).
func scale(count, size, rate int64) (int64, int64) {
	if count <= 0 || size <= 0 {
		return 0, 0
	}
	if rate <= 1 {
		return count, size
	}
	f := 1 / (1 - math.Exp(-float64(size)/float64(count)/float64(rate)))
	return int64(float64(count) * f), int64(float64(size) * f)
}
