// SPDX-License-Identifier: Apache-2.0

package gctrace

import (
	"encoding/json"
	"io"
)

// Summary adds up the records of one stream. Its memory does not grow with the
// stream. The zero Summary is empty and ready for use; it is not safe for
// concurrent use.
//
// A cycle whose number is not above the one before, or whose time is earlier,
// begins a new run of the program. What describes a state (the live heap, the
// goal, what is retained) then starts afresh; what counts goes on.
type Summary struct {
	lines, skipped int // known from ReadFrom and Skip alone
	syntaxErrors   int
	firstErrors    []SyntaxError
	unknownText    int // lines with text that no release up to Go 1.27 prints
	scanLines      int
	pacerLines     int

	cycles, forced, periodic, leakChecks int
	runs                                 int // times the program started
	missing                              uint64
	observed                             float64 // seconds from the first start to the last, over all runs

	sweepTerm, markTerm, stopped histogram
	rate                         window
	gcCPU, capacity              float64 // CPU seconds used and offered between cycles that follow one another

	prev     Cycle // the last one of this run, if inRun
	inRun    bool
	first    Cycle // of this run
	peakHeap uint64
	heap     series
	gogc     gogcEstimate
	over     overshoot
	spiral   spiral
	scav     scavenger
}

// maxFirstErrors bounds the syntax errors that are kept with their text.
const maxFirstErrors = 8

// ReadFrom adds everything that r has, until its end or a read error, and
// returns how many bytes that was. It implements [io.ReaderFrom].
func (s *Summary) ReadFrom(r io.Reader) (n int64, err error) {
	counted := countingReader{r: r}
	in := NewReader(&counted)
	for in.Scan() {
		s.Add(in.Record())
	}
	s.Skip(in.Skipped())
	return counted.n, in.Err()
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Skip adds n lines that a [Reader] passed over, for those who call Add
// themselves.
func (s *Summary) Skip(n int) {
	s.lines += n
	s.skipped += n
}

// Add adds one record. It keeps nothing of it.
func (s *Summary) Add(rec Record) {
	s.lines++
	switch rec := rec.(type) {
	case *Cycle:
		s.addCycle(rec)
	case *Scavenge:
		if rec.Suffix != "" {
			s.unknownText++
		}
		s.scav.add(rec, &s.prev, s.peakHeap)
	case *Notice:
		switch rec.Kind {
		case PeriodicGC:
			s.periodic++
		case ScanStats:
			s.scanLines++
		case PacerTrace:
			s.pacerLines++
		}
	case *SyntaxError:
		s.syntaxErrors++
		if len(s.firstErrors) < maxFirstErrors {
			s.firstErrors = append(s.firstErrors, *rec)
		}
		s.scav.lost() // the line may have been a cycle that freed what was live
	}
}

func (s *Summary) addCycle(c *Cycle) {
	s.cycles++
	if c.Forced {
		s.forced++
	}
	if c.Note == LeakCheck {
		s.leakChecks++
	}
	if c.Suffix != "" || c.Note != "" && c.Note != LeakCheck {
		s.unknownText++
	}
	if s.inRun && (c.N <= s.prev.N || c.At < s.prev.At) {
		s.inRun = false
	}
	if s.inRun {
		s.follow(c)
	} else {
		s.startRun(c)
	}
	s.sweepTerm.add(c.SweepTerm)
	s.markTerm.add(c.MarkTerm)
	s.stopped.add(c.SweepTerm + c.MarkTerm)
	s.rate.add(c.At)
	s.heap.add(c)
	s.peakHeap = max(s.peakHeap, c.HeapStart, c.HeapEnd)
	s.over.add(c)
	s.spiral.add(c)
	s.scav.liveKnown = true
	s.prev = *c
}

func (s *Summary) startRun(c *Cycle) {
	s.runs++
	s.inRun = true
	s.first = *c
	s.peakHeap = 0
	s.rate.restart()
	s.heap.reset()
	s.gogc = gogcEstimate{}
	s.spiral.restart()
	s.scav.restart()
}

// follow adds what can be said from two cycles of one run.
func (s *Summary) follow(c *Cycle) {
	between := (c.At - s.prev.At).Seconds()
	s.observed += between
	if c.N != s.prev.N+1 {
		s.missing += uint64(c.N - s.prev.N - 1)
		s.spiral.restart()
		return
	}
	s.gcCPU += s.prev.GCCPU().Seconds() // a cycle ends before the next one starts
	s.capacity += between * float64(s.prev.Procs)
	s.gogc.add(&s.prev, c)
	s.over.addHidden(&s.prev, c, &s.gogc)
}

// MarshalJSON implements [json.Marshaler]: the JSON of [Summary.Report].
func (s *Summary) MarshalJSON() ([]byte, error) { return json.Marshal(s.Report()) }
