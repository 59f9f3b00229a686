// SPDX-License-Identifier: Apache-2.0

// Package layout says where the Go runtime keeps what: the offsets of the fields
// of its structures, per Go release and architecture. They come from tables that
// the program in gen makes from the toolchains' own debugging information, or
// from the debugging information of the target itself.
package layout

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Off is the offset of a field, or the size of a type, in bytes; Absent where a
// release has no such field.
type Off int32

// Absent is the offset of a field that a release does not have.
const Absent Off = -1

// Has reports whether the release has the field.
func (o Off) Has() bool { return o >= 0 }

// maxOff bounds what a table may say: package runtime has no structure with
// fields this far from its beginning, and readers allocate by these figures.
const maxOff = 1 << 20

// Fields are the fields that are read, named as in package runtime. The tag is
// the path in package runtime; alternatives for other releases follow after a
// bar. A path of one element is the size of the type. "len" is the length of an
// array. "optional" fields are missing from some supported release.
type Fields struct {
	G struct {
		StackLo    Off `path:"g.stack.lo"`
		StackHi    Off `path:"g.stack.hi"`
		M          Off `path:"g.m"`
		SchedSP    Off `path:"g.sched.sp"`
		SchedPC    Off `path:"g.sched.pc"`
		SchedLR    Off `path:"g.sched.lr,optional"`
		SyscallSP  Off `path:"g.syscallsp"`
		SyscallPC  Off `path:"g.syscallpc"`
		Status     Off `path:"g.atomicstatus"`
		GoID       Off `path:"g.goid"`
		WaitSince  Off `path:"g.waitsince"`
		WaitReason Off `path:"g.waitreason"`
		GoPC       Off `path:"g.gopc"`
		StartPC    Off `path:"g.startpc"`
		Size       Off `path:"g"`
	}
	P struct {
		ID       Off `path:"p.id"`
		Status   Off `path:"p.status"`
		MCache   Off `path:"p.mcache"`
		PCache   Off `path:"p.pcache.cache"`
		PScav    Off `path:"p.pcache.scav"`
		GFree    Off `path:"p.gFree.size|p.gFree.n"`
		Timers   Off `path:"p.timers.len|p.numTimers"`
		Cleanups Off `path:"p.cleanupsQueued,optional"`
		Size     Off `path:"p"`
	}
	MCache struct {
		TinyAllocs Off `path:"mcache.tinyAllocs"`
		Alloc      Off `path:"mcache.alloc"`
		Classes    Off `path:"len mcache.alloc"`
		Size       Off `path:"mcache"`
	}
	MSpan struct {
		StartAddr   Off `path:"mspan.startAddr"`
		NPages      Off `path:"mspan.npages"`
		NElems      Off `path:"mspan.nelems"`
		AllocCount  Off `path:"mspan.allocCount"`
		SpanClass   Off `path:"mspan.spanclass"`
		State       Off `path:"mspan.state"`
		BeforeCache Off `path:"mspan.allocCountBeforeCache"`
		ElemSize    Off `path:"mspan.elemsize"`
		Size        Off `path:"mspan"`
	}
	MHeap struct {
		AllSpans   Off `path:"mheap.allspans"`
		Arenas     Off `path:"mheap.heapArenas|mheap.allArenas"`
		SpanInuse  Off `path:"mheap.spanalloc.inuse"`
		CacheInuse Off `path:"mheap.cachealloc.inuse"`
		Size       Off `path:"mheap"`
	}
	MStats struct {
		HeapStats   Off `path:"mstats.heapStats.stats"`
		Gen         Off `path:"mstats.heapStats.gen"`
		StacksSys   Off `path:"mstats.stacks_sys"`
		MSpanSys    Off `path:"mstats.mspan_sys"`
		MCacheSys   Off `path:"mstats.mcache_sys"`
		BuckHashSys Off `path:"mstats.buckhash_sys"`
		GCMiscSys   Off `path:"mstats.gcMiscSys"`
		OtherSys    Off `path:"mstats.other_sys"`
		LastGC      Off `path:"mstats.last_gc_unix"`
		PauseTotal  Off `path:"mstats.pause_total_ns"`
		PauseNs     Off `path:"mstats.pause_ns"`
		NumGC       Off `path:"mstats.numgc"`
		NumForcedGC Off `path:"mstats.numforcedgc"`
		PauseDist   Off `path:"mstats.gcPauseDist,optional"`
		Size        Off `path:"mstats"`
	}
	Delta struct { // one generation of the allocation counters
		Committed       Off `path:"heapStatsDelta.committed"`
		Released        Off `path:"heapStatsDelta.released"`
		InHeap          Off `path:"heapStatsDelta.inHeap"`
		InStacks        Off `path:"heapStatsDelta.inStacks"`
		InWorkBufs      Off `path:"heapStatsDelta.inWorkBufs"`
		InPtrScalarBits Off `path:"heapStatsDelta.inPtrScalarBits,optional"`
		TinyAllocs      Off `path:"heapStatsDelta.tinyAllocCount"`
		LargeAlloc      Off `path:"heapStatsDelta.largeAlloc"`
		LargeAllocs     Off `path:"heapStatsDelta.largeAllocCount"`
		SmallAllocs     Off `path:"heapStatsDelta.smallAllocCount"`
		LargeFree       Off `path:"heapStatsDelta.largeFree"`
		LargeFrees      Off `path:"heapStatsDelta.largeFreeCount"`
		SmallFrees      Off `path:"heapStatsDelta.smallFreeCount"`
		Size            Off `path:"heapStatsDelta"`
	}
	GC struct { // gcControllerState
		Percent      Off `path:"gcControllerState.gcPercent"`
		MemoryLimit  Off `path:"gcControllerState.memoryLimit"`
		PercentGoal  Off `path:"gcControllerState.gcPercentHeapGoal"`
		SweepTrigger Off `path:"gcControllerState.sweepDistMinTrigger"`
		Triggered    Off `path:"gcControllerState.triggered"`
		Runway       Off `path:"gcControllerState.runway"`
		HeapLive     Off `path:"gcControllerState.heapLive"`
		HeapMarked   Off `path:"gcControllerState.heapMarked"`
		HeapInUse    Off `path:"gcControllerState.heapInUse"`
		HeapReleased Off `path:"gcControllerState.heapReleased"`
		HeapFree     Off `path:"gcControllerState.heapFree"`
		TotalAlloc   Off `path:"gcControllerState.totalAlloc"`
		TotalFree    Off `path:"gcControllerState.totalFree"`
		MappedReady  Off `path:"gcControllerState.mappedReady"`
		Size         Off `path:"gcControllerState"`
	}
	Sched struct {
		NGSys       Off `path:"schedt.ngsys"`
		GFree       Off `path:"schedt.gFree.stack.size|schedt.gFree.n"`
		GFreeNo     Off `path:"schedt.gFree.noStack.size,optional"`
		STWTotalGC  Off `path:"schedt.stwTotalTimeGC,optional"`
		Size        Off `path:"schedt"`
		HistUnder   Off `path:"timeHistogram.underflow"`
		HistSize    Off `path:"timeHistogram"`
		HistBuckets Off `path:"len timeHistogram.counts"`
	}
	M struct {
		ID      Off `path:"m.id"`
		ProcID  Off `path:"m.procid"`
		AllLink Off `path:"m.alllink"`
		StartFn Off `path:"m.mstartfn"`
	}
	Fin struct {
		AllLink Off `path:"finBlock.alllink|finblock.alllink"`
		Count   Off `path:"finBlock.cnt|finblock.cnt"`
	}
	Cleanup struct {
		Running  Off `path:"cleanupQueue.running,optional"`
		Queued   Off `path:"cleanupQueue.queued,optional"`
		Executed Off `path:"cleanupQueue.executed,optional"`
	}
	Bucket struct {
		AllNext Off `path:"bucket.allnext"`
		Type    Off `path:"bucket.typ"`
		Size    Off `path:"bucket.size"`
		Depth   Off `path:"bucket.nstk"`
		SizeOf  Off `path:"bucket"`
		Allocs  Off `path:"memRecordCycle.allocs"`
		Frees   Off `path:"memRecordCycle.frees"`
		// Bytes: the release counts bytes beside objects (until Go 1.26).
		Bytes  Off `path:"memRecordCycle.alloc_bytes,optional"`
		Cycle  Off `path:"memRecordCycle"`
		Record Off `path:"memRecord"`
	}
	Module struct {
		Text   Off `path:"moduledata.text"`
		EText  Off `path:"moduledata.etext"`
		GoFunc Off `path:"moduledata.gofunc"`
		Next   Off `path:"moduledata.next"`
		Size   Off `path:"moduledata"`
	}
}

