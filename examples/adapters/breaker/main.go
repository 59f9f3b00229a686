// SPDX-License-Identifier: Apache-2.0

// Breaker is an HTTP service that asks another one, behind a circuit breaker of
// sony/gobreaker. The guard couples the collector to the breaker: while it tries
// carefully (half-open) GC percent is 50, while it refuses (open) 200, as far as
// the memory limit allows.
//
//	go run ./breaker -upstream http://127.0.0.1:9090
//	curl http://127.0.0.1:8080/quote
//	curl http://127.0.0.1:8080/debug/breaker
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/memguard/memguard-go/examples/adapters"
	"github.com/memguard/memguard-go/memguard"
	"github.com/sony/gobreaker/v2"
)

type service struct {
	upstream string
	client   *http.Client
	breaker  *gobreaker.CircuitBreaker[[]byte]
	guard    *memguard.Guard
}

// quote passes on what the upstream says.
func (s *service) quote(w http.ResponseWriter, r *http.Request) {
	body, err := s.breaker.Execute(func() ([]byte, error) { return s.ask(r.Context()) })
	switch {
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
	default:
		_, _ = w.Write(body)
	}
}

func (s *service) ask(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.upstream, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("upstream: %s", resp.Status)
	}
	const most = 1 << 20
	return io.ReadAll(io.LimitReader(resp.Body, most))
}

// coupling is what the guard made of the breaker's state.
type coupling struct {
	State     string `json:"state"`
	GCPercent int    `json:"gc_percent"`
	Reason    string `json:"reason"`
	Clamps    uint64 `json:"clamps"` // times that the state's GC percent was not given
}

func (s *service) coupling(w http.ResponseWriter, _ *http.Request) {
	st := s.guard.Status()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(coupling{st.Breaker.String(), st.Wanted.GCPercent, st.Decision.Reason, st.Clamps})
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	upstream := flag.String("upstream", "http://127.0.0.1:9090", "URL to ask")
	wait := flag.Duration("wait", 5*time.Second, "time that the breaker stays open")
	flag.Parse()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Printf("listening on %s\n", l.Addr()) // for who started it with port 0

	s := &service{
		upstream: *upstream, client: &http.Client{Timeout: 2 * time.Second},
		breaker: gobreaker.NewCircuitBreaker[[]byte](gobreaker.Settings{
			Timeout:     *wait,
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 3 },
		}),
	}
	s.guard = memguard.Start(memguard.Config{Breaker: adapters.Gobreaker(s.breaker)})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /quote", s.quote)
	mux.HandleFunc("GET /debug/breaker", s.coupling)
	err = serve(ctx, &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, l)
	_ = s.guard.Close() // puts back every setting
	if err != nil {
		log.Fatal(err)
	}
}

// serve answers until ctx ends, and then what has begun.
func serve(ctx context.Context, server *http.Server, l net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	most, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return server.Shutdown(most)
}
