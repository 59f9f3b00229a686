// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What a profile costs before one was taken. The runtime copies the stacks of all
// goroutines and makes a text of each to count equal ones (runtime/pprof,
// printCountProfile): 0.3 KiB for one of a single frame, 1.7 KiB at 30 frames, 5
// KiB at 100, of which the collector may have freed some meanwhile. Compression
// takes 1.2 MiB, once for each profile.
const (
	fixedCost     = 2 << 20
	goroutineCost = 1 << 11
	leastPerG     = 1 << 8
	mostPerG      = 1 << 14
	learnFrom     = 1000 // goroutines; with fewer the fixed cost is what is measured
	mostHeapCost  = 256 << 20
)

// Cost is the most memory that taking a profile adds, in bytes, and how long it
// takes. A goroutine profile stops the world twice, for microseconds; what takes
// time is concurrent.
type Cost struct {
	Heap, Goroutines         uint64
	HeapTime, GoroutinesTime time.Duration
}

// Profiles takes what a [Planner] has planned and puts it into a store. It learns
// what that costs. The zero Profiles with a Store is ready to use; its methods may
// be called from several goroutines.
type Profiles struct {
	Store *Store

	mu sync.Mutex // one capture at a time

	// As measured by the last capture; 0 is not yet.
	heap, perG         atomic.Uint64 // bytes
	heapTime, perGTime atomic.Int64  // nanoseconds
}

// Attachment is a file that goes with a capture: a report with the ledger and the
// last [Cycles].
type Attachment struct {
	Name    string // such as "report.txt"
	Content []byte
}

// Captured is what a capture left.
type Captured struct {
	Paths     []string
	Allocated uint64 // bytes that the process allocated meanwhile, whoever did
	Took      time.Duration
}

// Cost estimates what a capture would cost with so many goroutines.
func (p *Profiles) Cost(goroutines uint64) Cost {
	perG := uint64(goroutineCost)
	if n := p.perG.Load(); n != 0 {
		perG = n
	}
	return Cost{
		Heap:           max(p.heap.Load(), fixedCost),
		Goroutines:     fixedCost + min(goroutines, 1<<32)*perG,
		HeapTime:       time.Duration(p.heapTime.Load()),
		GoroutinesTime: time.Duration(min(goroutines, 1<<32)) * time.Duration(p.perGTime.Load()),
	}
}

// Capture takes the profiles of a plan and writes them with the attachments to
// the store. It takes as long as its [Cost] says and more on a slow disk: not for
// a goroutine that has to be on time. A file that fails does not keep the others
// from being written; the errors are joined. Heap profiles of one series can be
// compared: see [Pairs].
func (p *Profiles) Capture(plan Plan, attached ...Attachment) (c Captured, err error) {
	if plan.Why == "" {
		return c, nil
	}
	if p.Store == nil {
		return c, errors.New("evidence: capture: no store")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	begin, start := time.Now(), allocated()
	var errs []error
	put := func(name string, write func(io.Writer) error) (size, cost uint64, took time.Duration) {
		t, before, n := time.Now(), allocated(), uint64(0)
		path, err := p.Store.PutAt(plan.Series, fmt.Sprintf("%03d-%02dpct-%s", plan.Number, plan.Score, name), func(w io.Writer) error {
			return write(&counted{w, &n})
		})
		if path != "" {
			c.Paths = append(c.Paths, path)
		}
		if err != nil {
			errs = append(errs, err)
		}
		return n, allocated() - before, time.Since(t)
	}
	for _, a := range attached { // small, and written even if a profile is our end
		put(a.Name, func(w io.Writer) error { _, err := w.Write(a.Content); return err })
	}
	if plan.Heap && runtime.MemProfileRate > 0 {
		size, cost, took := put(heapFile, pprof.WriteHeapProfile)
		if inMemory(p.Store.Dir) {
			cost += size
		}
		p.heap.Store(min(cost, mostHeapCost))
		p.heapTime.Store(int64(took))
	}
	if plan.Goroutines {
		n := uint64(runtime.NumGoroutine())
		_, cost, took := put(goroutineFile, func(w io.Writer) error { return pprof.Lookup("goroutine").WriteTo(w, 0) })
		if n >= learnFrom {
			p.perG.Store(min(max((cost-min(cost, fixedCost/2))/n, leastPerG), mostPerG))
		}
		p.perGTime.Store(int64(took) / int64(max(n, 1)))
	}
	c.Allocated, c.Took = allocated()-start, time.Since(begin)
	return c, errors.Join(errs...)
}

const (
	heapFile      = "heap.pb.gz"
	goroutineFile = "goroutine.pb.gz"
)

// counted counts what is written.
type counted struct {
	io.Writer
	n *uint64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	*c.n += uint64(n)
	return n, err
}

// allocated returns the bytes that the process has allocated so far.
func allocated() uint64 {
	s := [1]metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s[:])
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64()
}

// File is what the name of a captured file says.
type File struct {
	Path   string
	Series time.Time // when its ramp-up began
	Number int       // of the capture within it, from 1
	Score  int       // percent of the limit that were held
	Name   string    // "heap.pb.gz", "goroutine.pb.gz", or an attachment's
}

// ParseFile reads the name of a captured file. Other files of a store have none
// of this: ok is false.
func ParseFile(path string) (f File, ok bool) {
	series, ok := PutTime(path)
	if !ok {
		return File{}, false
	}
	parts := strings.SplitN(filepath.Base(path)[len(prefix)+len(stamp)+1:], "-", 3) // number, score, name
	if len(parts) != 3 || parts[2] == "" {
		return File{}, false
	}
	percent, isScore := strings.CutSuffix(parts[1], "pct")
	number, err1 := strconv.ParseUint(parts[0], 10, 31)
	score, err2 := strconv.ParseUint(percent, 10, 31)
	if !isScore || err1 != nil || err2 != nil || number == 0 || score > 99 {
		return File{}, false
	}
	return File{path, series, int(number), int(score), parts[2]}, true
}

// Pair is two heap profiles of one ramp-up, for go tool pprof -base Base Later.
type Pair struct{ Base, Later File }

// Pairs finds for each ramp-up among the paths the first heap profile and the
// last, in the order of time. A ramp-up with one heap profile has none.
func Pairs(paths []string) []Pair {
	var heaps []File
	for _, path := range paths {
		if f, ok := ParseFile(path); ok && f.Name == heapFile {
			heaps = append(heaps, f)
		}
	}
	sort.Slice(heaps, func(i, j int) bool {
		a, b := &heaps[i], &heaps[j]
		return cmp.Or(a.Series.Compare(b.Series), cmp.Compare(a.Number, b.Number)) < 0
	})
	var pairs []Pair
	for i, f := range heaps {
		switch last := len(pairs) - 1; {
		case i == 0 || !f.Series.Equal(heaps[i-1].Series):
		case last >= 0 && pairs[last].Base.Series.Equal(f.Series):
			pairs[last].Later = f
		default:
			pairs = append(pairs, Pair{heaps[i-1], f})
		}
	}
	return pairs
}
