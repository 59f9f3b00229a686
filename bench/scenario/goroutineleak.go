// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

const (
	leakRate    = 150 // requests per second for /price, which leak
	healthyRate = 100 // requests per second for /orders
)

var goroutineLeak = lab.Scenario{
	Name: "goroutine-leak",
	Story: "/price asks an upstream that takes connections and never answers, with a client that has no timeout. " +
		"Each request leaves its handler behind for good, with its basket, two goroutines of the HTTP client and two connections; /orders is healthy traffic beside it.",
	Claim:      "Leaked handlers come from a context that serverHandler.ServeHTTP did not cancel, and end when the client goes away.",
	Limit:      128 * mib,
	Duration:   12 * time.Second,
	Cause:      []string{"goroutine-leak", "goroutine-growth"},
	Survivable: true,
	Best:       "Every answer of /orders and none of /price, which nobody can have: it is refused once it holds its part of the memory.",
	Victim: func(ctx context.Context, h *lab.Host) error {
		up, err := silentUpstream(ctx)
		if err != nil {
			return err
		}
		client := &http.Client{Transport: &http.Transport{}} // here is the bug: no Timeout
		mux := http.NewServeMux()
		mux.HandleFunc("/orders", serveOrder)
		mux.HandleFunc("/price", func(w http.ResponseWriter, _ *http.Request) {
			basket := block(basketBytes(h.Limit))
			resp, err := client.Get("http://" + up + "/price") // and here: not the request's context
			runtime.KeepAlive(basket)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			resp.Body.Close()
		})
		return h.Serve(ctx, mux)
	},
	Load: func(ctx context.Context, c *lab.Client) error {
		return both(
			func() error { return c.Rate(ctx, leakRate, lab.Request{Path: "/price"}) },
			func() error { return c.Rate(ctx, healthyRate, lab.Request{Path: "/orders", Check: checkOrder}) },
		)
	},
}

// basketBytes is what a request holds while it waits: the limit is full after
// 1500 of them, or sooner, as each costs some 40 KiB beside.
func basketBytes(limit uint64) uint64 { return limit / 1500 }

// both runs two loads at once, and returns the first error.
func both(a, b func() error) error {
	var wg sync.WaitGroup
	var errA error
	wg.Go(func() { errA = a() })
	errB := b()
	wg.Wait()
	if errA != nil {
		return errA
	}
	return errB
}
