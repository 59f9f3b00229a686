// SPDX-License-Identifier: Apache-2.0

package contender

import (
	"context"
	"math/rand/v2"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
	"github.com/memguard/memguard-go/scavenge/cgroup"
)

// The article's recipe: a breaker whose state follows memory, a GC percent for
// each state, and memory given back when a size class of MemStats.BySize grows.
// It names neither thresholds nor a period; these are the usual ones.
const (
	articleEvery   = 100 * time.Millisecond
	articleHalf    = 0.70 // of the limit: half-open
	articleOpen    = 0.85 // open
	articleBack    = 0.05 // below a threshold before the state falls back
	articleHalfIn  = 0.50 // share of the work that half-open lets in
	articleOpenIn  = 0.05 // and open
	articleGrowth  = 1.5  // of the objects of a size class between two looks at them
	articleObjects = 10000
	articleLook    = time.Second // ReadMemStats stops the world: not at every step
)

// articlePercent is GC percent by state: closed, half-open, open.
var articlePercent = [3]int{100, 50, 200}

var article = lab.Contender{
	Name: "article",
	Setup: "a breaker by usage (half-open at 70 %, open at 85 %) with GC percent 100, 50, 200 by state, sheds 50 % half-open and 95 % open; " +
		"FreeOSMemory when a class of MemStats.BySize grows by half in a second",
	Start: func(limit uint64) (lab.Hooks, error) {
		b, hooks, err := startBreaker(limit, true)
		if err != nil {
			return lab.Hooks{}, err
		}
		return lab.Hooks{
			Enter: func(context.Context, string) (func(), bool) { return func() {}, b.admit() },
			Handler: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !b.admit() {
						http.Error(w, "no memory to spare", http.StatusServiceUnavailable)
						return
					}
					next.ServeHTTP(w, r)
				})
			},
			Close: hooks.Close,
		}, nil
	},
}

// articleTable is the recipe's GC percents by themselves: what keeps a service
// alive under the whole recipe may be the work that it refuses.
var articleTable = lab.Contender{
	Name:  "article-table",
	Setup: "the same breaker, which refuses nothing: GC percent 100, 50, 200 by state, and FreeOSMemory as there",
	Start: func(limit uint64) (lab.Hooks, error) {
		_, hooks, err := startBreaker(limit, true)
		return hooks, err
	},
}

// startBreaker starts the recipe's loop, which acts by itself or only has a state; the
// hooks have its end alone.
func startBreaker(limit uint64, acts bool) (*breaker, lab.Hooks, error) {
	g, err := cgroup.Open("/proc", 0)
	if err != nil {
		return nil, lab.Hooks{}, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &breaker{limit: limit, acts: acts}
	var loop sync.WaitGroup
	loop.Go(func() { b.run(ctx, g) })
	return b, lab.Hooks{Close: func() error {
		cancel()
		loop.Wait()
		return g.Close()
	}}, nil
}

type breaker struct {
	limit uint64
	acts  bool
	state atomic.Int32 // 0 closed, 1 half-open, 2 open
}

func (b *breaker) admit() bool {
	switch b.state.Load() {
	case 1:
		return rand.Float64() < articleHalfIn
	case 2:
		return rand.Float64() < articleOpenIn
	}
	return true
}

// step returns the state that follows state when usage is this share of the limit.
func step(state int32, share float64) int32 {
	for i, threshold := range []float64{articleHalf, articleOpen} {
		s := int32(i) + 1
		switch {
		case state < s && share >= threshold:
			state = s
		case state >= s && share < threshold-articleBack:
			return s - 1
		}
	}
	return state
}

func (b *breaker) run(ctx context.Context, g *cgroup.Group) {
	if b.acts {
		defer debug.SetGCPercent(debug.SetGCPercent(articlePercent[0]))
	}
	var m runtime.MemStats
	var live [len(m.BySize)]uint64
	looked := time.Now()
	tick := time.NewTicker(articleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if usage, err := g.Usage(); err == nil {
			old := b.state.Load()
			if s := step(old, float64(usage)/float64(b.limit)); s != old {
				b.state.Store(s)
				if b.acts {
					debug.SetGCPercent(articlePercent[s])
				}
			}
		}
		if !b.acts || time.Since(looked) < articleLook {
			continue
		}
		looked = time.Now()
		runtime.ReadMemStats(&m)
		grown := false
		for i, c := range m.BySize {
			n := c.Mallocs - c.Frees
			grown = grown || n > articleObjects && float64(n) > articleGrowth*float64(live[i])
			live[i] = n
		}
		if grown {
			debug.FreeOSMemory()
		}
	}
}
