// SPDX-License-Identifier: Apache-2.0

// Orders is an HTTP service without a leak that dies all the same. Dealers send
// orders of some hundred lines; each is decoded, held with a plan of what can be
// delivered on each day of the year while the warehouse reserves it, and answered
// with a receipt. A burst of orders holds more memory than the container has.
//
//	go run ./examples/orders -addr 127.0.0.1:8080
//	curl -d '{"customer":"c1","lines":[{"sku":"a","quantity":2}]}' http://127.0.0.1:8080/orders
//
// With -guard DIR the same service is guarded: memguard keeps the memory limit
// where the container leaves it, and orders that do not fit are refused at once
// with 503, so that the others are answered. What explains a death is kept in DIR.
// Where no container limits it, -limit 512MiB has the guard hold that.
//
// It is the service whose two lives "memguard demo" shows.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/memguard/shed"
)

type order struct {
	Customer string `json:"customer"`
	Lines    []line `json:"lines"`
}

type line struct {
	SKU      string  `json:"sku"`
	Note     string  `json:"note"`
	Quantity int     `json:"quantity"`
	Price    float64 `json:"price"`
}

// receipt is the answer to an order.
type receipt struct {
	Customer string  `json:"customer"`
	Pieces   int     `json:"pieces"`
	Sum      float64 `json:"sum"`
	Digest   string  `json:"sha256"` // of the order as it came
}

const (
	mostBytes = 1 << 20 // of an order
	mostLines = 1000
	days      = 365 // of a plan
)

// plan is how many pieces of each line can be delivered by each day of a year:
// those of line i are at i*days. Of 300 lines it is 855 KiB.
type plan []int

// service answers orders.
type service struct {
	// reserve has the warehouse fill in the plan and reserve what is in it.
	reserve func(context.Context, *order, plan) error
}

func (s *service) create(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBytes))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var o order
	if err := json.Unmarshal(body, &o); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if n := len(o.Lines); n > mostLines {
		http.Error(w, fmt.Sprintf("an order of %d lines; want %d at most", n, mostLines), http.StatusBadRequest)
		return
	}
	p := make(plan, len(o.Lines)*days)
	if err := s.reserve(r.Context(), &o, p); err != nil { // meanwhile all of this is held
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	digest := sha256.Sum256(body)
	a := receipt{Customer: o.Customer, Digest: hex.EncodeToString(digest[:])}
	for i, l := range o.Lines {
		n := min(l.Quantity, p[i*days+days-1])
		a.Pieces += n
		a.Sum += float64(n) * l.Price
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a)
}

// warehouse stands in for another service: it has everything in stock, and takes
// its time to reserve it.
func warehouse(wait time.Duration) func(context.Context, *order, plan) error {
	return func(ctx context.Context, o *order, p plan) error {
		for i := range p {
			p[i] = o.Lines[i/days].Quantity
		}
		select {
		case <-time.After(wait):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	dir := flag.String("guard", "", "guard the service, and keep evidence in this `directory`")
	limit := flag.String("limit", "", "memory limit that the guard holds where none is enforced, such as `512MiB`")
	wait := flag.Duration("warehouse", time.Second, "time that the warehouse takes to reserve an order")
	flag.Parse()
	cfg := memguard.Config{}
	if *limit != "" {
		var err error
		if cfg.Limit, err = memguard.ParseBytes(*limit); err != nil {
			log.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %s\n", l.Addr()) // for who started it with port 0
	if err := serve(l, *dir, cfg, &service{reserve: warehouse(*wait)}); err != nil {
		log.Fatal(err)
	}
}

// serve answers until the process is told to end, and then what has begun.
func serve(l net.Listener, dir string, cfg memguard.Config, s *service) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", s.create)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	if dir != "" {
		limiter := shed.New(shed.Config{})
		cfg.Shed, cfg.Evidence = limiter, &evidence.Store{Dir: dir}
		guard := memguard.Start(cfg)
		defer guard.Close()
		server.Handler, server.ConnState, l = limiter.Handler(mux), limiter.ConnState, limiter.Listener(l)
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	most, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if server.Shutdown(most) != nil {
		return server.Close() // who has sent no whole order by now is not waited for
	}
	return nil
}