// Layout is a release's layout.
type Layout struct {
	Fields
	Minor       int      // of Go 1.Minor
	Arch        string   // GOARCH
	From        string   // where it comes from, as a person should read it
	SizeClasses []uint32 // size of the objects of each size class; class 0 is for large objects
	WaitReasons []string // by number
	Refs        []Ref    // where functions refer to globals; nil if unknown
}

// Ref is a place in the machine code of a function that refers to a global.
type Ref struct {
	Func   string `json:"f"`
	Len    uint32 `json:"n"` // length of the function in the reference build
	At     uint32 `json:"o"` // offset in the function
	Global string `json:"g"`
	Addend int32  `json:"a"` // the address found at the place, less that of the global
}

// visit calls f for every field with its path.
func (l *Fields) visit(f func(path string, off *Off)) {
	v := reflect.ValueOf(l).Elem()
	for i := range v.NumField() {
		group := v.Field(i)
		for j := range group.NumField() {
			f(group.Type().Field(j).Tag.Get("path"), group.Field(j).Addr().Interface().(*Off))
		}
	}
}

// fill sets every field by its path; find returns false for what does not exist.
func (l *Fields) fill(find func(path string) (Off, bool)) error {
	var missing []string
	l.visit(func(tag string, off *Off) {
		paths, optional := strings.CutSuffix(tag, ",optional")
		for path := range strings.SplitSeq(paths, "|") {
			if n, ok := find(path); ok {
				*off = n
				return
			}
		}
		if *off = Absent; !optional {
			missing = append(missing, paths)
		}
	})
	if missing != nil {
		return fmt.Errorf("no field %s", strings.Join(missing, ", "))
	}
	return nil
}

