// SPDX-License-Identifier: Apache-2.0

package control

import "sync"

// places are those of streams and long polls: so many in all, and so many of them for
// one caller, so that nobody can hold them all.
type places struct {
	most, each int

	mu    sync.Mutex
	taken int
	of    map[string]int // only of callers who have one
}

func newPlaces(most, each int) *places {
	return &places{most: most, each: min(each, most), of: map[string]int{}}
}

// take takes a place, to be left again. It is not there (ok is false) where all are
// taken, or this caller has as many as one may have (all is false then).
func (p *places) take(who string) (leave func(), all, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.most || p.of[who] >= p.each {
		return nil, p.taken >= p.most, false
	}
	p.taken++
	p.of[who]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.taken--
		if p.of[who]--; p.of[who] == 0 {
			delete(p.of, who)
		}
	}, false, true
}

// count is how many are taken.
func (p *places) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}
