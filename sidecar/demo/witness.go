// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

// witness asks the service where its memory is, as long as it answers.
type witness struct {
	victim *victim
	begin  time.Time
	out    *Outcome
	first  *memguard.Report
	warned map[memguard.ID]memguard.Severity
}

// look takes one report. A service that does not answer in time has none.
func (w *witness) look(ctx context.Context) {
	r, err := ask(ctx, w.victim.url)
	if err != nil {
		return // it may be dying; what was seen before stays
	}
	if w.first == nil {
		w.first = r
	}
	w.out.Before = r
	at := time.Since(w.begin).Seconds()
	p := Point{Second: at}
	if usage, ok := used(r); ok {
		p.Usage = usage
		p.Left, _ = r.Left.Get()
		w.out.Points = append(w.out.Points, p)
	}
	for _, f := range r.Findings {
		if f.Severity > w.warned[f.ID] {
			w.warned[f.ID] = f.Severity
			w.out.Warned = append(w.out.Warned, Warning{Finding: f, Second: at})
		}
	}
}

// used is what counts towards the limit: the cgroup's usage, or RSS where there
// is no cgroup of the service's own.
func used(r *memguard.Report) (uint64, bool) {
	if c := r.Ledger.Cgroup; c != nil && !c.Unlimited {
		if n, ok := c.Usage.Get(); ok {
			return n, true
		}
	}
	return r.Ledger.RSS.Get()
}

// close compares the first ledger with the last.
func (w *witness) close() {
	if w.first == nil {
		return
	}
	for _, last := range w.out.Before.Ledger.Rows {
		to, ok := last.Bytes.Get()
		from, ok2 := w.first.Ledger.Row(last.Name)
		if ok && ok2 && to != from {
			w.out.Growth = append(w.out.Growth, Growth{Row: last.Name, From: from, To: to})
		}
	}
	slices.SortStableFunc(w.out.Growth, func(a, b Growth) int { return int((b.To - b.From) - (a.To - a.From)) })
}

var client = &http.Client{Timeout: 2 * time.Second}

// ask reads the service's own report.
func ask(ctx context.Context, url string) (*memguard.Report, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/debug/memguard", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var r memguard.Report
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return nil, err
	}
	return &r, nil
}