// ErrUnknown is that there is no layout for a release or architecture.
var ErrUnknown = errors.New("unknown layout")

// check refuses figures that no runtime has, so that readers may allocate and
// index by them.
func (l *Layout) check() error {
	var err error
	v := reflect.ValueOf(&l.Fields).Elem()
	for i := range v.NumField() {
		group, limit := v.Field(i), Off(maxOff)
		if size := group.FieldByName("Size"); size.IsValid() && v.Type().Field(i).Name != "Bucket" {
			limit = size.Interface().(Off)
		}
		for j := range group.NumField() {
			off, field := group.Field(j).Interface().(Off), group.Type().Field(j)
			tag := field.Tag.Get("path")
			inside := field.Name == "Size" || strings.Contains(tag, "timeHistogram") || off < limit
			if off < Absent || off > maxOff || !inside {
				err = fmt.Errorf("%s at %d", tag, off)
			}
		}
	}
	classes := Off(len(l.SizeClasses))
	fits := func(off, n, size Off) bool { return !off.Has() || off+n <= size }
	switch {
	case err != nil:
		return err
	case classes < 2 || classes > 256 || l.SizeClasses[0] != 0:
		return fmt.Errorf("%d size classes", classes)
	case l.MCache.Classes != 2*classes: // with and without pointers (mheap.go, spanClass)
		return fmt.Errorf("%d span classes for %d size classes", l.MCache.Classes, classes)
	case len(l.WaitReasons) > 256: // a uint8 in the runtime
		return fmt.Errorf("%d wait reasons", len(l.WaitReasons))
	case l.Sched.HistUnder != 8*l.Sched.HistBuckets || l.Sched.HistSize != l.Sched.HistUnder+16 || l.Sched.HistSize > 1<<14:
		return fmt.Errorf("a time histogram of %d bytes", l.Sched.HistSize)
	case !fits(l.MStats.HeapStats, 3*l.Delta.Size, l.MStats.Size),
		!fits(l.MStats.PauseDist, l.Sched.HistSize, l.MStats.Size),
		!fits(l.MStats.PauseNs, 256*8, l.MStats.Size),
		!fits(l.Sched.STWTotalGC, l.Sched.HistSize, l.Sched.Size),
		!fits(l.MCache.Alloc, 8*l.MCache.Classes, l.MCache.Size),
		!fits(l.Delta.SmallAllocs, 8*classes, l.Delta.Size),
		!fits(l.Delta.SmallFrees, 8*classes, l.Delta.Size):
		return errors.New("arrays that do not fit")
	case l.G.Size > 4096, l.MSpan.Size > 1024, l.MCache.Size > 1<<14, l.MStats.Size > 1<<17, l.Sched.Size > 1<<17, l.GC.Size > 1<<14,
		l.Bucket.SizeOf > 1024, l.Bucket.Record > 1024, 4*l.Bucket.Cycle > l.Bucket.Record, l.Module.Size > 4096, l.Module.Size < 16,
		l.G.Size < 64, l.MSpan.Size < 64, l.Delta.Size < 8, l.Fin.Count > 4096, l.Fin.AllLink > 4096:
		return errors.New("sizes that no release has")
	}
	return nil
}
