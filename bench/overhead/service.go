// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/memguard/shed"
)

// A way is how the service runs. The first is what the others are compared with.
type way struct {
	name, setup string
	guard       func(event func(memguard.Event)) (*memguard.Guard, *shed.Limiter) // nil is none
}

var ways = []way{
	{name: "plain", setup: "no guard"},
	{
		name: "guard", setup: "memguard.Start(memguard.Config{})",
		guard: func(event func(memguard.Event)) (*memguard.Guard, *shed.Limiter) {
			return memguard.Start(memguard.Config{Event: event}), nil
		},
	},
	{
		name: "limiter", setup: "memguard.Start with a limiter and a black box, and the limiter around handler and listener",
		guard: func(event func(memguard.Event)) (*memguard.Guard, *shed.Limiter) {
			l := shed.New(shed.Config{})
			store := &evidence.Store{Dir: "evidence"}
			return memguard.Start(memguard.Config{Event: event, Shed: l, Evidence: store}), l
		},
	},
}

// usage is what the service says of itself; all cumulative.
type usage struct {
	CPU       float64 // seconds, user and system
	Cycles    uint64  // completed garbage collections
	Allocated uint64  // bytes
	Guard     *acts   `json:",omitempty"`
}

// document is what that the service reads and writes: forty lines, 5 KiB of
// JSON.
type document struct {
	ID     string            `json:"id"`
	Lines  []documentLine    `json:"lines"`
	Labels map[string]string `json:"labels"`
}

type documentLine struct {
	SKU      string  `json:"sku"`
	Quantity int     `json:"quantity"`
	Price    float64 `json:"price"`
	Note     string  `json:"note"`
}

func newDocument(id int) document {
	d := document{ID: strconv.Itoa(id), Labels: map[string]string{"channel": "web", "region": "north"}}
	for i := range 40 {
		d.Lines = append(d.Lines, documentLine{
			SKU: fmt.Sprintf("sku-%06d", i), Quantity: i + 1, Price: 9.95 * float64(i+1),
			Note: fmt.Sprintf("document %d: leave with the neighbour if nobody is in, ring twice", id),
		})
	}
	return d
}

const (
	documents = 2000                  // in the cache: some 20 MiB, of small objects
	renew     = 20 * time.Millisecond // in the background, one of them is made anew
)

// store is the service's cache.
type store struct {
	mu   sync.RWMutex
	docs []document
}

func newStore() *store {
	s := new(store)
	for id := range documents {
		s.docs = append(s.docs, newDocument(id))
	}
	return s
}

func (s *store) get(id int) document {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.docs[id%documents]
}

func (s *store) put(id int, d document) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.docs[id%documents] = d
}

// renew makes documents of the cache anew, until ctx ends.
func (s *store) renew(ctx context.Context) {
	r := rand.New(rand.NewPCG(1, 2))
	for t := time.NewTicker(renew); ; {
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
			id := r.IntN(documents)
			s.put(id, newDocument(id))
		}
	}
}

func (s *store) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /documents/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.ParseUint(r.PathValue("id"), 10, 31)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(w, s.get(int(id)))
	})
	mux.HandleFunc("PUT /documents/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.ParseUint(r.PathValue("id"), 10, 31)
		var d document
		if err == nil {
			err = json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&d)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.put(int(id), d)
		answer(w, len(d.Lines))
	})
	mux.HandleFunc("POST /batch", func(w http.ResponseWriter, r *http.Request) {
		var batch []document
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<20)).Decode(&batch); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		sum := 0.0
		for _, d := range batch {
			for _, l := range d.Lines {
				sum += l.Price * float64(l.Quantity)
			}
		}
		answer(w, sum)
	})
	return mux
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone, if anything
}

// profileFile is in the working directory, which is the turn's.
const profileFile = "cpu.pprof"

// playService serves until its orders end.
func playService(r role) error {
	var w way
	for _, known := range ways {
		if known.name == r.Way {
			w = known
		}
	}
	if w.name == "" {
		return fmt.Errorf("no way %q to run the service", r.Way)
	}
	docs := newStore()
	handler := docs.handler()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	addr := l.Addr().String()

	var watch *watch
	if w.guard != nil {
		var event func(memguard.Event)
		if r.Profile {
			watch = newWatch()
			event = watch.event
		}
		guard, limiter := w.guard(event)
		defer guard.Close()
		if watch != nil {
			watch.guard = guard
		}
		if limiter != nil {
			handler, l = limiter.Handler(handler), limiter.Listener(l)
		}
	}
	if r.Profile {
		f, err := os.Create(profileFile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go docs.renew(ctx)
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	defer srv.Close()
	go srv.Serve(l)

	return obey(func(o order) (any, error) {
		switch o.Do {
		case address:
			return addr, nil
		case look:
		case quiet:
			stop()
			debug.FreeOSMemory() // twice: what the first one finalized, the second one frees
			debug.FreeOSMemory()
		case finish:
			pprof.StopCPUProfile()
		default:
			return nil, errOrder
		}
		u, err := used()
		if watch != nil {
			u.Guard = watch.acts()
		}
		return u, err
	})
}

// used reads what the process has taken so far.
func used() (u usage, err error) {
	m := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(m)
	u.Cycles, u.Allocated = m[0].Value.Uint64(), m[1].Value.Uint64()
	cpu, err := processCPU()
	u.CPU = cpu.Seconds()
	return u, err
}
