// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"slices"
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

// evidenceDir is where evidence is kept, in the working directory: the measurement's.
const evidenceDir = "evidence"

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
			store := &evidence.Store{Dir: evidenceDir}
			return memguard.Start(memguard.Config{Event: event, Shed: l, Evidence: store}), l
		},
	},
}

// usage is what the service says of itself; all cumulative.
type usage struct {
	CPU    float64 // seconds, user and system
	Cycles uint64  // completed garbage collections
	Guard  *acts   `json:",omitempty"`
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
	mux.HandleFunc("POST /collect", func(http.ResponseWriter, *http.Request) { runtime.GC() })
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

// profileFile is in the working directory, which is the measurement's.
const profileFile = "cpu.pprof"

// service is the HTTP service, as it runs just now.
type service struct {
	docs    *store
	watch   *watch // nil unless somebody wants to know what the guard does
	guard   *memguard.Guard
	servers []*http.Server
}

// addresses are where the service listens. Plain has nothing around the handler,
// whatever else there is; Limited is empty without a limiter.
type addresses struct{ Plain, Limited string }

// usual is where a client of that way sends its requests.
func (a *addresses) usual() string { return cmp.Or(a.Limited, a.Plain) }

// be runs the way of that name from here on.
func (s *service) be(name string) (at addresses, err error) {
	i := slices.IndexFunc(ways, func(w way) bool { return w.name == name })
	if i < 0 {
		return at, fmt.Errorf("no way %q to run the service", name)
	}
	mux := s.docs.handler()
	if ways[i].guard == nil {
		at.Plain, err = s.listen(mux, unlimited)
		return at, err
	}
	var event func(memguard.Event)
	var limiter *shed.Limiter
	stamp := s.stamped
	if s.watch != nil {
		event = s.watch.event
		stamp = func(h http.Handler) http.Handler { return h } // nobody compares
	}
	if s.guard, limiter = ways[i].guard(event); s.watch != nil {
		s.watch.guard = s.guard
	}
	if at.Plain, err = s.listen(stamp(mux), unlimited); err == nil && limiter != nil {
		at.Limited, err = s.listen(stamp(limiter.Handler(mux)), limiter.Listener)
	}
	return at, err
}

func unlimited(l net.Listener) net.Listener { return l }

func (s *service) listen(h http.Handler, around func(net.Listener) net.Listener) (addr string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	s.servers = append(s.servers, srv)
	go srv.Serve(around(l))
	return l.Addr().String(), nil
}

// stamped says in each answer when the guard has last ticked.
func (s *service) stamped(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()[tickHeader] = []string{strconv.FormatInt(time.Now().Add(-s.guard.Alive()).UnixMicro(), 10)}
		h.ServeHTTP(w, r)
	})
}

// end ends the servers and the guard.
func (s *service) end() {
	for _, srv := range s.servers {
		srv.Close()
	}
	if s.guard != nil {
		s.guard.Close()
	}
}

// playService serves until its orders end.
func playService(r role) error {
	s := service{docs: newStore()}
	defer s.end()
	if r.Profile {
		s.watch = newWatch()
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
	go s.docs.renew(ctx)

	return obey(func(o order) (any, error) {
		switch o.Do {
		case be:
			return s.be(o.Way)
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
		if s.watch != nil && s.guard != nil {
			u.Guard = s.watch.acts()
		}
		return u, err
	})
}

// used reads what the process has taken so far.
func used() (u usage, err error) {
	m := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(m)
	u.Cycles = m[0].Value.Uint64()
	cpu, err := cpuOf(os.Getpid())
	u.CPU = cpu.Seconds()
	return u, err
}
