// SPDX-License-Identifier: Apache-2.0

// Orders is a small HTTP service with a leak that no review found: it remembers
// the answer to every order under its idempotency key, so that a client may try
// again, and nothing ever forgets one. It imports memguard for two lines: one
// that watches, one that answers where the memory is.
//
//	go run ./examples/orders -addr 127.0.0.1:8080
//	curl -d '{"customer":"c1","items":[{"sku":"a","quantity":2}]}' -H 'Idempotency-Key: 1' http://127.0.0.1:8080/orders
//	curl http://127.0.0.1:8080/debug/memguard
//
// It is the service that "memguard demo" drives into a real memory limit.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"

	"github.com/memguard/memguard-go/memguard"
)

type order struct {
	Customer string `json:"customer"`
	Items    []struct {
		SKU      string `json:"sku"`
		Quantity int    `json:"quantity"`
		Note     string `json:"note,omitempty"`
	} `json:"items"`
}

// service answers orders.
type service struct {
	mu      sync.Mutex
	answers map[string][]byte // by idempotency key; here is the leak
}

func (s *service) create(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	s.mu.Lock()
	answer, isKnown := s.answers[key]
	s.mu.Unlock()
	if !isKnown {
		var o order
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		count := 0
		for _, item := range o.Items {
			count += item.Quantity
		}
		answer, _ = json.Marshal(map[string]any{"order": o, "pieces": count})
		if key != "" {
			s.mu.Lock()
			s.answers[key] = answer
			s.mu.Unlock()
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer)
}

// explain answers where the memory is and what is wrong, seen from inside.
func explain(g *memguard.Guard) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		report, err := g.Report()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(report)
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	s := &service{answers: map[string][]byte{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", s.create)
	g := memguard.Start(memguard.Config{})
	defer g.Close()
	mux.HandleFunc("GET /debug/memguard", explain(g))
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %s\n", l.Addr()) // for who started it with port 0
	log.Fatal(http.Serve(l, mux))
}
