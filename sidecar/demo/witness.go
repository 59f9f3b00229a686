// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"slices"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

// Seen is what was seen from outside of a process that left nothing behind.
type Seen struct {
	Until  float64          `json:"until_second"` // of the last look
	Growth []Growth         `json:"growth"`       // by row of the ledger, the largest first
	Warned []Warning        `json:"warnings"`     // in the order in which they were raised
	Last   *memguard.Ledger `json:"last"`
}

// Growth is how one row of the ledger changed from the first look at which it was
// known to the last.
type Growth struct {
	Row  string `json:"row"`
	From int64  `json:"from_bytes"`
	To   int64  `json:"to_bytes"`
}

// Warning is a finding and when it was raised.
type Warning struct {
	memguard.Finding
	Second float64 `json:"second"` // since the load began
}

// witnessEvery is how often the service is looked at. It dies within a second of
// a burst's begin.
const witnessEvery = 50 * time.Millisecond

// witness looks at a process from outside until it ends. It asks nothing of it.
type witness struct {
	cancel context.CancelFunc
	done   chan struct{}

	first  map[string]int64 // bytes of each row when it was first known
	last   *memguard.Ledger
	raised []memguard.Finding
	at     []time.Time // of each finding
}

func watch(ctx context.Context, open func(context.Context, int) (*memguard.Source, func(), error), pid int) *witness {
	ctx, cancel := context.WithCancel(ctx)
	w := &witness{cancel: cancel, done: make(chan struct{}), first: map[string]int64{}}
	if open == nil {
		open = func(_ context.Context, pid int) (*memguard.Source, func(), error) {
			src, err := memguard.Open(pid)
			return src, func() {}, err
		}
	}
	go func() {
		defer close(w.done)
		src, end, err := open(ctx, pid)
		if err != nil {
			return // nothing was seen, and the story says so
		}
		defer end()
		defer src.Close()
		w.look(ctx, src)
	}()
	return w
}

// look takes samples until the process ends.
func (w *witness) look(ctx context.Context, src *memguard.Source) {
	judge := memguard.NewJudge()
	worst := map[memguard.ID]memguard.Severity{}
	tick := time.NewTicker(witnessEvery)
	defer tick.Stop()
	for {
		var s memguard.Sample
		if src.Read(&s) != nil {
			return
		}
		// One that is about to end has no memory any more.
		if rss, ok := s.Process.RSS.Get(); ok && rss > 0 {
			w.last = memguard.NewLedger(&s)
			for _, r := range w.last.Rows {
				if n, ok := r.Bytes.Get(); ok {
					if _, known := w.first[r.Name]; !known {
						w.first[r.Name] = n
					}
				}
			}
			judge.Step(&s)
			for _, f := range judge.Findings() {
				if f.Severity > worst[f.ID] {
					worst[f.ID] = f.Severity
					w.raised, w.at = append(w.raised, f), append(w.at, s.Time)
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *witness) close() {
	w.cancel()
	<-w.done
}

// tell compares the first look with the last, of a load that began at start.
func (w *witness) tell(start time.Time) *Seen {
	w.close()
	if w.last == nil {
		return nil
	}
	seen := &Seen{Last: w.last, Until: w.last.Time.Sub(start).Seconds()}
	for i, f := range w.raised {
		seen.Warned = append(seen.Warned, Warning{f, w.at[i].Sub(start).Seconds()})
	}
	for _, r := range w.last.Rows {
		to, ok := r.Bytes.Get()
		if from := w.first[r.Name]; ok && to != from {
			seen.Growth = append(seen.Growth, Growth{Row: r.Name, From: from, To: to})
		}
	}
	slices.SortStableFunc(seen.Growth, func(a, b Growth) int { return int((b.To - b.From) - (a.To - a.From)) })
	return seen
}
